"""One job: everything between a composed config and a finished run directory."""

import copy
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mech_arith.common.atomic import atomic, sweep_abandoned, write_text
from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.digests import json_digest
from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.plugins import plugin_digests
from mech_arith.common.registry import without_additions
from mech_arith.common.runs.directories import check_writable, damage
from mech_arith.common.runs.records import (
    PARTS,
    begin,
    mark_tracked,
    read_record,
    write_record,
)
from mech_arith.common.runs.sweeps import TOLD, swept_of
from mech_arith.common.store import Store
from mech_arith.engine.sites import describe_heads
from mech_arith.evidence.objective import objective_names
from mech_arith.evidence.results import RunResult, load_run, save_run
from mech_arith.experiment.cell import CellResult, run_cell
from mech_arith.experiment.checks import ALL_POINTS, screened_points
from mech_arith.experiment.config import RunConfig, ScreenMethod
from mech_arith.experiment.identity import Identity, identify
from mech_arith.experiment.load_model import open_session, shared_model
from mech_arith.experiment.names import model_choice, objectives_of
from mech_arith.experiment.plan import Prepared, prepare
from mech_arith.experiment.typed import checked, composed_from
from mech_arith.interventions.edits import ACTIVATIONS
from mech_arith.models.base import Model
from mech_arith.models.kinds import find_loader
from mech_arith.models.saving import is_saved, save_edited
from mech_arith.reports.papers import page, with_png
from mech_arith.reports.terminal import cell_name, print_cells
from mech_arith.reports.wandb import Place, Run, TrackingSettings, not_followed, place

log = logging.getLogger("mech_arith")

DISABLED = "disabled"

COMPOSED = ".hydra"
"""In a run's directory: what Hydra has composed."""


@without_additions()
def run(
    config: DictConfig, directory: Path, *, overrides: Sequence[str], sweep: str | None
) -> "float | list[float] | None":
    """Everything between a composed config and a finished run directory.

    Returns:
        The number that `objective` asks for, or the list of several; None where nothing is asked
        for, or where one of them is not known. It is read from the finished cell, so that one
        which was there already returns the same.

    Raises:
        UserError: bad input; nothing half-written is left.
    """
    settings = checked(config, overrides)
    tracked_at = wandb_place(settings)
    if tracked_at.mode != DISABLED:
        _say_once(not_followed(os.environ))
    identity = identify(settings)
    finished = _is_whole(directory)
    if finished and not _model_is_gone(settings):
        log.info("%s: finished before, kept", directory)
    else:
        resolved = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
        assert isinstance(resolved, dict)
        resolved["plugins"] = settings.plugins  # by their absolute paths
        _compute(settings, directory, identity, overrides, OmegaConf.to_yaml(resolved))
    _present(settings, directory, sweep, tracked_at)
    return _returned(settings, directory)


@without_additions()
def check_free(
    config: DictConfig, directory: Path, overrides: Sequence[str], *, alone: bool
) -> None:
    """Refuse a directory in which another cell stands, before anything is written there.

    Args:
        config: as composed, with or without Hydra's own part.
        directory: of the cell.
        overrides: of the command line.
        alone: whether this is a single run, and not a cell that a sweep has put there.

    Raises:
        UserError: another cell has finished in the directory; or one has begun there, and the
            config of this one is bad.
    """
    record = read_record(directory)
    finished = _is_whole(directory)
    if not finished and record is None:
        return
    try:
        identity = identify(checked(copy.deepcopy(config), overrides))
    except UserError:
        if alone:
            raise
        return  # the cell's own directory, which the sweep has chosen: it will say what is wrong
    if finished and (record is None or record.identity != identity.digest):
        raise UserError(
            f"expected a directory without results, or with this cell's own, got {directory}, "
            "which has another cell's; choose another hydra.run.dir or hydra.sweep.dir"
        )


def write_composed(directory: Path, config: DictConfig, composed: DictConfig) -> None:
    """Write what Hydra has composed, under the names that Hydra gives it.

    Hydra itself would do so before anyone can ask whether the directory is free.
    """
    folder = directory / COMPOSED
    folder.mkdir(exist_ok=True)
    parts = {"config": config, "hydra": composed, "overrides": composed.hydra.overrides.task}
    for name, part in parts.items():
        write_text(folder / f"{name}.yaml", OmegaConf.to_yaml(part))


def _compute(
    settings: RunConfig,
    directory: Path,
    identity: Identity,
    overrides: Sequence[str],
    config_yaml: str,
) -> None:
    """From a checked config to the tables and headline numbers on disk."""
    prepared = prepare(settings)
    model_directory = _model_directory(settings)
    # What is wrong with its place is said before any work is done.
    if model_directory is not None and not is_saved(model_directory, identity=identity.digest):
        # Not the directory itself: a cell that is refused leaves none.
        above = (place for place in (model_directory, *model_directory.parents) if place.exists())
        check_writable(next(above), else_do="choose another with intervention.save_model")
    cell = _cell_fields(prepared, prepared.layers_name(None))
    record = begin(directory, identity.digest, identity.determines, overrides, cell)
    model = shared_model(settings, prepared, weights=identity.determines["weights"])
    cell |= {"layers": prepared.layers_name(model.n_layers)}
    record = replace(record, cell=cell)
    write_record(directory, record)
    result = _numbers(settings, prepared, model, directory, identity)
    provenance = _provenance(model, settings, identity)
    folders = [f"--config-dir={folder}" for folder in composed_from()]
    summary = result.summary | {
        "cell": cell,
        "provenance": provenance,
        "identity": identity.digest,
        "command": shlex.join(["python", "-m", "mech_arith", *folders, *overrides]),
        "attempts": len(record.attempts),
    }
    # Every row says what made it, so that the tables of many cells can be put together.
    made_by = {name: cell[name] for name in ("model", "template", "expression", "prompt", "seed")}
    made_by |= {
        "dtype": provenance["dtype"],
        "weights_digest": model.digest,
        "identity": identity.digest,
    }
    tables = {name: table.assign(**made_by) for name, table in result.tables.items()}
    if model_directory is not None and result.edited is not None:
        # Before the tables: a cell whose tables are there is finished.
        done = result.edited.edited | {"identity": identity.digest}
        save_edited(result.edited.model, model_directory, done)
        log.info("the edited model is in %s", model_directory)
    # Where locks do not work, another process may have been at work at the cell, and be done.
    save_run(
        directory,
        tables=tables,
        summary=summary,
        config_yaml=config_yaml,
        keep=lambda: _is_whole(directory),
    )


def _is_whole(directory: Path) -> bool:
    """Whether the directory of a cell has its numbers."""
    return (directory / SUMMARY).is_file() and damage(directory) is None


def _model_is_gone(settings: RunConfig) -> bool:
    """Whether an edited model is asked for, and there is nothing in its place."""
    directory = _model_directory(settings)
    return directory is not None and not (directory.is_dir() and any(directory.iterdir()))


def _model_directory(settings: RunConfig) -> Path | None:
    """Where the edited model goes; None for nowhere."""
    path = settings.intervention.save_model
    return None if path is None else Path(path).expanduser()


def _present(settings: RunConfig, directory: Path, sweep: str | None, tracked_at: Place) -> None:
    """Show the finished run: figures, W&B, the terminal. What is there already stays.

    The numbers are safe on disk: what fails here is a warning.
    """
    tidy(directory)
    record, figures = read_record(directory), directory / "figures"
    tracks = record is not None and record.tracked is None and tracked_at.mode != DISABLED
    if tracks or not figures.is_dir():
        saved = load_run(directory)
        _draw(saved, figures, settings)
        objectives = _objectives(settings, saved)
        if tracks and record is not None and _log_to_wandb(saved, sweep, tracked_at, objectives):
            mark_tracked(directory, record, tracked_at.mode)
    if sweep is None:
        print_cells([directory])


def _objectives(settings: RunConfig, saved: RunResult) -> dict[str, tuple[float | None, str]]:
    """By name the number of each objective; without one None, and why."""
    if settings.objective is None:
        return {}
    evidence = saved.tables["evidence"]
    # They were checked before the cell ran; a value that nothing was found for has no rows.
    named = [name.strip().partition("/")[2] for name in objective_names(settings.objective)]
    asked = objectives_of(settings, named)
    return {objective.name: objective.read(evidence) for objective in asked}


def _returned(settings: RunConfig, directory: Path) -> float | list[float] | None:
    """What the task returns. A search takes None for a failed trial, and any number for a result:
    so where a number is missing, None is returned and no stand-in.
    """
    if settings.objective is None:
        return None
    numbers = []
    found = _objectives(settings, load_run(directory, tables={"evidence"}))
    for name, (number, why) in found.items():
        if number is None:
            log.warning("no number for objective=%s: %s", name, why)
        else:
            log.info("objective %s: %g", name, number)
            numbers.append(number)
    if len(numbers) < len(found):
        return None
    return numbers if len(numbers) > 1 else numbers[0]


def _numbers(
    settings: RunConfig, prepared: Prepared, model: Model, directory: Path, identity: Identity
) -> CellResult:
    """The cell's numbers, going on from what an earlier attempt has left."""
    own = Store(directory / PARTS)
    session = open_session(
        settings, model, own=own, checkpoint=Checkpoint(own, cell=identity.digest)
    )
    return run_cell(session, prepared.fit, prepared.report, prepared.cell(model))


def tidy(directory: Path) -> None:
    """Remove what a finished cell no longer needs, and what killed attempts at it have left."""
    shutil.rmtree(directory / PARTS, ignore_errors=True)
    (directory / ERROR_FILE).unlink(missing_ok=True)
    sweep_abandoned(directory)


def _draw(saved: RunResult, directory: Path, settings: RunConfig) -> None:
    """The figures, all or none, unless they are there."""
    if directory.is_dir():
        return
    from mech_arith.reports.figures import draw_cell, heading

    asked = settings.figures
    try:
        on = with_png(page(asked.format, asked.width, title=asked.title))
        with atomic(directory) as [new]:
            draw_cell(saved.tables, new, **heading(saved.summary), on=on)
    except Exception as error:
        if directory.is_dir():  # another process, which no lock held off, has been faster
            return
        log.warning("figures could not be drawn, the tables are on disk all the same: %r", error)


def _cell_fields(prepared: Prepared, layers: str) -> dict[str, Any]:
    config = prepared.config
    path, heads = config.model.path, describe_heads(config.tracing.heads)
    screen = config.screen.method
    return {
        "model": config.model.name if path is None else f"{config.model.name}:{Path(path).name}",
        "template": config.template.name,
        "expression": str(prepared.template.expression),
        "hypothesis": config.hypothesis.name,
        "layers": layers,
        "tracing": config.tracing.method,
        "point": _points_name(config),
        "positions": config.tracing.positions,
        **({} if heads is None else {"heads": heads}),
        **({} if screen is ScreenMethod.none else {"screen": screen.value}),
        "prompt": find_loader(config.model.kind).prompt_name(model_choice(config)),
        "edit": _edit_name(config),
        "design": _design_name(config),
        "seed": config.problems.seed,
    }


def _points_name(config: RunConfig) -> str:
    """The point that is traced, or those that are screened."""
    points = screened_points(config.screen)
    return config.tracing.point if points is None else ", ".join(points) or ALL_POINTS


def _edit_name(config: RunConfig) -> str:
    """The edit, and what it is made on where that is not activations."""
    asked = config.intervention
    plainly = asked.edit == "none" or asked.via == ACTIVATIONS
    return asked.edit if plainly else f"{asked.edit} by {asked.via}"


def _design_name(config: RunConfig) -> str:
    """How problems are drawn, and which value is kept apart from the others."""
    design, value = config.problems.design, config.problems.decorrelate
    return design if value is None else f"{design} {value}"


def _provenance(model: Model, settings: RunConfig, identity: Identity) -> dict[str, Any]:
    """What made the numbers."""
    packages = ("torch", "transformer-lens", "transformers", "numpy", "mech-arith")
    return {
        "git_commit": _git_commit(Path(__file__).resolve().parents[2]),
        "weights_digest": model.digest,
        "model_commit": identity.determines.get("commit"),
        "training": None if model.trained_with is None else dict(model.trained_with),
        "seed": settings.problems.seed,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "versions": {package: version(package) for package in packages},
        "plugins": {Path(path).name: plugin_digests([path])[0] for path in settings.plugins},
    }


def _git_commit(root: Path) -> str | None:
    """The commit of the checkout, marked if files differ from it; None for an installed wheel."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def wandb_place(settings: RunConfig) -> Place:
    """Where the cell's W&B run goes, by the config and W&B's variables.

    Raises:
        UserError: a variable says what W&B does not know.
    """
    asked = settings.wandb
    return place(
        mode=None if asked.mode is None else asked.mode.value,
        project=asked.project,
        entity=asked.entity,
        group=asked.group,
        tags=tuple(asked.tags),
        environment=os.environ,
    )


@cache
def _say_once(line: str | None) -> None:
    """Warn of what concerns all cells of the process alike."""
    if line is not None:
        log.warning("%s", line)


def _log_to_wandb(
    saved: RunResult,
    sweep: str | None,
    at: Place,
    objectives: Mapping[str, tuple[float | None, str]],
) -> bool:
    """Log a finished cell to W&B; whether that was asked for and done."""
    if at.mode == DISABLED:
        return False
    cell, tables = saved.summary["cell"], saved.tables
    group = at.group or sweep
    # Of the sweep's other cells the fields are not known yet: what a field may tell is left to it.
    swept = {key: text for key, text in swept_of(saved.directory).items() if key not in TOLD}
    # One W&B run per cell of a sweep, however often its job starts; a lone one goes by its folder.
    names = [saved.summary["identity"], group or str(saved.directory.resolve())]
    tracking = TrackingSettings(
        mode=at.mode,
        project=at.project,
        entity=at.entity,
        group=group,
        sweep_id=at.sweep_id,
        run_id=json_digest(names)[:16],
        name=cell_name(cell | {"swept": swept}),
        tags=(cell["model"], cell["template"], cell["edit"], *at.tags),
        directory=saved.directory,
    )
    try:
        with Run.start(tracking, _plain_config(saved.config_yaml)) as wandb_run:
            wandb_run.log_summary(saved.summary)
            wandb_run.log_objectives({name: number for name, (number, _) in objectives.items()})
            # Curves first: a run that is logged again must number its rows alike, and a figure
            # may fail.
            wandb_run.log_curves(
                tables["correlations"],
                tables["effects"],
                tables["evidence"],
                positions=cell["positions"],
                hypotheses=tables.get("hypotheses"),
            )
            for name, table in tables.items():
                wandb_run.log_table(name, table)
            figures = sorted((saved.directory / "figures").glob("*.png"))
            wandb_run.log_images({path.stem: path for path in figures})
    except Exception as error:
        log.warning("W&B failed, the results are on disk all the same: %r", error)
        return False
    return True


def _plain_config(config_yaml: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(config_yaml))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
