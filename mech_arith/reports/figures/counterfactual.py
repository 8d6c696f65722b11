"""Whether answers follow a value that was put in place of another, and which value they follow."""

from math import ceil, isnan
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_places
from mech_arith.evidence.results import slopes_at_best
from mech_arith.interventions.edits.base import WHOLE_WAY
from mech_arith.reports.figures.drawn import ARMS, in_order
from mech_arith.reports.figures.evidence import FEW
from mech_arith.reports.figures.layout import WIDEST, fitting, on_page
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.sharing import (
    MARK,
    layer_names,
    named_below,
    rank_note,
    room_below,
    served,
    sharing_note,
)
from mech_arith.reports.figures.sheet import SMALL, Panel, Sheet
from mech_arith.reports.figures.style import (
    LAYERS,
    Grid,
    Key,
    details,
    distinct,
    evenly,
    heatmap,
    layer_colours,
    records,
    room_for,
    side_by_side,
    thinned,
    tint,
    two_digits,
)


def counterfactual_iia(
    counterfactual: pd.DataFrame,
    evidence: pd.DataFrame,
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """Share of answers that are those to the value put in place, by layer, a panel per value.

    Between the chance floor and what the whole activation does; in the component, and of several
    positions at the one, with the largest |R| on the fit split; the whole way to the value. A
    control is hollow, in a tint of its target's colour.

    Raises:
        ValueError: no row of the table belongs to such a component.
    """
    rows = iias_drawn(counterfactual, evidence)
    if rows.empty:
        raise ValueError("expected iias of the components in the evidence, got none")
    values, layers = in_order(rows), sorted(distinct(rows, "layer"))
    colours = layer_colours(layers)
    wide = 0.14 * len(layers)
    width, across = side_by_side(values, max(1.6, wide), 0.9, least=max(1.1, min(wide, 2.5)))
    edit, n = distinct(rows, "edit")[0], max(distinct(rows, "n"))
    shared = served(records(rows.loc[rows["arm"] == "target", [*COMPONENT_COLUMNS, "value"]]))
    grid = Grid(
        title=title,
        subtitle=_said(edit, evidence, f"{n} problems per point; bars: {level:.0%} intervals"),
        across=across,
        down=ceil(len(values) / across),
        width=width,
        height=1.7,
        left=0.9,
        below=room_below(layers, records(rows)),
        keys=[_keys(colours[layers[len(layers) // 2]])],
        notes=sharing_note(shared, MARK if named_below(layers, records(rows)) else ""),
    )
    sheet = grid.sheet()
    found = records(rows.sort_values("layer", kind="stable"))
    for index, value in enumerate(values):
        panel = grid.panel(sheet, index)
        panel.limit((-0.6, len(layers) - 0.4), (-0.03, 1.03))
        targets = [row for row in found if row["value"] == value and row["arm"] == "target"]
        panel.tick_x(range(len(layers)), thinned(layer_names(layers, targets, shared)))
        panel.frame(x_grid=False, y_named=index % across == 0)
        for arm, shift in (("control", 0.15), ("target", -0.15)):
            of_arm = [row for row in found if row["value"] == value and row["arm"] == arm]
            _points(panel, of_arm, layers, colours, arm, shift)
            if arm == "target":
                places = [layers.index(row["layer"]) for row in of_arm]
                for bound, style in (("floor", ":"), ("ceiling", "--")):
                    at = [row[bound] for row in of_arm]
                    panel.line(places, at, color="black", linestyle=style, linewidth=1)
        beside = "IIA: answers that\nfollow the value" if index % across == 0 else ""
        panel.name(title=value, x=LAYERS, y=beside)
    ends = ["iia_low", "iia_high", "floor", "ceiling"]
    place = ["value", *COMPONENT_COLUMNS, "arm", "edit", "strength", "n"]
    shown = (row for row in found if row["arm"] in ARMS)
    sheet.record(shown, [*place, "iia", *ends])
    return sheet


SLOPE = "slope of the answer's change against the change of an answer that follows"


def _said(first: str, evidence: pd.DataFrame, *more: str) -> str:
    """A subtitle, with the rank that is drawn."""
    return "; ".join([first, *rank_note(evidence), *more])


def _points(
    panel: Panel,
    rows: list[Any],
    layers: list[int],
    colours: dict[int, Any],
    arm: str,
    shift: float,
) -> None:
    """A point with its interval at every layer."""
    for row in rows:
        at, colour = layers.index(row["layer"]) + shift, colours[row["layer"]]
        shade = tint(colour) if arm == "control" else colour
        ends = [row["iia_low"]], [row["iia_high"]]
        panel.intervals([at], *ends, colors=[shade], linewidths=1.3)
        inside = "white" if arm == "control" else shade
        panel.points([at], [row["iia"]], markersize=4, color=shade, markerfacecolor=inside)


def iias_drawn(counterfactual: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Of edits that arrive at the wanted value, those of the components in the evidence."""
    best = best_places(evidence)[["value", *COMPONENT_COLUMNS]]
    whole_way = counterfactual.loc[counterfactual["strength"] == WHOLE_WAY]
    return whole_way.merge(best, on=["value", *COMPONENT_COLUMNS])


def _keys(colour: tuple[float, float, float, float]) -> list[Key]:
    return [
        Key("component, a colour per layer", "point", colour),
        Key("its control: random directions, moved as far (paler)", "hollow", tint(colour)),
        Key("ceiling: the whole activation", "dashed"),
        Key("floor: by chance, with other values", "dotted"),
    ]


def specificity_maps(
    specificity: pd.DataFrame, evidence: pd.DataFrame, *, title: str = ""
) -> Sheet:
    """How far the answer follows a change of each value (columns) along each value's direction.

    A panel per layer; the cells hold the slope of the answer's change against the change expected:
    1 for an answer that follows. A direction that holds its value alone has 1 on the diagonal, and
    under what the value is computed from. Of several positions that with the largest |R| on the fit
    split.

    Raises:
        ValueError: no row of the table belongs to a component in the evidence.
    """
    rows = slopes_at_best(specificity, evidence)
    if rows.empty:
        raise ValueError("expected directions of the components in the evidence, got none")
    layers = sorted(distinct(rows, "layer"))
    directions, changed = in_order(rows), in_order(rows.assign(value=rows["changed"]))
    left = room_for(directions, beside=0.45)
    written, cell, across = _specificity_cells(len(layers), len(changed), left)
    longest = max(width_of(value, SMALL) for value in changed)
    upright = longest > cell - 0.05
    grid = Grid(
        title=title,
        subtitle=_said(SLOPE, evidence),
        across=across,
        down=ceil(len(layers) / across),
        width=cell * len(changed),
        height=(0.45 if written else 0.22) * len(directions),
        left=left,
        below=0.4 + (longest if upright else 0.1),
        notes=sharing_note(served(records(rows)), mark=""),
        scale=True,
    )
    sheet = grid.sheet()
    for index, layer in enumerate(layers):
        panel = grid.panel(sheet, index)
        slopes = np.full((len(directions), len(changed)), np.nan)
        at_layer = records(rows.loc[rows["layer"] == layer])
        for row in at_layer:
            slopes[directions.index(row["value"]), changed.index(row["changed"])] = row["slope"]
        heatmap(
            panel,
            slopes,
            rows=directions if index % across == 0 else [""] * len(directions),
            columns=changed,
            notes=[[""] * len(changed)] * len(directions),
            signed=True,
            upright=upright,
        )
        columns = [*COMPONENT_COLUMNS, "value", "changed", "n"]
        sheet.record(at_layer, [*columns, "slope", "slope_low", "slope_high"])
        for row in at_layer if written else ():
            _slope(panel, directions.index(row["value"]), changed.index(row["changed"]), row)
        beside = "direction of" if index % across == 0 else ""
        panel.name(title=f"layer {layer}", x="value changed", y=beside)
    grid.add_scale(sheet, "slope", signed=True)
    return sheet


def _specificity_cells(n_layers: int, n_changed: int, left: float) -> tuple[bool, float, int]:
    """Whether cells hold numbers, a cell's width, and how many panels stand side by side."""
    written = n_layers <= FEW and (
        not on_page() or fitting(0.62 * n_changed, left, right=1.0) >= min(2, n_layers)
    )
    cell = 0.62 if written else 0.26
    if on_page():
        return written, cell, evenly(n_layers, fitting(cell * n_changed, left, right=1.0))
    return written, cell, evenly(n_layers, int((WIDEST - left) / (cell * n_changed + 0.25)))


def _slope(panel: Panel, row: int, column: int, found: dict[str, Any]) -> None:
    slope, low, high = (found[name] for name in ("slope", "slope_low", "slope_high"))
    if isnan(slope):
        return
    ends = [] if isnan(low) else [f"{two_digits(low)} to {two_digits(high)}"]
    details(panel, row, column, [two_digits(slope), *ends], slope)
