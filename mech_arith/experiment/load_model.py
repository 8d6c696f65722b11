"""The model that a config names, its files, and the model at work."""

import gc
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.errors import UserError
from mech_arith.common.paths import store_dir
from mech_arith.common.store import Store
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.names import model_choice
from mech_arith.experiment.plan import Prepared
from mech_arith.models.base import Model
from mech_arith.models.kinds import find_loader

log = logging.getLogger("mech_arith")


@dataclass(frozen=True)
class _Loaded:
    """The model that this process has loaded last."""

    key: object
    model: Model
    """As it was loaded: it is copied, and never run."""


_last: list[_Loaded] = []
"""At most one: a second may not fit the memory beside it."""


def load_model(settings: RunConfig, prepared: Prepared) -> Model:
    """The model that the config names, on its device; the caller's own.

    Raises:
        UserError: there is none, or an option does not fit it.
    """
    return _by_engine(_load(settings, prepared), settings)


def shared_model(settings: RunConfig, prepared: Prepared, *, weights: str) -> Model:
    """The model of a cell, which shares its network with the process's other cells.

    It is loaded where the process's last cell had another model, which is then let go first.

    Args:
        settings: names the model.
        prepared: has the examples for the prompt.
        weights: digest of the model's files, see `identity.files_digest`.

    Raises:
        UserError: there is none, or an option does not fit it.
    """
    device, choice = device_of(settings), model_choice(settings)
    loader = find_loader(choice.kind)
    key = (
        type(loader),
        device,
        weights,
        replace(choice, style=None, shots=0, system=None, date=""),
    )
    if _last and _last[0].key == key:
        again = loader.asked_again(_last[0].model, choice, shots=prepared.shots)
        if again is not None:
            return _by_engine(_checked(again, choice.kind), settings)
    release_model()
    model = _load(settings, prepared)
    again = loader.asked_again(model, choice, shots=prepared.shots)
    if again is None:
        return _by_engine(model, settings)
    _last.append(_Loaded(key, model))
    return _by_engine(again, settings)


def release_model() -> None:
    """Let go of the model that cells of this process have shared."""
    if _last:
        _last.clear()
        gc.collect()  # modules and their hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _load(settings: RunConfig, prepared: Prepared) -> Model:
    """The model as its loader gives it."""
    device, choice = device_of(settings), model_choice(settings)
    log.info("loading %s", choice.name if choice.path is None else choice.path)
    loaded = find_loader(choice.kind).load(choice, device=device, shots=prepared.shots)
    return _checked(loaded, choice.kind)


def device_of(settings: RunConfig) -> str:
    """Where the model runs; the number of threads is set, too.

    Raises:
        UserError: there is no such device.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = available if settings.device.value == "auto" else settings.device.value
    if device == "cuda" and available != "cuda":
        raise UserError("expected a CUDA device, found none; use device=cpu or device=auto")
    return device


def _checked(model: object, kind: str) -> Model:
    if not isinstance(model, Model):
        raise UserError(
            f"expected a mech_arith.models.base.Model from the loader of {kind}, got "
            f"{type(model).__name__}; let its class inherit from Model"
        )
    return model


def _by_engine(model: Model, settings: RunConfig) -> Model:
    """Whole passes alone, where the config asks for them."""
    if settings.engine.value == "full":
        model.replays = False
    return model


def open_session(
    settings: RunConfig, model: Model, *, own: Store, checkpoint: Checkpoint
) -> Session:
    """A loaded model at work, as the config says.

    Args:
        settings: says the batch size, and whether and where cells share a store.
        model: the one that the config names.
        own: the store of a cell that shares none.
        checkpoint: what an earlier attempt at the same cell has done.
    """
    rows = settings.batch_size
    return Session(
        model,
        Batching(None if rows == "auto" else rows),
        Store(shared_store(settings)) if settings.store.enabled else own,
        checkpoint,
    )


def shared_store(settings: RunConfig) -> Path:
    """The directory of the store that cells share."""
    path = settings.store.path
    return store_dir() / "artifacts" if path is None else Path(path).expanduser()


def model_commit(settings: RunConfig) -> str | None:
    """The commit of the hub that the model's files are of; None where they are of none."""
    choice = model_choice(settings)
    return find_loader(choice.kind).commit(choice)


def model_files(settings: RunConfig) -> tuple[Path, ...]:
    """Every file that has a part in what a model answers, in order of name.

    Raises:
        UserError: there is no such model.
    """
    choice = model_choice(settings)
    return find_loader(choice.kind).files(choice)
