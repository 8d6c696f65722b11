"""The model that a config names, and its files."""

import logging
from pathlib import Path

import torch

from mech_arith.common.errors import UserError
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


def model_files(settings: RunConfig) -> tuple[Path, ...]:
    """Every file that has a part in what a model answers, in order of name.

    Raises:
        UserError: there is no such model.
    """
    choice = model_choice(settings)
    return find_loader(choice.kind).files(choice)
