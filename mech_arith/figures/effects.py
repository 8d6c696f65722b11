"""What edits do to the answers: dose and response, beside the control."""

from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from mech_arith.figures import outside
from mech_arith.figures.style import (
    CONTROL,
    Grid,
    distinct,
    layer_colours,
    layer_handles,
    light_axes,
    literal,
)
from mech_arith.results import per_value

ACROSS = 5
"""Panels side by side; more go below."""

ARMS = ("control", "target")
"""In the order in which they lie over each other."""

DIRECTION = ["point", "position", "component", "towards"]
"""What tells directions at one layer apart."""

CONTROL_LABEL = "control: random directions, moved as far"

LONGEST_LABEL = 30
"""Characters that fit under a panel."""

MOST_BANDS = 8
"""With more layers in one panel, intervals would hide the lines."""


def dose_response(
    effects: pd.DataFrame,
    manifold: pd.DataFrame | None = None,
    *,
    title: str = "",
    level: float = 0.95,
) -> Figure:
    """Accuracy and mean shift of the prediction against strength.

    A column of two panels per chosen value, a colour per layer, controls in grey, each in the band
    of its interval. Of several directions for one value and layer, the one that costs most accuracy
    is drawn. Shaded over the whole height are the strengths at which more than half of the
    coordinates edited for a panel, of all its layers, lie outside the observed range.

    Args:
        effects: the run's table.
        manifold: the run's table; without it nothing is shaded.
        title: model and template.
        level: of the table's intervals.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = drawn(effects)
    values = in_order(arms)
    layers = sorted(distinct(arms, "layer"))
    if has_intervals := "edited_accuracy_low" in arms and len(layers) <= MOST_BANDS:
        subtitle += f"; bands: {level:.0%} intervals"
    across = min(ACROSS, len(values))
    blocks = ceil(len(values) / across)
    control = Line2D([], [], color=CONTROL, label=CONTROL_LABEL)
    clean = Line2D([], [], color="black", linestyle=":", linewidth=1, label="without edit")
    shares = {} if manifold is None else _outside(arms, manifold)
    notes = [control, clean, *([outside.EDITED] if shares else [])]
    grid = Grid(
        across=across,
        down=2 * blocks,
        width=2.1,
        height=1.55,
        left=0.95,
        below=0.6,
        above=0.22,
        keys=[layer_handles(layers), notes],
    )
    figure = grid.figure(title, subtitle)
    shifts = _limits(arms, "mean_shift", intervals=has_intervals)
    for index, value in enumerate(values):
        block, column = divmod(index, across)
        of_value = arms.loc[arms["value"] == value]
        upper = 2 * block * across + column
        accuracy, shift = grid.axes(figure, upper), grid.axes(figure, upper + across)
        baseline = distinct(of_value, "baseline_accuracy")[0]
        accuracy.axhline(baseline, color="black", linestyle=":", linewidth=1)
        shift.axhline(0, color="black", linestyle=":", linewidth=1)
        _lines(accuracy, of_value, "edited_accuracy", layers, intervals=has_intervals)
        _lines(shift, of_value, "mean_shift", layers, intervals=has_intervals)
        for axes in (accuracy, shift):
            if value in shares:
                outside.shade_strengths(axes, *shares[value])
        accuracy.set_title(literal(value), fontsize=9.5)
        accuracy.set_ylim(-0.03, 1.03)
        shift.set_ylim(*shifts)
        for axes in (accuracy, shift):
            axes.set_xlabel(_strength_label(arms), fontsize=8.5)
            if len(distinct(arms, "strength")) == 1:
                axes.set_xticks(distinct(arms, "strength"))
            axes.tick_params(labelleft=column == 0)
        if column == 0:
            accuracy.set_ylabel("accuracy\n(share of exact answers)", fontsize=8.5)
            shift.set_ylabel("mean shift of prediction\n(units of the answer)", fontsize=8.5)
    return figure


def drawn(effects: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows to draw, one direction per value and layer, and a line that says what they are.

    Of the controls the random directions alone: the others stand in the tables.

    Raises:
        ValueError: no row has status 'ok'.
    """
    compared = effects.loc[effects["arm"].isin(ARMS)]
    whole = per_value(compared.loc[compared["status"] == "ok"])
    if whole.empty:
        raise ValueError("expected effects with status 'ok', got none; see their column `reason`")
    site = ["value", "layer"]
    targets = whole.loc[whole["arm"] == "target"].sort_values("accuracy_drop", kind="stable")
    chosen = targets.drop_duplicates(site, keep="last")[site + DIRECTION]
    arms = whole.merge(chosen, on=site + DIRECTION).sort_values("strength", kind="stable")
    points, positions = distinct(whole, "point"), distinct(whole, "position")
    where = "at the position with the largest drop"
    notes = [
        ", ".join(points),
        f"positions: {positions[0]}" if len(positions) == 1 else where,
        f"{max(distinct(arms, 'n'))} problems per point",
    ]
    if failed := compared["status"].tolist().count("failed"):
        notes.append(f"failed rows left out: {failed}")
    return arms, "; ".join(notes)


def _outside(
    arms: pd.DataFrame, manifold: pd.DataFrame
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By value the strengths, and the share outside the observed range among all that is drawn."""
    same = ["value", "layer", "point", "position", "component", "strength"]
    drawn = arms.loc[arms["arm"] == "target", same]
    shares = drawn.merge(per_value(manifold), on=same).groupby(["value", "strength"], sort=True)
    mean = shares["outside_range"].mean().reset_index()
    return {
        value: (of_value["strength"].to_numpy(), of_value["outside_range"].to_numpy())
        for value, of_value in mean.groupby("value")
    }


def in_order(arms: pd.DataFrame) -> list[str]:
    """The values, the plain before the composed: a, b, c, b-c, a-(b-c)."""
    return sorted(distinct(arms, "value"), key=lambda value: (len(value), value))


def _lines(
    axes: Axes, of_value: pd.DataFrame, number: str, layers: list[int], *, intervals: bool
) -> None:
    """A line per layer over a grey one for its control."""
    colours = layer_colours(layers)
    for order, arm in enumerate(ARMS, start=1):
        of_arm = of_value.loc[of_value["arm"] == arm]
        for layer in distinct(of_arm, "layer"):
            line = of_arm.loc[of_arm["layer"] == layer]
            line = line.assign(strength=line["strength"] + _aside(line, layer, layers))
            colour = CONTROL if arm == "control" else colours[layer]
            if intervals:
                _band(axes, line, number, colour)
            axes.plot(
                line["strength"],
                line[number],
                color=colour,
                linewidth=1.0 if arm == "control" else 1.6,
                marker="o",
                markersize=2.0 if arm == "control" else 3.0,
                zorder=order,
            )
    light_axes(axes)


def _aside(line: pd.DataFrame, layer: int, layers: list[int]) -> float:
    """Points of a single strength stand side by side, and lines where they belong."""
    return 0.02 * (layers.index(layer) - (len(layers) - 1) / 2) if len(line) == 1 else 0.0


def _band(axes: Axes, line: pd.DataFrame, number: str, colour: ColorType) -> None:
    """The interval around a line; around a single point a bar, for a band would have no width."""
    ends = line[f"{number}_low"], line[f"{number}_high"]
    if len(line) == 1:
        axes.vlines(line["strength"], *ends, color=colour, linewidth=1.2, zorder=0.5)
    else:
        axes.fill_between(
            line["strength"], *ends, color=colour, alpha=0.12, linewidth=0, zorder=0.5
        )


def _strength_label(arms: pd.DataFrame) -> str:
    edit, unit = distinct(arms, "edit")[0], distinct(arms, "strength_unit")[0]
    text = f"strength of {edit} ({unit})"
    return literal(text if len(text) <= LONGEST_LABEL else text.replace(" (", "\n("))


def _limits(arms: pd.DataFrame, number: str, *, intervals: bool) -> tuple[float, float]:
    """Ends of an axis that holds all the numbers and zero, with a little room."""
    columns = [f"{number}_low", f"{number}_high"] if intervals else []
    numbers = arms[[number, *columns]].to_numpy(dtype=float)
    low, high = float(np.nanmin(numbers, initial=0)), float(np.nanmax(numbers, initial=0))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
