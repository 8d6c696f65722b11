"""The model that a config names, its files, and the model at work."""

import logging
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


def load_model(settings: RunConfig, prepared: Prepared) -> Model:
    """The model that the config names, on its device.

    Raises:
        UserError: there is none, or an option does not fit it.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = available if settings.device.value == "auto" else settings.device.value
    if device == "cuda" and available != "cuda":
        raise UserError("expected a CUDA device, found none; use device=cpu or device=auto")
    choice = model_choice(settings)
    log.info("loading %s", choice.name if choice.path is None else choice.path)
    model = find_loader(choice.kind).load(choice, device=device, shots=prepared.shots)
    if not isinstance(model, Model):
        raise UserError(
            f"expected a mech_arith.models.base.Model from the loader of {choice.kind}, got "
            f"{type(model).__name__}; let its class inherit from Model"
        )
    model.replays = model.replays and settings.engine.value != "full"
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
    path, rows = settings.store.path, settings.batch_size
    shared = store_dir() / "artifacts" if path is None else Path(path).expanduser()
    return Session(
        model,
        Batching(None if rows == "auto" else rows),
        Store(shared) if settings.store.enabled else own,
        checkpoint,
    )


def model_files(settings: RunConfig) -> tuple[Path, ...]:
    """Every file that has a part in what a model answers, in order of name.

    Raises:
        UserError: there is no such model.
    """
    choice = model_choice(settings)
    return find_loader(choice.kind).files(choice)
