"""What edits do to the answers: dose and response, beside the control."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.reports.figures import observed_range
from mech_arith.reports.figures.drawn import (
    ARMS,
    CONTROL_LABEL,
    PLACE,
    drawn,
    in_order,
    outside_shares,
    shared_components,
)
from mech_arith.reports.figures.layout import SHRUNK, TALLEST, fitting, on_page
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.sharing import (
    MARK,
    MOST_NAMED,
    component_name,
    layer_names,
    named_below,
    room_below,
    sharing_note,
)
from mech_arith.reports.figures.sheet import SMALL, TITLE, Panel, Sheet, number_names
from mech_arith.reports.figures.style import (
    CONTROL_LINE,
    LAYERS,
    Colour,
    Grid,
    Key,
    distinct,
    grouped,
    heatmap,
    layer_colours,
    room_for,
    side_by_side,
    thinned,
    tint,
)

MOST_CURVES = 8
"""With more layers a value has a map of layers and strengths instead of a panel for each layer."""

CURVE, LEAST_CURVE = 2.1, 1.35
"""Inches that a panel of curves is wide, and at least on a page."""

NOWHERE = np.empty(0), np.empty(0)
"""Strengths and shares outside of what the table has no row of."""


@dataclass(frozen=True)
class Response:
    """A number that follows the strength."""

    column: str
    name: str
    """With its unit."""
    short: str


ACCURACY = Response("edited_accuracy", "accuracy (share of exact answers)", "accuracy")
SHIFT = Response("mean_shift", "mean shift of prediction (units of the answer)", "mean shift")


@dataclass(frozen=True, kw_only=True)
class _Doses:
    """What the layouts share."""

    rows: Mapping[tuple[Any, ...], list[dict[str, Any]]]
    """By value, layer and arm, ascending in strength."""
    values: list[str]
    layers: list[int]
    strengths: list[float]
    response: Response
    limits: tuple[float, float]
    resting: float
    """The response without an edit."""
    strength: str
    """What the strength is called."""
    outside: Mapping[tuple[str, int], tuple[np.ndarray, np.ndarray]]
    shared: Mapping[tuple[Any, ...], list[str]]
    heading: dict[str, Any]
    """For the grid."""

    def component(self, value: str, layer: int) -> str:
        """The name of the component that is drawn, with a mark where it serves other values too."""
        return component_name(self.rows[value, layer, "target"][0], self.shared)

    def leaves(self) -> bool:
        """Whether anything is to be shaded."""
        return any((shares > observed_range.HALF).any() for _, shares in self.outside.values())

    def targets(self, value: str) -> list[dict[str, Any]]:
        """A row of the component that is drawn at each layer."""
        keys = [(value, layer, "target") for layer in self.layers]
        return [self.rows[key][0] for key in keys if key in self.rows]

    def numbers(self, value: str, layer: int, arm: str) -> tuple[np.ndarray, ...]:
        """Strengths, and at each the number and the ends of its interval, NaN where unknown."""
        found = self.rows.get((value, layer, arm), [])
        columns = ("strength", *(f"{self.response.column}{end}" for end in ("", "_low", "_high")))
        return tuple(
            np.array([row.get(column, np.nan) for row in found], dtype=float) for column in columns
        )

    def shown(self) -> Iterator[dict[str, Any]]:
        """The rows that are drawn, with the share of edits outside the observed range."""
        for (value, layer, arm), found in self.rows.items():
            strengths, shares = self.outside.get((value, layer), NOWHERE)
            out = dict(zip(strengths.tolist(), shares.tolist(), strict=True))
            for row in found:
                is_known = arm == "target" and row["strength"] in out
                yield row | ({"outside_range": out[row["strength"]]} if is_known else {})

    def columns(self, *, intervals: bool) -> list[str]:
        """Those of the table that are drawn, and what tells its rows apart."""
        number = self.response.column
        ends = [f"{number}_low", f"{number}_high"] if intervals else []
        resting = ["baseline_accuracy"] if self.response is ACCURACY else []
        place = ["value", *PLACE, "arm", "edit", "strength", "strength_unit", "n"]
        return [*place, number, *ends, *resting, "outside_range"]

    def colours(self) -> dict[int, dict[str, Colour]]:
        """Of each layer that of the target, and its tint, the control's."""
        return {
            layer: {"target": colour, "control": tint(colour)}
            for layer, colour in layer_colours(self.layers).items()
        }


def dose_response(
    effects: pd.DataFrame,
    off_distribution: pd.DataFrame | None = None,
    *,
    response: Response = ACCURACY,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """Accuracy or mean shift of the prediction against strength, beside the control.

    A panel per value (column) and layer (row, layer 0 on top), target and control each in the band
    of its interval. Of more than `MOST_CURVES` layers, per value a map of layers and strengths and
    one of its controls. An edit of one strength stands layer by layer in a panel per value. Of
    several directions for one value and layer, the one that costs most accuracy is drawn. Shaded
    are the strengths at which over half of the edited coordinates lie outside the observed range.

    Args:
        effects: the run's table.
        off_distribution: the run's table; without it nothing is shaded.
        response: which number.
        title: model and template.
        level: of the table's intervals.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = drawn(effects)
    layers = sorted(distinct(arms, "layer"))
    strengths = sorted(distinct(arms, "strength"))
    values = in_order(arms)
    many = len(layers) > MOST_CURVES or not _curves_fit(values, len(layers))
    mapped = many and len(strengths) > 1
    has_intervals = f"{response.column}_low" in arms and not mapped
    if has_intervals:
        marks = "bars" if len(strengths) == 1 else "bands"
        subtitle += f"; {marks}: {level:.0%} intervals"
    shared = shared_components(arms)
    rows = grouped(arms, "value", "layer", "arm")
    named = named_below(layers, (found[0] for found in rows.values()))
    marked = named if len(strengths) == 1 else len(layers) <= MOST_NAMED
    doses = _Doses(
        rows=rows,
        values=values,
        layers=layers,
        strengths=strengths,
        response=response,
        limits=_limits(arms, response, intervals=has_intervals),
        resting=float(arms["baseline_accuracy"].iloc[0]) if response is ACCURACY else 0.0,
        strength=f"strength of {arms['edit'].iloc[0]} ({arms['strength_unit'].iloc[0]})",
        outside=outside_shares(arms, off_distribution),
        shared=shared,
        heading={
            "title": title,
            "subtitle": subtitle,
            "notes": sharing_note(shared, MARK if marked else ""),
        },
    )
    sheet = (_by_layer if len(strengths) == 1 else _maps if mapped else _curves)(doses)
    sheet.record(doses.shown(), doses.columns(intervals=has_intervals))
    return sheet


def _curves_fit(values: list[str], depth: int) -> bool:
    """Whether a panel for each value and layer leaves the figure lower than a page."""
    _, across = side_by_side(values, CURVE, 0.85, least=LEAST_CURVE)
    high = ceil(len(values) / across) * depth * (max(0.68, 1.5 / depth) + 0.42)
    return not on_page() or high * SHRUNK < TALLEST - 0.7


def _limits(arms: pd.DataFrame, response: Response, *, intervals: bool) -> tuple[float, float]:
    """Ends of an axis that holds all the numbers and that without an edit."""
    columns = [f"{response.column}_low", f"{response.column}_high"] if intervals else []
    numbers = arms[[response.column, *columns]].to_numpy(dtype=float)
    low, high = float(np.nanmin(numbers, initial=0)), float(np.nanmax(numbers, initial=0))
    if response is ACCURACY:
        lowest = float(np.nanmin(numbers, initial=1))
        return max(-0.03, min(lowest, 0.75) - 0.05), 1.03
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _keys(doses: _Doses, *, curves: bool) -> list[Key]:
    colours = doses.colours()[doses.layers[len(doses.layers) // 2]]
    kinds: Any = ("line", "dashed") if curves else ("point", "hollow")
    return [
        Key("component, a colour per layer", kinds[0], colours["target"]),
        Key(f"{CONTROL_LABEL} (paler)", kinds[1], colours["control"]),
        Key("without edit", "dotted"),
        *([observed_range.EDITED] if doses.leaves() else []),
    ]


def _curves(doses: _Doses) -> Sheet:
    """A panel per value and layer."""
    width, across = side_by_side(doses.values, CURVE, 0.85, least=LEAST_CURVE)
    blocks, depth = ceil(len(doses.values) / across), len(doses.layers)
    grid = Grid(
        across=across,
        down=blocks * depth,
        width=width,
        height=max(0.68, 1.5 / depth),
        left=0.85,
        below=0.22,
        above=0.2,
        last=0.22,
        keys=[_keys(doses, curves=True)],
        **doses.heading,
    )
    sheet = grid.sheet()
    low, high = doses.strengths[0], doses.strengths[-1]
    room = 0.05 * (high - low)
    for index, value in enumerate(doses.values):
        block, column = divmod(index, across)
        for row, (layer, colours) in enumerate(doses.colours().items()):
            if (value, layer, "target") not in doses.rows:
                continue
            panel = grid.panel(sheet, (block * depth + row) * across + column)
            panel.limit((low - room, high + room), doses.limits)
            panel.frame(y_named=column == 0)
            if (value, layer) in doses.outside:
                observed_range.shade_strengths(panel, *doses.outside[value, layer])
            panel.level(doses.resting, linestyle=":", linewidth=1)
            for arm in ARMS:
                _curve(panel, doses.numbers(value, layer, arm), colours[arm], arm)
            panel.title = f"{value}, layer {layer}: {doses.component(value, layer)}"
            over = {"across": "left", "along": "bottom", "shift": (0.0, 0.02)}
            panel.write(panel.title, panel.x[0], panel.y[1], size=SMALL + 0.5, **over)
            if row == depth - 1 and index + across >= len(doses.values):
                panel.name(x=doses.strength)
    _name_left(grid, sheet, doses.response.name)
    return sheet


def _curve(panel: Panel, numbers: tuple[np.ndarray, ...], colour: Colour, arm: str) -> None:
    """A line in its band; the control's dashed."""
    strengths, middle, low, high = numbers
    is_control = arm == "control"
    panel.band(strengths, low, high, colour=colour, alpha=0.35 if is_control else 0.25)
    style = CONTROL_LINE | {"zorder": 1} if is_control else {"linewidth": 1.6, "zorder": 2}
    size = 0.0 if is_control else 2.6
    panel.line(strengths, middle, color=colour, marker="o", markersize=size, **style)


def _by_layer(doses: _Doses) -> Sheet:
    """A panel per value, with a point and its control at every layer."""
    wide = 0.14 * len(doses.layers)
    width, across = side_by_side(doses.values, max(2.1, wide), 0.85, least=max(1.1, wide))
    heading = dict(doses.heading)
    heading["subtitle"] = f"{doses.strength} {doses.strengths[0]:g}; {heading['subtitle']}"
    grid = Grid(
        across=across,
        down=ceil(len(doses.values) / across),
        width=width,
        height=1.55,
        left=0.85,
        below=room_below(doses.layers, [row for found in doses.rows.values() for row in found]),
        keys=[_keys(doses, curves=False)],
        **heading,
    )
    sheet = grid.sheet()
    for index, value in enumerate(doses.values):
        panel = grid.panel(sheet, index)
        panel.limit((-0.6, len(doses.layers) - 0.4), doses.limits)
        names = layer_names(doses.layers, doses.targets(value), doses.shared)
        panel.tick_x(range(len(doses.layers)), thinned(names))
        panel.frame(x_grid=False, y_named=index % across == 0)
        panel.level(doses.resting, linestyle=":", linewidth=1)
        for place, (layer, colours) in enumerate(doses.colours().items()):
            if any(doses.outside.get((value, layer), NOWHERE)[1] > observed_range.HALF):
                corners = [(place - 0.5, panel.y[0], place + 0.5, panel.y[1])]
                panel.rectangles(corners, facecolors=observed_range.OUTSIDE, zorder=0)
            for arm, aside in (("control", 0.16), ("target", -0.16)):
                _, middle, low, high = doses.numbers(value, layer, arm)
                panel.intervals([place + aside] * len(middle), low, high, colors=[colours[arm]])
                inside = "white" if arm == "control" else colours[arm]
                style = {"markersize": 4, "color": colours[arm], "markerfacecolor": inside}
                panel.points([place + aside] * len(middle), middle.tolist(), **style)
        panel.name(title=value, x=LAYERS)
    _name_left(grid, sheet, doses.response.name)
    return sheet


def _maps(doses: _Doses) -> Sheet:
    """Per value a map of layers and strengths, and beside it that of its controls."""
    values, layers, strengths = doses.values, doses.layers, doses.strengths
    cell = max(0.11 if on_page() else 0.22, (1.1 if on_page() else 1.3) / len(strengths))
    if on_page():
        titles = max(width_of(value, TITLE) for value in values)
        cell = max(cell, (titles - 0.2) / len(strengths))
    left = room_for(thinned(layers), beside=0.45)
    pair = 2 * (cell * len(strengths) + 0.25)
    pairs = min(len(values), fitting(pair - 0.25, left, right=1.0 if on_page() else 0.25))
    is_shift = doses.response is SHIFT
    largest = max(map(abs, doses.limits)) if is_shift else 1.0
    grid = Grid(
        across=2 * pairs,
        down=ceil(len(values) / pairs),
        width=cell * len(strengths),
        height=max(1.3, 0.11 * len(layers)),
        left=left,
        above=0.46,
        below=0.75,
        keys=[[Key("hatched: over half of the edits leave the observed range", "tick")]]
        if doses.leaves()
        else [],
        scale=True,
        **doses.heading,
    )
    sheet = grid.sheet()
    for index, (value, arm) in enumerate((v, a) for v in values for a in reversed(ARMS)):
        panel = grid.panel(sheet, index)
        shares = np.full((len(layers), len(strengths)), np.nan)
        leaving = []
        for row, layer in enumerate(layers):
            for strength, number, *_ in zip(*doses.numbers(value, layer, arm), strict=True):
                shares[row, strengths.index(strength)] = number / largest
            if arm == "target" and (value, layer) in doses.outside:
                out = zip(*doses.outside[value, layer], strict=True)
                leaving += [
                    (row, strengths.index(s)) for s, share in out if share > observed_range.HALF
                ]
        names = thinned(number_names(strengths), max(2, int(panel.box[2] / 0.3)))
        heatmap(
            panel,
            shares,
            rows=thinned(layers) if index % grid.across == 0 else [""] * len(layers),
            columns=names,
            signed=is_shift,
        )
        panel.hatch(leaving, "0.5")
        panel.name(
            title=f"{value}\n{'component' if arm == 'target' else 'its control'}",
            x=doses.strength.replace(" (", "\n("),
            y=LAYERS if index % grid.across == 0 else "",
        )
    grid.add_scale(sheet, doses.response.short, signed=is_shift, largest=largest)
    return sheet


def _name_left(grid: Grid, sheet: Sheet, name: str) -> None:
    """One name for all the y axes, left of the panels."""
    boxes = [panel.box for panel in sheet.panels]
    middle = (min(b[1] for b in boxes) + max(b[1] + b[3] for b in boxes)) / 2
    left = min(b[0] for b in boxes)
    tall = max(b[1] + b[3] for b in boxes) - min(b[1] for b in boxes)
    text = name if tall > 3 else name.replace(" (", "\n(")
    sheet.write(text, left - 0.5, middle, size=8.5, upright=True)
