"""Whether answers follow a value that was put in place of another, and which value they follow."""

from math import ceil, isnan

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mech_arith.evidence import WHOLE_WAY
from mech_arith.figures.effects import ACROSS, in_order
from mech_arith.figures.evidence import FEW
from mech_arith.figures.style import (
    CONTROL,
    WIDEST,
    Grid,
    details,
    distinct,
    heatmap,
    layer_colours,
    light_axes,
    literal,
    two_digits,
)
from mech_arith.results import best_places, slopes_at_best

PLACE = ["layer", "position", "component"]


def counterfactual_agreement(
    counterfactual: pd.DataFrame,
    evidence: pd.DataFrame,
    *,
    title: str = "",
    level: float = 0.95,
) -> Figure:
    """Share of answers that are those to the value put in place, by layer, a panel per value.

    Between the chance floor and what the whole activation does; in the component, and of several
    positions at the one, with the largest |R| on the fit split; the whole way to the value.

    Raises:
        ValueError: no row of the table belongs to such a component.
    """
    rows = agreements_drawn(counterfactual, evidence)
    if rows.empty:
        raise ValueError("expected agreements of the components in the evidence, got none")
    values, layers = in_order(rows), sorted(distinct(rows, "layer"))
    colours = layer_colours(layers)
    width = max(1.6, 0.2 * len(layers))
    across = max(1, min(ACROSS, len(values), int(WIDEST / width)))
    grid = Grid(
        across=across,
        down=ceil(len(values) / across),
        width=width,
        height=1.7,
        left=0.85,
        below=0.5,
        keys=[_keys(colours[layers[len(layers) // 2]])],
    )
    edit, n = distinct(rows, "edit")[0], max(distinct(rows, "n"))
    about = f"{edit}; {n} problems per point; bars: {level:.0%} intervals"
    figure = grid.figure(title, about)
    for index, value in enumerate(values):
        axes = grid.axes(figure, index)
        of_value = rows.loc[rows["value"] == value].sort_values("layer")
        for arm, shift in (("control", 0.15), ("target", -0.15)):
            of_arm = of_value.loc[of_value["arm"] == arm]
            for row in of_arm.to_dict(orient="records"):
                place = layers.index(row["layer"]) + shift
                colour = CONTROL if arm == "control" else colours[row["layer"]]
                axes.vlines(place, row["agreement_low"], row["agreement_high"], color=colour)
                axes.plot([place], [row["agreement"]], marker="o", markersize=4, color=colour)
            if arm == "target":
                places = [layers.index(layer) for layer in of_arm["layer"]]
                axes.plot(places, of_arm["floor"], color="black", linestyle=":", linewidth=1)
                axes.plot(places, of_arm["ceiling"], color="black", linestyle="--", linewidth=1)
        axes.set_title(literal(value), fontsize=9.5)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(-0.6, len(layers) - 0.4)
        step = ceil(len(layers) / 16)
        axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        light_axes(axes)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("layer (0-based)", fontsize=8.5)
        axes.tick_params(labelleft=index % across == 0)
        if index % across == 0:
            axes.set_ylabel("answers that\nfollow the value", fontsize=8.5)
    return figure


def agreements_drawn(counterfactual: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Of edits that arrive at the wanted value, those of the components in the evidence."""
    best = best_places(evidence)[["value", *PLACE]]
    whole_way = counterfactual.loc[counterfactual["strength"] == WHOLE_WAY]
    return whole_way.merge(best, on=["value", *PLACE])


def _keys(colour: tuple[float, float, float, float]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker="o", label="component, a colour per layer"),
        Line2D([], [], color=CONTROL, marker="o", label="random directions, moved as far"),
        Line2D([], [], color="black", linestyle="--", label="ceiling: the whole activation"),
        Line2D([], [], color="black", linestyle=":", label="floor: by chance, with other values"),
    ]


def specificity_maps(
    specificity: pd.DataFrame, evidence: pd.DataFrame, *, title: str = ""
) -> Figure:
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
    written = len(layers) <= FEW
    cell = 0.62 if written else 0.26
    left = 0.75 + 0.075 * max(len(value) for value in directions)
    names = max(len(value) for value in changed)
    across = max(1, min(len(layers), int((WIDEST - left) / (cell * len(changed) + 0.25))))
    grid = Grid(
        across=across,
        down=ceil(len(layers) / across),
        width=cell * len(changed),
        height=(0.45 if written else 0.22) * len(directions),
        left=left,
        below=0.5 + (0 if written and names <= 8 else 0.07 * names),
        scale=True,
    )
    about = "slope of the answer's change against the change of an answer that follows"
    figure = grid.figure(title, about)
    image = None
    for index, layer in enumerate(layers):
        axes = grid.axes(figure, index)
        slopes = np.full((len(directions), len(changed)), np.nan)
        at_layer = rows.loc[rows["layer"] == layer].to_dict(orient="records")
        for row in at_layer:
            slopes[directions.index(row["value"]), changed.index(row["changed"])] = row["slope"]
        image = heatmap(
            axes,
            slopes,
            rows=directions if index % across == 0 else [""] * len(directions),
            columns=changed,
            notes=[[""] * len(changed)] * len(directions),
            signed=True,
        )
        for row in at_layer if written else ():
            _slope(axes, directions.index(row["value"]), changed.index(row["changed"]), row)
        if not (written and names <= 8):
            axes.tick_params(axis="x", labelrotation=90)
        axes.set_title(f"layer {layer}", fontsize=9.5)
        axes.set_xlabel("value changed", fontsize=8.5)
        if index % across == 0:
            axes.set_ylabel("direction of", fontsize=8.5)
    assert image is not None
    grid.add_scale(figure, image, "slope")
    return figure


def _slope(axes, row: int, column: int, found: dict) -> None:
    slope, low, high = (found[name] for name in ("slope", "slope_low", "slope_high"))
    if isnan(slope):
        return
    ends = [] if isnan(low) else [f"{two_digits(low)} to {two_digits(high)}"]
    details(axes, row, column, [two_digits(slope), *ends], slope)
