"""How often the answer follows a value against the rank of the subspace that is interchanged."""

from collections.abc import Mapping, Sequence
from math import ceil, isnan
from typing import Any

import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.ranks import at_headline, by_rank
from mech_arith.interventions.controls import CONTROL
from mech_arith.interventions.edits.base import WHOLE_WAY
from mech_arith.reports.figures.drawn import in_order
from mech_arith.reports.figures.registered import Tables
from mech_arith.reports.figures.rule import number_of
from mech_arith.reports.figures.sharing import sites_note
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.figures.style import (
    Colour,
    Grid,
    Key,
    distinct,
    grouped,
    layer_colours,
    method_colours,
    side_by_side,
    tint,
)

FEW = 6
"""Layers up to which intervals are drawn."""

MOST_KEYS = 8
"""Layers up to which each has an entry in the legend."""

SHOWN = (
    *("value", *COMPONENT_COLUMNS, "edit", "n", "iia", "iia_low", "iia_high", "iia_p_holm"),
    *("iia_random", "iia_random_low", "iia_random_high", "floor"),
    *("ceiling", "ceiling_low", "ceiling_high"),
)
"""Columns of the numbers beside the figure."""


def iia_by_rank(
    evidence: pd.DataFrame,
    counterfactual: pd.DataFrame | None = None,
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """Share of answers that follow the value put in place against rank, a panel for each value.

    A line per layer, at the layer's best site of the fit split, beside random frames of the same
    rank that move every problem as far. Between the chance floor and what the whole activation
    does.

    Args:
        evidence: the run's table.
        counterfactual: the run's table; without it the random frames have no intervals.
        title: model and template.
        level: of the table's intervals.

    Raises:
        ValueError: the answers were not asked at several ranks.
    """
    rows = by_rank(evidence)
    if rows.empty:
        raise ValueError("expected evidence of several ranks with IIA, got none; set tracing.rank")
    colours = layer_colours(sorted(distinct(rows, "layer")))
    where = sites_note(rows, "the best of the fit split")
    rows = _with_random_ends(rows, counterfactual)
    return _sheet(rows, "layer", colours, _layer_keys(colours), title, where, level)


def iia_by_rank_and_method(
    cells: Mapping[str, Tables],
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """The same of several runs, a line for each, at the site of each value's headline.

    Args:
        cells: by name, as that of a method: the run's tables, `evidence` and `counterfactual`.
        title: model and template.
        level: of the tables' intervals.

    Raises:
        ValueError: in no run answers were asked at several ranks.
    """
    found = []
    for name, tables in cells.items():
        evidence = tables["evidence"]
        if len(by_rank(evidence)):
            rows = [row for rows in at_headline(evidence).values() for row in rows]
            shown = _with_random_ends(pd.DataFrame(rows), tables.get("counterfactual"))
            found.append(shown.assign(method=name))
    if not found:
        raise ValueError("expected runs of several ranks with IIA, got none; set tracing.rank")
    rows = pd.concat(found, ignore_index=True)
    colours = method_colours(distinct(rows, "method"))
    layers = ", ".join(map(str, sorted(distinct(rows, "layer"))))
    where = f"layer {layers}; {sites_note(rows, 'the best of the fit split')}"
    keys = [Key(name, "line", colour) for name, colour in colours.items()]
    return _sheet(rows, "method", colours, keys, title, where, level)


def _sheet(
    rows: pd.DataFrame,
    by: str,
    colours: Mapping[Any, Colour],
    keys: list[Key],
    title: str,
    where: str,
    level: float,
) -> Sheet:
    """A panel for each value, with a line for each entry of the column `by`."""
    values, ranks = in_order(rows), sorted(distinct(rows, "rank"))
    width, across = side_by_side(values, max(1.6, 0.35 * len(ranks)), 0.9, least=1.2)
    bars = f"; bars: {level:.0%} intervals" if len(colours) <= FEW else ""
    grid = Grid(
        title=title,
        subtitle=f"{where}; {max(distinct(rows, 'n'))} problems per point{bars}",
        across=across,
        down=ceil(len(values) / across),
        width=width,
        height=1.7,
        left=0.9,
        below=0.5,
        keys=[keys, _keys(list(colours.values())[len(colours) // 2])],
    )
    sheet = grid.sheet()
    lines = grouped(rows, "value", by)
    for index, value in enumerate(values):
        panel = grid.panel(sheet, index)
        panel.limit((-0.4, len(ranks) - 0.6), (-0.03, 1.03))
        panel.tick_x(range(len(ranks)), [str(rank) for rank in ranks])
        panel.frame(x_grid=False, y_named=index % across == 0)
        _lines(panel, {name: lines.get((value, name), []) for name in colours}, ranks, colours)
        beside = "IIA: answers that\nfollow the value" if index % across == 0 else ""
        panel.name(title=value, x="rank of the subspace", y=beside)
    shown = [column for column in dict.fromkeys((*SHOWN, by)) if column in rows]
    sheet.record((row for found in lines.values() for row in found), shown)
    return sheet


def _lines(
    panel: Panel,
    named: Mapping[Any, Sequence[Mapping[str, Any]]],
    ranks: Sequence[int],
    colours: Mapping[Any, Colour],
) -> None:
    """The lines of one value, side by side, so that their intervals do not hide each other."""
    for place, (name, rows) in enumerate(named.items()):
        aside = 0.3 * ((place + 0.5) / len(named) - 0.5)
        at = [ranks.index(row["rank"]) + aside for row in rows]
        _line(panel, at, rows, colours[name], intervals=len(named) <= FEW)


def _with_random_ends(rows: pd.DataFrame, counterfactual: pd.DataFrame | None) -> pd.DataFrame:
    """The rows with the intervals of random frames, where these are known."""
    if counterfactual is None:
        return rows
    place = ["value", *COMPONENT_COLUMNS]
    whole = counterfactual["strength"] == WHOLE_WAY
    drawn = counterfactual.loc[whole & (counterfactual["arm"] == CONTROL)]
    ends = {f"iia_{end}": f"iia_random_{end}" for end in ("low", "high")}
    return rows.merge(drawn[[*place, *ends]].rename(columns=ends), on=place, how="left")


def _line(
    panel: Panel,
    at: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    colour: Colour,
    *,
    intervals: bool,
) -> None:
    """One layer of one value."""
    for name, shade, inside in (
        ("iia_random", tint(colour), "white"),
        ("iia", colour, colour),
    ):
        numbers = [number_of(row, name) for row in rows]
        if all(map(isnan, numbers)):
            continue
        known = not any(isnan(number_of(row, f"{name}_low")) for row in rows)
        line_of(panel, at, rows, name, shade, inside=inside, intervals=intervals and known)
    for bound, style in (("floor", ":"), ("ceiling", "--")):
        numbers = [number_of(row, bound) for row in rows]
        panel.line(at, numbers, color=colour, linestyle=style, linewidth=1)


def line_of(
    panel: Panel,
    at: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    name: str,
    colour: Colour,
    *,
    inside: Colour | str | None = None,
    intervals: bool = True,
) -> None:
    """A column's numbers as points on a line, with their intervals; `inside` fills the points."""
    numbers = [number_of(row, name) for row in rows]
    if intervals:
        ends = [[number_of(row, f"{name}_{end}") for row in rows] for end in ("low", "high")]
        panel.intervals(at, *ends, colors=[colour], linewidths=1.1)
    panel.line(at, numbers, color=colour, linewidth=1.3)
    panel.points(at, numbers, markersize=3.5, color=colour, markerfacecolor=inside or colour)


def _layer_keys(colours: Mapping[int, Colour]) -> list[Key]:
    """The layers' colours; of many the first, the middle and the last."""
    layers = [*colours]
    if len(layers) > MOST_KEYS:
        layers = [layers[0], layers[len(layers) // 2], layers[-1]]
    return [Key(f"layer {layer}", "line", colours[layer]) for layer in layers]


def _keys(colour: Colour) -> list[Key]:
    return [
        Key("the value's subspace", "point", colour),
        Key("random frames of the same rank, moved as far (paler)", "hollow", tint(colour)),
        Key("ceiling: the whole activation", "dashed"),
        Key("floor: by chance, with other values", "dotted"),
    ]
