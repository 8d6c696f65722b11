"""The solver that a config names, and its files."""

import logging
from pathlib import Path

import torch

from mech_arith.config import ModelConfig, RunConfig
from mech_arith.errors import UserError
from mech_arith.names import LANGUAGE_MODEL
from mech_arith.plan import Prepared
from mech_arith.solvers.arithmetic import load_arithmetic, solver_directory
from mech_arith.solvers.base import Solver
from mech_arith.solvers.checkpoints import solver_files

log = logging.getLogger("mech_arith")

DEFAULT_STYLE = "comma"
"""Of prompts to language models."""


def load_solver(settings: RunConfig, prepared: Prepared) -> Solver:
    """The solver that the config names, on its device.

    Raises:
        UserError: there is none, or an option does not fit it.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = available if settings.device.value == "auto" else settings.device.value
    if device == "cuda" and available != "cuda":
        raise UserError("expected a CUDA device, found none; use device=cpu or device=auto")
    path = settings.model.path
    log.info("loading %s", settings.model.name if path is None else path)
    if settings.model.kind == LANGUAGE_MODEL:
        solver = _language_model(settings, prepared, device)
    else:
        solver = _arithmetic(settings, device)
    solver.replays = settings.engine.value != "full"
    return solver


def model_files(model: ModelConfig) -> tuple[Path, ...]:
    """Every file that has a part in what a model answers, in order of name.

    Raises:
        UserError: there is no such model.
    """
    path = None if model.path is None else Path(model.path).expanduser()
    if model.kind == LANGUAGE_MODEL:
        from mech_arith.solvers.hf_files import model_files as files_of
        from mech_arith.solvers.loading import find_model

        return files_of(find_model(model.name, path, model.hub, model.revision))
    return solver_files(solver_directory(model.name, path))


def _arithmetic(settings: RunConfig, device: str) -> Solver:
    path = settings.model.path
    return load_arithmetic(
        settings.model.name, directory=None if path is None else Path(path), device=device
    )


def _language_model(settings: RunConfig, prepared: Prepared, device: str) -> Solver:
    # Heavy, and of no use to the solvers that are shipped.
    from mech_arith.solvers.loading import load_model
    from mech_arith.solvers.pretrained import PretrainedSolver
    from mech_arith.solvers.prompting import Prompting

    model, prompt = settings.model, settings.prompt
    loaded = load_model(
        model.name,
        path=None if model.path is None else Path(model.path),
        hub=model.hub,
        revision=model.revision,
        dtype=model.dtype if settings.dtype.value == "auto" else settings.dtype.value,
        device=None if model.device_map is not None else device,
        device_map=model.device_map,
    )
    style = prompt.style or DEFAULT_STYLE
    return PretrainedSolver(loaded, Prompting(style, prepared.shots, prompt.system, prompt.date))
