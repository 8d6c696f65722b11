"""What edits do to the answers: dose and response, layer by layer, beside the control."""

from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mech_arith.figures import outside
from mech_arith.figures.style import (
    CONTROL,
    WIDEST,
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

CONTROL_LABEL = "control: random direction, moved as far"


def dose_response(
    effects: pd.DataFrame, manifold: pd.DataFrame | None = None, *, title: str = ""
) -> Figure:
    """Accuracy and mean shift of the prediction against strength.

    A column of two panels per chosen value, a colour per layer, controls in grey. Of several
    directions for one value and layer, the one that costs most accuracy is drawn. Shaded are the
    strengths at which more than half of the coordinates edited for a panel, of all its layers, lie
    outside the observed range.

    Args:
        effects: the run's table.
        manifold: the run's table; without it nothing is shaded.
        title: model and template.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = _drawn(effects)
    values = _in_order(arms)
    layers = sorted(distinct(arms, "layer"))
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
        below=0.45,
        above=0.22,
        keys=[layer_handles(layers), notes],
    )
    figure = grid.figure(title, subtitle)
    shifts = _limits(arms["mean_shift"].to_numpy(dtype=float))
    for index, value in enumerate(values):
        block, column = divmod(index, across)
        of_value = arms.loc[arms["value"] == value]
        upper = 2 * block * across + column
        accuracy, shift = grid.axes(figure, upper), grid.axes(figure, upper + across)
        baseline = distinct(of_value, "baseline_accuracy")[0]
        accuracy.axhline(baseline, color="black", linestyle=":", linewidth=1)
        shift.axhline(0, color="black", linestyle=":", linewidth=1)
        _lines(accuracy, of_value, "edited_accuracy", layers)
        _lines(shift, of_value, "mean_shift", layers)
        for axes in (accuracy, shift):
            if value in shares:
                outside.shade_strengths(axes, *shares[value])
        accuracy.set_title(literal(value), fontsize=9.5)
        accuracy.set_ylim(-0.03, 1.03)
        shift.set_ylim(*shifts)
        for axes in (accuracy, shift):
            axes.set_xlabel(_strength_label(arms), fontsize=8.5)
            axes.tick_params(labelleft=column == 0)
        if column == 0:
            accuracy.set_ylabel("accuracy\n(share of exact answers)", fontsize=8.5)
            shift.set_ylabel("mean shift of prediction\n(units of the answer)", fontsize=8.5)
    return figure


def accuracy_by_layer(effects: pd.DataFrame, *, title: str = "") -> Figure:
    """The largest accuracy drop over all strengths, per layer, a panel per chosen value.

    The grey bar is the control at the strength of the coloured one.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = _drawn(effects)
    values, layers = _in_order(arms), sorted(distinct(arms, "layer"))
    width = max(1.3, 0.3 * len(layers))
    across = max(1, min(ACROSS, len(values), int(WIDEST / width)))
    down = ceil(len(values) / across)
    colours = layer_colours(layers)
    edited = Patch(color=colours[layers[len(layers) // 2]], label="component, a colour per layer")
    control = Patch(color=CONTROL, label=f"{CONTROL_LABEL}, at the same strength")
    grid = Grid(
        across=across,
        down=down,
        width=width,
        height=1.6,
        left=0.85,
        below=0.5,
        keys=[[edited, control]],
    )
    figure = grid.figure(title, subtitle)
    places = np.arange(len(layers))
    drops = {value: np.array([_worst(arms, value, layer) for layer in layers]) for value in values}
    lowest = min(float(np.nanmin(pair, initial=0)) for pair in drops.values())
    for index, value in enumerate(values):
        axes = grid.axes(figure, index)
        target, matched = drops[value].T
        axes.bar(places - 0.2, target, width=0.4, color=[colours[layer] for layer in layers])
        axes.bar(places + 0.2, matched, width=0.4, color=CONTROL)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(literal(value), fontsize=9.5)
        axes.set_xticks(places, [str(layer) for layer in layers])
        axes.set_ylim(lowest - 0.03 if lowest < 0 else 0, 1.03)
        light_axes(axes)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("layer (0-based)", fontsize=8.5)
        axes.tick_params(labelleft=index % across == 0)
        if index % across == 0:
            axes.set_ylabel("largest accuracy drop\n(share of problems)", fontsize=8.5)
    return figure


def _drawn(effects: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows to draw, one direction per value and layer, and a line that says what they are."""
    whole = per_value(effects.loc[effects["status"] == "ok"])
    if whole.empty:
        raise ValueError("expected effects with status 'ok', got none; see their column `reason`")
    site = ["value", "layer"]
    direction = ["point", "position", "component"]
    targets = whole.loc[whole["arm"] == "target"].sort_values("accuracy_drop", kind="stable")
    chosen = targets.drop_duplicates(site, keep="last")[site + direction]
    arms = whole.merge(chosen, on=site + direction).sort_values("strength", kind="stable")
    points, positions = distinct(whole, "point"), distinct(whole, "position")
    where = "at the position with the largest drop"
    notes = [
        ", ".join(points),
        f"positions: {positions[0]}" if len(positions) == 1 else where,
        f"{max(distinct(arms, 'n'))} problems per point",
    ]
    if failed := effects["status"].tolist().count("failed"):
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


def _in_order(arms: pd.DataFrame) -> list[str]:
    """The values, the plain before the composed: a, b, c, b-c, a-(b-c)."""
    return sorted(distinct(arms, "value"), key=lambda value: (len(value), value))


def _lines(axes: Axes, of_value: pd.DataFrame, number: str, layers: list[int]) -> None:
    """A line per layer over a grey one for its control."""
    colours = layer_colours(layers)
    for arm, order in (("control", 1), ("target", 2)):
        of_arm = of_value.loc[of_value["arm"] == arm]
        for layer in distinct(of_arm, "layer"):
            line = of_arm.loc[of_arm["layer"] == layer]
            axes.plot(
                line["strength"],
                line[number],
                color=CONTROL if arm == "control" else colours[layer],
                linewidth=1.0 if arm == "control" else 1.6,
                marker="o",
                markersize=2.0 if arm == "control" else 3.0,
                zorder=order,
            )
    light_axes(axes)


def _worst(arms: pd.DataFrame, value: str, layer: int) -> tuple[float, float]:
    """The largest drop and its control's; NaN where there is none."""
    here = arms.loc[(arms["value"] == value) & (arms["layer"] == layer)]
    drops: dict[str, dict[float, float]] = {"target": {}, "control": {}}
    for arm, strength, drop in zip(
        here["arm"], here["strength"], here["accuracy_drop"], strict=True
    ):
        drops[arm][strength] = drop
    target = {strength: drop for strength, drop in drops["target"].items() if drop == drop}
    if not target:
        return float("nan"), float("nan")
    worst = max(target, key=target.__getitem__)
    return target[worst], drops["control"].get(worst, float("nan"))


def _strength_label(arms: pd.DataFrame) -> str:
    edit, unit = distinct(arms, "edit")[0], distinct(arms, "strength_unit")[0]
    return literal(f"strength of {edit} ({unit})")


def _limits(numbers: np.ndarray) -> tuple[float, float]:
    """Ends of an axis that holds all the numbers and zero, with a little room."""
    low, high = float(np.nanmin(numbers, initial=0)), float(np.nanmax(numbers, initial=0))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
