"""Which cells of a sweep are still to be run, and why."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mech_arith.identity import Identity, differences
from mech_arith.records import CellRecord, read_record
from mech_arith.sweeps import KILLED, MISSING, RUNNING, WHOLE, CellState, PlannedCell, cell_states

SUPERSEDED = ".superseded"
"""In a sweep's directory: finished cells of which the identity has changed since."""


@dataclass(frozen=True)
class AskedCell:
    """A cell that the command line asks for now."""

    overrides: tuple[str, ...]
    identity: Identity | None
    """None where it cannot be told: its config is bad, and running it will say why."""
    is_tracked: bool = False
    """Whether it is to be logged to W&B."""


@dataclass(frozen=True)
class Decision:
    """What is done about a cell."""

    cell: PlannedCell
    run: bool
    why: str
    supersedes: bool = False
    """A finished run of another identity stands in its directory."""


def decide(directory: Path, asked: Sequence[AskedCell]) -> list[Decision]:
    """For every cell that is asked for, whether it is to be run, where and why.

    A cell is found again by its identity, wherever it stands in the grid now; failing that by its
    overrides. What is found whole is kept.
    """
    found = _Found(directory)
    by_identity = [found.take_identical(cell) for cell in asked]
    numbers = found.free_names()
    return [
        _decide(cell, known or found.take_same_overrides(cell), found, numbers)
        for cell, known in zip(asked, by_identity, strict=True)
    ]


def set_aside(directory: Path, decision: Decision) -> None:
    """Move a finished cell that is about to be run anew to where nothing looks for it."""
    old = directory / decision.cell.directory
    identity = record.identity[:8] if (record := read_record(old)) else "unknown"
    aside = directory / SUPERSEDED
    aside.mkdir(exist_ok=True)
    target = aside / f"{old.name}-{identity}"
    count = 1
    while target.exists():
        count += 1
        target = aside / f"{old.name}-{identity}-{count}"
    os.rename(old, target)


class _Found:
    """The cells that stand in a sweep's directory; each is taken by one that is asked for."""

    def __init__(self, directory: Path) -> None:
        states = cell_states(directory)
        self.states = {state.directory.relative_to(directory).as_posix(): state for state in states}
        self.records = {
            name: record
            for name in self.states
            if (record := read_record(directory / name)) is not None
        }
        self._free = list(self.states)
        self._directory = directory

    def take_identical(self, cell: AskedCell) -> str | None:
        """A cell of the same identity: whole ones first, then those of the same overrides."""
        if cell.identity is None:
            return None
        same = [
            name
            for name in self._free
            if name in self.records and self.records[name].identity == cell.identity.digest
        ]
        same.sort(key=lambda name: (not self.is_whole(name), not self._is_named(name, cell)))
        return self._take(same)

    def take_same_overrides(self, cell: AskedCell) -> str | None:
        """A cell that was asked for by the same overrides, in whatever order."""
        return self._take([name for name in self._free if self._is_named(name, cell)])

    def is_whole(self, name: str) -> bool:
        return self.states[name].status in WHOLE

    def free_names(self) -> Iterator[str]:
        """Numbers that name no directory yet."""
        number = 0
        while True:
            if str(number) not in self.states and not (self._directory / str(number)).exists():
                yield str(number)
            number += 1

    def _is_named(self, name: str, cell: AskedCell) -> bool:
        return sorted(self.states[name].overrides) == sorted(cell.overrides)

    def _take(self, names: list[str]) -> str | None:
        if not names:
            return None
        self._free.remove(names[0])
        return names[0]


def _decide(
    cell: AskedCell, known: str | None, found: _Found, free_names: Iterator[str]
) -> Decision:
    if known is None:
        return Decision(PlannedCell(next(free_names), cell.overrides), True, "it is new")
    state, record = found.states[known], found.records.get(known)
    # A cell keeps the overrides under which it is asked for now: they lead to the same numbers.
    planned = PlannedCell(known, cell.overrides)
    changed = _change(cell.identity, record)
    if state.status == RUNNING:
        return Decision(planned, False, f"it is running: {state.note}")
    if found.is_whole(known):
        if changed:
            return Decision(planned, True, f"it has changed: {changed}", supersedes=True)
        if cell.is_tracked and record is not None and record.tracked is None:
            return Decision(planned, True, "it is done, but for W&B")
        return Decision(planned, False, "it is done")
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
