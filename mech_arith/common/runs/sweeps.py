"""A sweep on disk: the cells that were planned, and what has become of each."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mech_arith.common.atomic import read_bytes, write_new, write_text
from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.runs.records import RECORD, CellRecord, is_running, read_record
from mech_arith.common.runs.slurm import JobState, job_states

PLAN = "sweep.json"
"""In a sweep's directory: the command line and the cells."""

STATES = "cells.json"
"""In a sweep's directory, at its end: what has become of each cell."""

SWEEP_LOCK = ".sweep.lock"
"""In a sweep's directory; locked while a launch is at work there."""

FORMAT = 1

CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
"""Hydra's, that say which config is meant."""

STATUSES = ("done", "resumed", "failed", "killed", "running", "missing")
DONE, RESUMED, FAILED, KILLED, RUNNING, MISSING = STATUSES

WHOLE = (DONE, RESUMED)


@dataclass(frozen=True)
class PlannedCell:
    """A cell and where it goes."""

    directory: str
    """Under the sweep's."""
    overrides: tuple[str, ...]
    """Of the command line, of this cell alone."""
    identity: str | None = None
    """None where it could not be told: the config is bad, and running it says why."""
    job: str | None = None
    """The SLURM job that was last queued for it, as `sacct` names it."""
    launch_error: str = ""
    """Why it could not be launched."""


@dataclass(frozen=True)
class Launch:
    """Jobs that were handed to SLURM together: they are one array, in this order."""

    cells: tuple[tuple[int, ...], ...]
    """Of each job its cells, by their places in the plan."""
    earlier_jobs: tuple[str, ...]
    """All that submitit had queued for the sweep before."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep was asked for."""

    overrides: tuple[str, ...]
    """Of the command line, with all their choices."""
    hydra_overrides: tuple[str, ...]
    """Those of them that concern Hydra."""
    cells: tuple[PlannedCell, ...]
    flags: tuple[str, ...] = ()
    """Of the command line, where they say which config is meant: --config-dir and the like."""
    launch: Launch | None = None
    """The last one; a launch that is killed does not come to write down its jobs."""


@dataclass(frozen=True)
class CellState:
    """What has become of a cell."""

    directory: Path
    overrides: tuple[str, ...]
    status: str
    """One of `STATUSES`."""
    note: str = ""
    """In one line: why it has no result."""
    error: str = ""
    """The whole of what a failed cell left: its message, and the traceback if it was unexpected."""


def config_flags(arguments: Sequence[str]) -> tuple[str, ...]:
    """Hydra's flags that say which config is meant, with what follows each."""
    found: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument in CONFIG_FLAGS:
            found += [argument, following]
        elif argument.partition("=")[0] in CONFIG_FLAGS:
            found.append(argument)
    return tuple(found)


def write_plan(directory: Path, plan: SweepPlan) -> None:
    """Write down what a sweep is about to do."""
    write_text(directory / PLAN, _as_text(plan))


def begin_plan(directory: Path, plan: SweepPlan) -> bool:
    """Write down what a new sweep is about to do; False if another launch has just done so."""
    return write_new(directory / PLAN, _as_text(plan).encode())


def _as_text(plan: SweepPlan) -> str:
    return json.dumps({"format": FORMAT, **asdict(plan)}, indent=2) + "\n"


def read_plan(directory: Path) -> SweepPlan:
    """Read back what a sweep was asked for, and which jobs were queued for its cells.

    Raises:
        UserError: there is no sweep in the directory, or its plan is damaged.
    """
    try:
        known = json.loads(read_bytes(directory / PLAN))
        launch = known.get("launch")
        plan = SweepPlan(
            overrides=tuple(known["overrides"]),
            hydra_overrides=tuple(known["hydra_overrides"]),
            cells=tuple(
                PlannedCell(**cell | {"overrides": tuple(cell["overrides"])})
                for cell in known["cells"]
            ),
            flags=tuple(known.get("flags", ())),
            launch=launch and _launch(launch),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"expected a sweep's directory, got {str(directory)!r}, which has no {PLAN}; give the "
            "hydra.sweep.dir of an earlier sweep"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"expected a readable {PLAN} in {directory}, got {type(error).__name__}: {error}; "
            "start a new sweep"
        ) from None
    return with_jobs(plan, submitted_jobs(directory))


def _launch(known: Mapping[str, Any]) -> Launch:
    # Earlier versions had one cell for each job.
    jobs = [[job] if isinstance(job, int) else job for job in known["cells"]]
    return Launch(tuple(map(tuple, jobs)), tuple(known["earlier_jobs"]))


def submitted_jobs(directory: Path) -> set[str]:
    """The jobs that submitit has started or queued for a sweep, by their ids."""
    return {path.parent.name for path in (directory / ".submitit").glob("*/*_submitted.pkl")}


def with_jobs(plan: SweepPlan, submitted: set[str]) -> SweepPlan:
    """The plan with the job of each cell of its last launch."""
    if plan.launch is None:
        return plan
    cells = list(plan.cells)
    for job in submitted - set(plan.launch.earlier_jobs):
        array, _, task = job.partition("_")
        if array.isdigit() and int(task or 0) < len(plan.launch.cells):
            for number in plan.launch.cells[int(task or 0)]:
                cells[number] = replace(cells[number], job=job)
    return replace(plan, cells=tuple(cells))


def cell_states(directory: Path) -> list[CellState]:
    """What has become of each cell of a sweep, in the order of the plan.

    Raises:
        UserError: there is no sweep in the directory.
    """
    return states_of(directory, read_plan(directory).cells)


def states_of(directory: Path, cells: Sequence[PlannedCell]) -> list[CellState]:
    """What has become of some cells of a sweep."""
    records = [read_record(directory / cell.directory) for cell in cells]
    job_of = [_last_job(cell, record) for cell, record in zip(cells, records, strict=True)]
    jobs = job_states(
        job
        for cell, job in zip(cells, job_of, strict=True)
        if job and not (directory / cell.directory / SUMMARY).is_file()
    )
    return [
        _state(directory / cell.directory, cell, record, jobs.get(job or ""))
        for cell, record, job in zip(cells, records, job_of, strict=True)
    ]


def begun_cells(directory: Path) -> list[PlannedCell]:
    """All cells that have ever begun in a sweep's directory, hidden places apart."""
    found = []
    for path in sorted(directory.rglob(RECORD)):
        name = path.parent.relative_to(directory)
        record = read_record(path.parent)
        if record is not None and not any(part.startswith(".") for part in name.parts):
            found.append(PlannedCell(name.as_posix(), record.overrides, record.identity))
    return found


def _last_job(cell: PlannedCell, record: CellRecord | None) -> str | None:
    """The SLURM job of a cell's last attempt; of one that has not come so far, the planned one."""
    if cell.job is None and record is not None:
        return record.attempts[-1].slurm_job
    return cell.job


def _state(
    directory: Path, cell: PlannedCell, record: CellRecord | None, job: JobState | None
) -> CellState:
    """What has become of one cell, by what stands in its directory and what SLURM says."""
    overrides = cell.overrides
    if (directory / SUMMARY).is_file():
        return _finished(directory, overrides, record)
    if is_running(directory):
        return CellState(directory, overrides, RUNNING, "a process is at work in its directory")
    if job is not None and job.is_alive:
        return CellState(directory, overrides, RUNNING, f"SLURM job {job.job} is queued or runs")
    error = directory / ERROR_FILE
    if error.is_file():
        text = error.read_text(encoding="utf-8", errors="replace").strip()
        return CellState(directory, overrides, FAILED, text.partition("\n")[0], text)
    if record is None and job is None:
        why = f": {cell.launch_error}" if cell.launch_error else ""
        return CellState(directory, overrides, MISSING, f"it was never started{why}")
    if record is None and job is not None and not job.began:
        return CellState(directory, overrides, MISSING, f"{job}, before it began")
    return CellState(directory, overrides, KILLED, _why_killed(record, job))


def _finished(directory: Path, overrides: tuple[str, ...], record: CellRecord | None) -> CellState:
    """Of a cell that says of itself that it is whole."""
    from mech_arith.common.runs.directories import damage

    wrong = damage(directory)
    if wrong is not None:
        return CellState(directory, overrides, FAILED, f"its result is damaged: {wrong}", wrong)
    again = record is not None and len(record.attempts) > 1
    return CellState(directory, overrides, RESUMED if again else DONE)


def _why_killed(record: CellRecord | None, job: JobState | None) -> str:
    if job is not None or record is None:
        return str(job)
    last = record.attempts[-1]
    process = f"its process ({last.pid} on {last.host}, started {last.started})"
    if last.interrupted is not None:
        return f"{process} was interrupted by {last.interrupted}"
    return f"{process} ended without a result or an error: killed, or out of memory"


def counted(states: Sequence[CellState]) -> str:
    """How many cells came to which end: '2 done, 1 killed of 3 cells'."""
    counts = Counter(state.status for state in states)
    ends = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{ends} of {len(states)} cells"


def own_overrides(overrides: Sequence[tuple[str, ...]]) -> list[str]:
    """Of each cell the overrides that not all cells share: what tells it from the others."""
    shared = set(overrides[0]).intersection(*overrides) if len(overrides) > 1 else set()
    return [" ".join(entry for entry in own if entry not in shared) for own in overrides]


TOLD = {
    **{f"model{of}": "model" for of in ("", ".name", ".path")},
    **{f"template{of}": "template" for of in ("", ".name")},
    "template.expression": "expression",
    **{f"hypothesis{of}": "hypothesis" for of in ("", ".name")},
    **{f"layers{of}": "layers" for of in ("", ".part", ".start", ".stop", ".step", ".list")},
    **{f"intervention{of}": "edit" for of in ("", ".edit", ".via")},
    **{f"tracing{of}": "tracing" for of in ("", ".method")},
    "tracing.point": "point",
    "tracing.positions": "positions",
    "tracing.heads": "heads",
    **{f"screen{of}": "screen" for of in ("", ".method")},
    "screen.points": "point",
    **{f"prompt{of}": "prompt" for of in ("", ".style", ".shots")},
    **{f"problems.{of}": "design" for of in ("design", "decorrelate")},
    "problems.seed": "seed",
}
"""Overrides that a cell's fields tell already -> the field."""


def swept_overrides(overrides: Sequence[tuple[str, ...]]) -> list[dict[str, str]]:
    """Of each cell the overrides in which the cells differ, as typed, by their keys.

    A cell that leaves one of them out has no entry for it.
    """
    known = [dict(map(_key_and_value, own)) for own in overrides]
    keys = dict.fromkeys(key for own in known for key in own)
    varying = [key for key in keys if len({own.get(key) for own in known}) > 1]
    return [{key: own[key] for key in varying if key in own} for own in known]


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), "removed" if key.startswith("~") else value


def untold(
    swept: Sequence[Mapping[str, str]], fields: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Of each cell the swept overrides that its fields do not tell: a label must name them.

    Args:
        swept: as `swept_overrides`.
        fields: of the same cells, by name.
    """
    keys = dict.fromkeys(key for own in swept for key in own)
    hidden = [key for key in keys if not _is_told(key, swept, fields)]
    return [{key: own[key] for key in hidden if key in own} for own in swept]


def _is_told(
    key: str, swept: Sequence[Mapping[str, str]], fields: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether cells that differ in an override differ in a field as well."""
    if key not in TOLD:
        return False
    said: dict[str, set[str | None]] = {}
    for own, of_cell in zip(swept, fields, strict=True):
        said.setdefault(str(of_cell.get(TOLD[key])), set()).add(own.get(key))
    return all(len(values) == 1 for values in said.values())


def swept_of(directory: Path) -> dict[str, str]:
    """The overrides of a cell in which the cells of its sweep differ; none for a single run."""
    for parent in directory.parents:
        if (parent / PLAN).is_file():
            cells = read_plan(parent).cells
            own = swept_overrides([cell.overrides for cell in cells])
            places = [(parent / cell.directory).resolve() for cell in cells]
            found = zip(places, own, strict=True)
            return next((swept for place, swept in found if place == directory.resolve()), {})
    return {}


def write_states(directory: Path, states: Sequence[CellState]) -> None:
    """Write a sweep's end down: how many cells came to which end, and each cell's own."""
    counts = Counter(state.status for state in states)
    known: dict[str, Any] = {
        "format": FORMAT,
        "counts": {status: counts[status] for status in STATUSES},
        "cells": [
            {
                "directory": state.directory.relative_to(directory).as_posix(),
                "overrides": state.overrides,
                "status": state.status,
                "note": state.note,
                "error": state.error,
            }
            for state in states
        ],
    }
    write_text(directory / STATES, json.dumps(known, indent=2) + "\n")
