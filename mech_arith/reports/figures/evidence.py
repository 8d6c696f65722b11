"""What is known of every value at every layer: traced, told from its relatives, edited, asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isnan
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_places
from mech_arith.evidence.columns import TABLES, Beside, Column
from mech_arith.reports.figures.layout import fitting, on_page, room
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.rule import Claim, Row, counts, number_of
from mech_arith.reports.figures.sharing import (
    component_name,
    served,
    sharing_note,
    sites_note,
    subspace_note,
)
from mech_arith.reports.figures.sheet import SMALL, TITLE, Panel, Sheet
from mech_arith.reports.figures.style import (
    LAYERS,
    Grid,
    Key,
    details,
    distinct,
    evenly,
    heatmap,
    ink,
    records,
    room_for,
    thinned,
    two_digits,
    wrapped,
)
from mech_arith.statistics import ALPHA

FEW = 6
"""Layers up to which numbers and their intervals are written into the cells."""

CELL = 0.66
"""Width of a cell with numbers, in inches."""

ROOM_FOR_HEAD = 0.26
"""Beside that, where the head stands before the component's number."""


@dataclass(frozen=True)
class _Map:
    """One of the maps: a number of the evidence, and what belongs to it."""

    column: Column

    @property
    def claim(self) -> Claim:
        one = self.column
        p = "" if one.counts else one.p or ""
        return Claim(one.name, one.low or "", one.high or "", p, one.counts or "")

    @property
    def beside(self) -> list[Beside]:
        """What else is written into a cell."""
        said = [self.column.said] if self.column.said else []
        return [one for one in (*self.column.beside, *said) if one.short]

    def share(self, row: Row) -> float:
        """What gives a cell its colour; NaN leaves it empty."""
        number = number_of(row, self.claim.number)
        return abs(number) if self.column.is_size else number

    def shares(self, placed: Sequence[tuple[int, int, Row]], shape: tuple[int, int]) -> np.ndarray:
        """The share of each row at its place on the map; NaN elsewhere."""
        found = np.full(shape, np.nan)
        for at_row, at_column, row in placed:
            found[at_row, at_column] = self.share(row)
        return found

    def ends(self, row: Row) -> tuple[float, float]:
        """The interval, as it is shown."""
        low, high = number_of(row, self.claim.low), number_of(row, self.claim.high)
        if not self.column.is_size:
            return low, high
        near, far = sorted((abs(low), abs(high)))
        return (0.0 if low < 0 < high else near), far

    def shown(self, row: Row) -> dict[str, Any]:
        """All that a cell shows, by the names of its columns."""
        low, high = self.ends(row)
        drawn = {self.claim.number: self.share(row), self.claim.low: low, self.claim.high: high}
        prefix = "abs_" if self.column.is_size else ""
        found: dict[str, Any] = {f"{prefix}{name}": drawn[name] for name in drawn if name}
        for column in (self.claim.p, self.claim.counts, *(one.column for one in self.beside)):
            if column:
                found[column] = row.get(column)
        return found

    def lines(self, row: Row) -> list[str]:
        """The number, its interval, and what stands beside it."""
        low, high = self.ends(row)
        lines = [two_digits(self.share(row))]
        if not (isnan(low) or isnan(high)):
            lines.append(f"{two_digits(low)} to {two_digits(high)}")
        found = [(one.short, row.get(one.column)) for one in self.beside]
        if words := [f"{word} {_short(entry)}" for word, entry in found if _known(entry)]:
            lines.append(" ".join(words))
        return lines


def _known(entry: Any) -> bool:
    if isinstance(entry, str):
        return 0 < len(entry) <= 8  # a longer name has no room
    return entry is not None and entry is not pd.NA and not isnan(entry)


def _short(entry: Any) -> str:
    return entry if isinstance(entry, str) else two_digits(abs(entry))


def evidence_maps(evidence: pd.DataFrame, *, title: str = "", level: float = 0.95) -> Sheet:
    """Every value (rows) at every layer (columns), a map for each question that was asked of it.

    |R| on the report split; what is left of it where the value that explains it best is held fixed;
    what an edit costs beyond each kind of control; how often, and how far, the answer follows the
    value. Each in the component, and of several sites in a layer at the one, with the largest |R|
    on the fit split. What may be chance is pale and in brackets, or hatched where there is no room
    for numbers. A component that serves several values has a mark.

    Raises:
        ValueError: the table is empty.
    """
    if evidence.empty:
        raise ValueError("expected a table of evidence with rows, got none; trace first")
    best = best_places(evidence)
    rows = records(best)
    values, layers = distinct(best, "value"), sorted(distinct(best, "layer"))
    maps = _maps(rows)
    shared = served(rows)
    names = _titles(maps)
    titles = max(width_of(line, TITLE) for name in names for line in name.split("\n"))
    left = room_for(values, beside=0.1)
    cell = CELL + (ROOM_FOR_HEAD if any(best["head"]) else 0.0)
    written, cells = _cells(len(layers), cell, left, least=titles - 0.1, n_maps=len(maps))
    width = max(titles - 0.1, cells)
    across = evenly(len(maps), fitting(width, left, right=1.0))
    grid = Grid(
        title=title,
        subtitle=_subtitle(best, evidence),
        across=across,
        down=ceil(len(maps) / across),
        width=width,
        height=(0.5 if written else 0.24) * len(values),
        left=left,
        above=0.16 + 0.16 * max(1 + name.count("\n") for name in names),
        below=0.48,
        keys=[[Key(note, "tick") for note in _notes(rows, maps, level, written=written)]],
        notes=sharing_note(shared),
        scale=True,
    )
    sheet = grid.sheet()
    placed = [(values.index(row["value"]), layers.index(row["layer"]), row) for row in rows]
    for index, one in enumerate(maps):
        panel = grid.panel(sheet, index)
        heatmap(
            panel,
            one.shares(placed, (len(values), len(layers))),
            rows=values if index % across == 0 else [""] * len(values),
            columns=thinned(layers, 8 if width < 2.5 else 16),
            notes=[[""] * len(layers)] * len(values),
            signed=True,
        )
        (_write if written else _hatch)(panel, one, placed)
        if written and index == 0:
            _name_components(panel, placed, shared)
        panel.name(title=names[index], x=LAYERS)
    grid.add_scale(sheet, "share, |R| or slope", signed=True)
    _record(sheet, rows, maps)
    return sheet


def _cells(
    n_layers: int, cell: float, left: float, *, least: float, n_maps: int
) -> tuple[bool, float]:
    """Whether cells hold numbers, and how many inches the cells of a map are wide together."""
    wide = cell * n_layers
    fits = not on_page() or fitting(max(least, wide), left, right=1.0) >= min(2, n_maps)
    if n_layers <= FEW and fits:
        return True, wide
    return False, min(0.15 * n_layers, room() - left - 1.0)


def _record(sheet: Sheet, rows: Sequence[Row], maps: Sequence[_Map]) -> None:
    """The numbers of all maps, a row per value and layer."""
    for row in rows:
        found = {name: row.get(name) for name in ("value", *COMPONENT_COLUMNS, "n")}
        for one in maps:
            found |= one.shown(row)
        sheet.record([found], [*found])


def _maps(rows: Sequence[Row]) -> list[_Map]:
    """A map for each number that is known of some row."""
    every = [_Map(column) for column in TABLES["evidence"] if column.map_title]
    return [one for one in every if not all(isnan(one.share(row)) for row in rows)]


def _titles(maps: Sequence[_Map]) -> list[str]:
    """The maps' titles; on a page in narrow lines."""
    if not on_page():
        return [one.column.map_title for one in maps]
    return ["\n".join(wrapped(one.column.map_title.replace("\n", " "), TITLE, 1.2)) for one in maps]


def _subtitle(best: pd.DataFrame, evidence: pd.DataFrame) -> str:
    where = sites_note(best, "the best of the fit split")
    return f"{where}; {subspace_note(evidence)}"


def _notes(rows: Sequence[Row], maps: Sequence[_Map], level: float, *, written: bool) -> list[str]:
    """What the marks in the cells mean."""
    doubt = f"may be chance (p above {ALPHA:g}, or the interval reaches 0 or the floor)"
    if not written:
        return [f"hatched: {doubt}"]
    notes = [f"pale, in brackets: {doubt}", f"small: {level:.0%} interval"]
    shown = {
        one.short: one.about
        for of_map in maps
        for one in of_map.beside
        if one.about and any(_known(row.get(one.column)) for row in rows)
    }
    return notes + [f"{short}: {about}" for short, about in shown.items()]


def _doubtful(row: Row, one: _Map) -> bool:
    return not counts(row, one.claim)


def _write(panel: Panel, one: _Map, placed: Sequence[tuple[int, int, Row]]) -> None:
    """The numbers, with what may be chance pale and in brackets."""
    for at_row, at_column, row in placed:
        share = one.share(row)
        if isnan(share):
            continue
        first, *rest = one.lines(row)
        doubtful = _doubtful(row, one)
        lines = [f"({first})" if doubtful else first, *rest]
        details(panel, at_row, at_column, lines, share, faint=doubtful)


def _hatch(panel: Panel, one: _Map, placed: Sequence[tuple[int, int, Row]]) -> None:
    """The same where there is no room for numbers."""
    for colour in ("0.75", "0.55"):
        panel.hatch(
            [
                (at_row, at_column)
                for at_row, at_column, row in placed
                if not isnan(share := one.share(row))
                and _doubtful(row, one)
                and (ink(share) == "white") == (colour == "0.75")
            ],
            colour,
        )


def _name_components(
    panel: Panel,
    placed: Sequence[tuple[int, int, Row]],
    shared: dict[tuple[Any, ...], list[str]],
) -> None:
    """Which component each cell is about."""
    for at_row, at_column, row in placed:
        panel.write(
            component_name(row, shared),
            at_column + 0.46,
            at_row - 0.36,
            size=SMALL - 2.5,
            across="right",
            colour=ink(abs(number_of(row, "r"))),
        )
