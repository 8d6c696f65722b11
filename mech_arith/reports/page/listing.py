"""Which cells a report is on: whole runs, and what a sweep's plan asks for besides."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.common.runs.directories import find_runs, walk
from mech_arith.common.runs.records import read_record
from mech_arith.common.runs.sweeps import DONE, PLAN, RESUMED, WHOLE, CellState, cell_states
from mech_arith.evidence.columns import SWEPT

DAMAGED = "damaged"
"""Beside the statuses of a sweep's cells: a run that cannot be read."""

HYDRAS = Path(".hydra") / "overrides.yaml"
"""In a cell's directory, whatever version ran it."""


@dataclass(frozen=True)
class Listed:
    """A cell, whole or not."""

    name: str
    """Its directory, as short as tells it from the others."""
    directory: Path
    status: str
    """One of a sweep's statuses, or `DAMAGED`."""
    note: str
    """In one line: why it is not whole."""
    error: str
    """The whole of what a failed cell left."""
    overrides: tuple[str, ...] | None
    """Of the command line; None where none are recorded."""

    @property
    def whole(self) -> bool:
        return self.status in WHOLE

    @property
    def command(self) -> str | None:
        """A shell line that runs the cell."""
        if self.overrides is None:
            return None
        return shlex.join(["python", "-m", "mech_arith", *self.overrides])


def cell_fields(
    cell: Listed, summary: Mapping[str, Any], swept: Mapping[str, str]
) -> dict[str, Any]:
    """What every row of a sweep's tables says of its cell, in the order of the columns.

    Args:
        cell: whose rows they are.
        summary: of its result; empty without one.
        swept: the overrides in which cells differ, as typed.
    """
    return {
        "cell": cell.name,
        "identity": summary.get("identity"),
        "command": summary.get("command") or cell.command,
        **(summary["cell"] if summary else {}),
        **{f"{SWEPT}{key}": text for key, text in swept.items()},
    }


def list_cells(places: Sequence[Path], base: Path) -> list[Listed]:
    """The cells in and under directories of runs and sweeps, each once.

    Args:
        places: directories.
        base: the cells are named by their path from here, if all lie under it.

    Raises:
        UserError: a directory is not there, a sweep's plan is damaged, or there are no cells.
    """
    found: dict[Path, CellState] = {}
    for place in places:
        runs = find_runs(place)
        planned = [state for sweep in _sweeps(place) for state in cell_states(sweep)]
        for state in [*planned, *(_state(run) for run in runs)]:
            found.setdefault(state.directory.resolve(), state)
    if not found:
        shown = ", ".join(str(place) for place in places)
        raise UserError(f"expected finished runs in {shown}, found none; give a run or a sweep")
    shown_at = {path: Path(os.path.abspath(state.directory)) for path, state in found.items()}
    names = _names(list(shown_at.values()), Path(os.path.abspath(base)))
    return [
        Listed(
            name=names[shown_at[path]],
            directory=state.directory,
            status=state.status,
            note=state.note,
            error=state.error,
            overrides=state.overrides or _recorded(path),
        )
        for path, state in found.items()
    ]


def _sweeps(place: Path) -> Iterator[Path]:
    """Directories that hold a sweep's plan."""
    return (parent for parent, files in walk(place) if PLAN in files)


def _state(run: Path) -> CellState:
    """Of a whole run that no plan speaks of."""
    record = read_record(run)
    again = record is not None and len(record.attempts) > 1
    return CellState(run, () if record is None else record.overrides, RESUMED if again else DONE)


def _recorded(directory: Path) -> tuple[str, ...] | None:
    """The overrides that Hydra itself wrote down; None if it did not, or not readably."""
    if not (directory / HYDRAS).is_file():
        return None
    import yaml

    try:
        known = yaml.safe_load((directory / HYDRAS).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tuple(str(override) for override in known) if isinstance(known, list) else None


def _names(directories: list[Path], base: Path) -> dict[Path, str]:
    """Each directory's path from `base`, or from the deepest directory that holds them all."""
    if not all(path.is_relative_to(base) for path in directories):
        base = Path(os.path.commonpath([path.parent for path in directories]))
    return {
        path: path.name if path == base else path.relative_to(base).as_posix()
        for path in directories
    }
