"""Which cells of a sweep are still to be run, and why."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from mech_arith.common.digests import json_digest
from mech_arith.common.runs.records import CellRecord, read_record
from mech_arith.common.runs.sweeps import (
    KILLED,
    MISSING,
    RUNNING,
    WHOLE,
    CellState,
    PlannedCell,
    begun_cells,
    read_plan,
    states_of,
)
from mech_arith.experiment.identity import Identity, differences

OF_NETWORK = ("model", "dtype", "device")
"""Keys of the config that say which network is loaded, and how."""

SUPERSEDED = ".superseded"
"""In a sweep's directory: finished cells whose identity has changed since."""


@dataclass(frozen=True)
class AskedCell:
    """A cell that the command line asks for now."""

    overrides: tuple[str, ...]
    identity: Identity | None
    """None where it cannot be told: its config is bad, and running it will say why."""
    name: str
    """Of the directory that a new sweep would give it."""
    is_tracked: bool = False
    """Whether it is to be logged to W&B."""

    @property
    def network(self) -> str | None:
        """What stands for the network that it studies; None where that cannot be told."""
        if self.identity is None:
            return None
        known = self.identity.determines
        said = {k: v for k, v in known["config"].items() if k.partition(".")[0] in OF_NETWORK}
        return json_digest([known["weights"], said])


@dataclass(frozen=True)
class Decision:
    """What is done about a cell."""

    cell: PlannedCell
    run: bool
    why: str
    supersedes: bool = False
    """A finished run of another identity stands in its directory."""
    is_done: bool = False
    """Nothing is left to do."""


def decide(directory: Path, asked: Sequence[AskedCell]) -> list[Decision]:
    """For every cell that is asked for, whether it is to be run, where and why.

    A cell is found again by its identity, wherever it stands in the grid now and whichever launch
    has begun it; failing that by its overrides. What is found whole is kept.
    """
    found = _Found(directory)
    by_identity = [found.take_identical(cell) for cell in asked]
    return [
        _decide(cell, known or found.take_same_overrides(cell), found)
        for cell, known in zip(asked, by_identity, strict=True)
    ]


def set_aside(directory: Path, decision: Decision) -> None:
    """Move a finished cell that is about to be run anew to where nothing looks for it."""
    old = directory / decision.cell.directory
    identity = record.identity[:8] if (record := read_record(old)) else "unknown"
    aside = directory / SUPERSEDED
    aside.mkdir(exist_ok=True)
    target = aside / f"{old.name}-{identity}"
    again = 1
    while target.exists():
        again += 1
        target = aside / f"{old.name}-{identity}-{again}"
    os.rename(old, target)


class _Found:
    """The cells that stand in a sweep's directory; each is taken by one that is asked for."""

    def __init__(self, directory: Path) -> None:
        planned = {cell.directory: cell for cell in read_plan(directory).cells}
        begun = {cell.directory: cell for cell in begun_cells(directory)}
        self.cells = begun | planned
        states = states_of(directory, list(self.cells.values()))
        self.states = dict(zip(self.cells, states, strict=True))
        self.records = {
            name: record
            for name in self.cells
            if (record := read_record(directory / name)) is not None
        }
        self._free = list(self.cells)
        self._directory = directory
        self._new: set[str] = set()

    def take_identical(self, cell: AskedCell) -> str | None:
        """A cell of the same identity: whole ones first, then those of the same overrides."""
        if cell.identity is None:
            return None
        same = [name for name in self._free if self._identity(name) == cell.identity.digest]
        same.sort(key=lambda name: (not self.is_whole(name), not self._is_named(name, cell)))
        return self._take(same)

    def take_same_overrides(self, cell: AskedCell) -> str | None:
        """A cell that was asked for by the same overrides, in whatever order."""
        return self._take([name for name in self._free if self._is_named(name, cell)])

    def new_name(self, cell: AskedCell) -> str:
        """A directory for a cell that was never asked for: its own name if that is free."""
        names = chain([cell.name], (str(number) for number in count()))
        name = next(name for name in names if self._is_free(name))
        self._new.add(name)
        return name

    def _is_free(self, name: str) -> bool:
        taken = name in self.cells or name in self._new
        return not taken and not (self._directory / name).exists()

    def _identity(self, name: str) -> str | None:
        record = self.records.get(name)
        return self.cells[name].identity if record is None else record.identity

    def is_whole(self, name: str) -> bool:
        return self.states[name].status in WHOLE

    def _is_named(self, name: str, cell: AskedCell) -> bool:
        return sorted(self.states[name].overrides) == sorted(cell.overrides)

    def _take(self, names: list[str]) -> str | None:
        if not names:
            return None
        self._free.remove(names[0])
        return names[0]


def _decide(cell: AskedCell, known: str | None, found: _Found) -> Decision:
    identity = cell.identity.digest if cell.identity is not None else None
    if known is None:
        planned = PlannedCell(found.new_name(cell), cell.overrides, identity)
        return Decision(planned, True, "it is new")
    state, record = found.states[known], found.records.get(known)
    # A cell keeps the overrides under which it is asked for now: they lead to the same numbers.
    planned = PlannedCell(known, cell.overrides, identity)
    left_alone = replace(planned, job=found.cells[known].job)
    changed = _change(cell.identity, record)
    if state.status == RUNNING:
        return Decision(left_alone, False, f"it is running: {state.note}")
    if found.is_whole(known):
        if changed:
            return Decision(planned, True, f"it has changed: {changed}", supersedes=True)
        if cell.is_tracked and record is not None and record.tracked is None:
            return Decision(planned, True, "it is done, but for W&B")
        return Decision(left_alone, False, "it is done", is_done=True)
    return Decision(planned, True, _why(state) + (f" (changed: {changed})" if changed else ""))


def _why(state: CellState) -> str:
    if state.status == MISSING:
        return "it is missing: " + state.note
    if state.status == KILLED:
        return "it was killed: " + state.note
    return "it failed: " + state.note


def _change(identity: Identity | None, record: CellRecord | None) -> str:
    """What tells a cell from the one that stands in its directory; nothing if that is not known."""
    if identity is None or record is None or identity.digest == record.identity:
        return ""
    return differences(record.determines, identity.determines)
