"""The one entrypoint: compose -> validate -> run -> save -> log.

Heavy libraries are imported inside functions, so that `--help` and `--cfg job` answer at once.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mech_arith.config import RunConfig
from mech_arith.errors import UserError
from mech_arith.paths import conf_dir

if TYPE_CHECKING:
    from mech_arith.cell import CellResult
    from mech_arith.plan import Prepared
    from mech_arith.solvers.base import Solver

log = logging.getLogger("mech_arith")

ERROR_FILE = "error.txt"
"""The one line that says why a cell has no result."""

_failed: list[Path] = []
"""Directories of this process's cells that ended in an error; they decide the exit code."""


def main() -> None:
    """Run the cells that the command line asks for; exit code 1 if any of them failed."""
    ConfigStore.instance().store(name="schema", node=RunConfig)
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    entry(_cell)()
    if _failed:
        sys.exit(1)


def _cell(config: DictConfig) -> None:
    """One job. An error of the user's ends it with one line; a sweep's other jobs go on."""
    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    (directory / ERROR_FILE).unlink(missing_ok=True)
    try:
        run(config, directory, sweep=_sweep_name(job))
    except UserError as error:
        _failed.append(directory)
        log.error("%s", error)
        (directory / ERROR_FILE).write_text(f"{error}\n", encoding="utf-8")


def _sweep_name(job: Any) -> str | None:
    """The group under which a sweep's runs are compared; None for a single run."""
    return Path(job.sweep.dir).name if job.mode == RunMode.MULTIRUN else None


def run(config: DictConfig, directory: Path, *, sweep: str | None) -> None:
    """Everything between a composed config and a finished run directory.

    Raises:
        UserError: bad input; nothing half-written is left.
    """
    from mech_arith.cell import run_cell
    from mech_arith.figures import cell_figures, save_figures
    from mech_arith.overview import print_overview
    from mech_arith.plan import prepare
    from mech_arith.results import check_writable, save_run

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, RunConfig)
    check_writable(directory)
    prepared = prepare(settings)
    solver = _load_solver(settings)
    result = run_cell(solver, prepared.fit, prepared.report, prepared.cell(solver.n_layers))
    summary = result.summary | {
        "cell": _cell_name(prepared),
        "provenance": _provenance(solver, settings),
    }
    title = f"{solver.name}, {prepared.template.expression}"
    figures = save_figures(cell_figures(result.tables, title=title), directory / "figures")
    resolved = OmegaConf.to_yaml(config, resolve=True)
    save_run(directory, tables=result.tables, summary=summary, config_yaml=resolved)
    _track(settings, config, result, summary, figures, directory, sweep)
    if sweep is None:
        print_overview([directory])


def _load_solver(settings: RunConfig) -> "Solver":
    import torch

    from mech_arith.solvers.arithmetic import load_arithmetic

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = available if settings.device.value == "auto" else settings.device.value
    if device == "cuda" and available != "cuda":
        raise UserError("expected a CUDA device, found none; use device=cpu or device=auto")
    path = settings.model.path
    return load_arithmetic(
        settings.model.name, directory=None if path is None else Path(path), device=device
    )


def _cell_name(prepared: "Prepared") -> dict[str, Any]:
    config = prepared.config
    bounds = [config.layers.start, config.layers.stop, config.layers.step]
    own = "" if bounds == [None, None, 1] else f" {bounds}"
    return {
        "model": config.model.name,
        "template": config.template.name,
        "expression": str(prepared.template.expression),
        "layers": config.layers.part + own,
        "tracing": config.tracing.method,
        "point": config.tracing.point,
        "positions": config.tracing.positions,
        "edit": config.intervention.edit,
        "seed": config.problems.seed,
    }


def _provenance(solver: "Solver", settings: RunConfig) -> dict[str, Any]:
    """What made the numbers."""
    import subprocess
    from importlib.metadata import version

    root = Path(__file__).resolve().parent.parent
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("torch", "transformer-lens", "transformers", "numpy", "mech-arith")
    return {
        "git_commit": described.stdout.strip() or None,
        "weights_digest": solver.digest,
        "seed": settings.problems.seed,
        "device": str(solver.device),
        "versions": {package: version(package) for package in packages},
    }


def _track(
    settings: RunConfig,
    config: DictConfig,
    result: "CellResult",
    summary: dict[str, Any],
    figures: list[Path],
    directory: Path,
    sweep: str | None,
) -> None:
    """Log the finished run to W&B; its files are already safe on disk."""
    from mech_arith.tracking import Run, TrackingSettings

    cell = summary["cell"]
    tracking = TrackingSettings(
        mode=settings.wandb.mode.value,
        project=settings.wandb.project,
        entity=settings.wandb.entity,
        group=settings.wandb.group or sweep,
        name=f"{cell['model']} {cell['expression']} {cell['layers']} {cell['edit']}",
        tags=(cell["model"], cell["template"], cell["edit"], *settings.wandb.tags),
        directory=directory,
    )
    resolved = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(resolved, dict)
    with Run.start(tracking, {str(key): value for key, value in resolved.items()}) as wandb_run:
        wandb_run.log_summary(summary)
        for name, table in result.tables.items():
            wandb_run.log_table(name, table)
        wandb_run.log_images({path.stem: path for path in figures})
        wandb_run.log_curves(result.tables["effects"])


if __name__ == "__main__":
    main()
