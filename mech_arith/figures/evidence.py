"""What is known of every value at every layer: traced, told from its relatives, edited, asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isnan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mech_arith.figures.style import (
    WIDEST,
    Grid,
    details,
    distinct,
    heatmap,
    ink,
    two_digits,
)
from mech_arith.results import best_places
from mech_arith.statistics import ALPHA

FEW = 6
"""Layers up to which numbers and their intervals are written into the cells."""

NARROWEST_MAP = 1.3
"""Inches that a map's title takes."""

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class _Map:
    """One of the maps: what its cells hold."""

    title: str
    share: Callable[[Row], float]
    """What gives a cell its colour; NaN leaves it empty."""
    lines: Callable[[Row], list[str]]
    """What is written into it."""
    p: str | None = None
    """Column of the p-value that says whether the number is one by chance."""

    def doubtful(self, row: Row) -> bool:
        """Whether the number may be one by chance."""
        if self.p is None:
            return False
        p = _number(row, self.p)
        return not isnan(p) and p > ALPHA


def evidence_maps(evidence: pd.DataFrame, *, title: str = "", level: float = 0.95) -> Figure:
    """Every value (rows) at every layer (columns), a map for each question that was asked of it.

    |R| on the report split; what is left of it where the value that explains it best is held fixed;
    what an edit costs beyond random directions; how often the answer follows the value. Each in the
    component, and of several positions at the one, with the largest |R| on the fit split. What may
    be chance is in brackets, or hatched where there is no room for numbers.

    Raises:
        ValueError: the table is empty.
    """
    if evidence.empty:
        raise ValueError("expected a table of evidence with rows, got none; trace first")
    best = best_places(evidence)
    values, layers = distinct(best, "value"), sorted(distinct(best, "layer"))
    maps = [one for one in MAPS if not all(isnan(one.share(row)) for row in _rows(best))]
    written = len(layers) <= FEW
    width = max(NARROWEST_MAP, (0.62 if written else 0.17) * len(layers))
    left = 0.55 + 0.075 * max(len(value) for value in values)
    across = _across(len(maps), left, width)
    grid = Grid(
        across=across,
        down=ceil(len(maps) / across),
        width=width,
        height=(0.5 if written else 0.24) * len(values),
        left=left,
        above=0.48,
        scale=True,
        keys=[[Line2D([], [], linestyle="", label=note) for note in _notes(maps, level, written)]],
    )
    figure = grid.figure(title, _subtitle(best))
    image = None
    for index, one in enumerate(maps):
        axes = grid.axes(figure, index)
        shares = np.full((len(values), len(layers)), np.nan)
        placed = [
            (values.index(row["value"]), layers.index(row["layer"]), row) for row in _rows(best)
        ]
        for at_row, at_column, row in placed:
            shares[at_row, at_column] = one.share(row)
        image = heatmap(
            axes,
            shares,
            rows=values if index % across == 0 else [""] * len(values),
            columns=_thinned(layers),
            notes=[[""] * len(layers)] * len(values),
        )
        for at_row, at_column, row in placed:
            _cell(axes, at_row, at_column, one, row, written=written)
        axes.set_title(one.title, fontsize=9)
        axes.set_xlabel("layer (0-based)", fontsize=8.5)
    assert image is not None
    grid.add_scale(figure, image, "share, or |R|")
    return figure


def _across(count: int, left: float, width: float) -> int:
    """Maps side by side: all of them, or two, or one."""
    for across in (count, 2):
        if left + across * (width + 0.25) + 1 <= WIDEST + 1:
            return across
    return 1


def _thinned(layers: list[int]) -> list[str]:
    """Of many layers every second or third is named."""
    step = ceil(len(layers) / 16)
    return [str(layer) if index % step == 0 else "" for index, layer in enumerate(layers)]


def _subtitle(best: pd.DataFrame) -> str:
    positions = distinct(best, "position")
    where = positions[0] if len(positions) == 1 else "the best of the fit split"
    point = ", ".join(distinct(best, "point"))
    return f"{point}; positions: {where}; the fit split's best component"


def _notes(maps: Sequence[_Map], level: float, written: bool) -> list[str]:
    """What the marks in the cells mean."""
    notes = [f"{'in brackets' if written else 'hatched'}: p above {ALPHA:g}"]
    if written:
        notes.append(f"small: {level:.0%} interval")
        if any(one is AGREEMENT for one in maps):
            notes.append("fl., c.: floor and ceiling")
    return notes


def _cell(axes: Axes, row: int, column: int, one: _Map, found: Row, *, written: bool) -> None:
    share = one.share(found)
    if isnan(share):
        return
    doubtful = one.doubtful(found)
    if written:
        first, *rest = one.lines(found)
        details(axes, row, column, [f"({first})" if doubtful else first, *rest], share)
    elif doubtful:
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                fill=False,
                hatch="//////",
                edgecolor="0.75" if ink(share) == "white" else "0.55",
                linewidth=0,
            )
        )


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict(orient="records")


def _number(row: Row, name: str) -> float:
    """NaN where the table has no such column, or nothing in it."""
    number = row.get(name)
    return float("nan") if number is None else float(number)


def _interval(low: float, high: float) -> list[str]:
    if isnan(low) or isnan(high):
        return []
    return [f"{two_digits(low)} to {two_digits(high)}"]


def _abs_r(row: Row) -> list[str]:
    """|R|, and the interval of R without its sign."""
    low, high = _number(row, "r_low"), _number(row, "r_high")
    ends = sorted((abs(low), abs(high)))
    crossing = low < 0 < high
    return [two_digits(abs(row["r"])), *_interval(0.0 if crossing else ends[0], ends[1])]


def _least_partial(row: Row) -> list[str]:
    given = row.get("least_partial_given")
    number = two_digits(abs(_number(row, "least_partial_r")))
    return [number, f"given {given}"] if given and len(given) <= 8 else [number]


def _excess(row: Row) -> list[str]:
    ends = _interval(_number(row, "excess_low"), _number(row, "excess_high"))
    return [two_digits(row["excess_drop"]), *ends]


def _agreement(row: Row) -> list[str]:
    ends = _interval(_number(row, "agreement_low"), _number(row, "agreement_high"))
    bounds = [
        f"{word} {two_digits(number)}"
        for word, number in (("fl.", _number(row, "floor")), ("c.", _number(row, "ceiling")))
        if not isnan(number)
    ]
    return [two_digits(row["agreement"]), *ends, " ".join(bounds)]


AGREEMENT = _Map(
    "answers that\nfollow the value",
    lambda row: _number(row, "agreement"),
    _agreement,
    "agreement_p_holm",
)
MAPS = (
    _Map("|R|", lambda row: abs(_number(row, "r")), _abs_r, "p_holm"),
    _Map(
        "least |R|, another\nvalue held fixed",
        lambda row: abs(_number(row, "least_partial_r")),
        _least_partial,
    ),
    _Map(
        "drop beyond\nrandom directions",
        lambda row: _number(row, "excess_drop"),
        _excess,
        "excess_p_max",
    ),
    AGREEMENT,
)
"""From left to right."""
