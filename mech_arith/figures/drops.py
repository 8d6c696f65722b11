"""What edits cost, layer by layer, and how much of it is beyond what random directions cost."""

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mech_arith.figures.effects import ACROSS, CONTROL_LABEL, DIRECTION, drawn, in_order
from mech_arith.figures.style import (
    CONTROL,
    WIDEST,
    Colour,
    Grid,
    distinct,
    layer_colours,
    light_axes,
    literal,
)
from mech_arith.statistics import ALPHA

MOST_DRAWS = 12
"""With more layers in one panel, a dot per random direction would be a smear."""

Worst = list[dict[str, dict[str, Any]]]
"""Per layer the rows, by arm, of the strength at which the target costs most; empty for none."""


def accuracy_by_layer(
    effects: pd.DataFrame,
    contrasts: pd.DataFrame | None = None,
    draws: pd.DataFrame | None = None,
    *,
    title: str = "",
    level: float = 0.95,
) -> Figure:
    """The largest accuracy drop over all strengths, per layer, a panel per chosen value.

    The grey bar is the control at the strength of the coloured one, its dots the single random
    directions. Below, where the run has contrasts, stands what is beyond the control: the mean over
    all strengths, of which none was chosen; hollow where it is not significant.

    Args:
        effects: the run's table.
        contrasts: the run's table of targets against their controls.
        draws: the run's table of single control directions.
        title: model and template.
        level: of the tables' intervals.

    Raises:
        ValueError: no row of the table has status 'ok'.
    """
    arms, subtitle = drawn(effects)
    values, layers = in_order(arms), sorted(distinct(arms, "layer"))
    if "accuracy_drop_low" in arms:
        subtitle += f"; black: {level:.0%} intervals at that strength"
    if draws is None or len(layers) > MOST_DRAWS:
        draws = pd.DataFrame()
    against = pd.DataFrame() if contrasts is None or contrasts.empty else _random(contrasts)
    rows = 2 if len(against) else 1
    width = max(1.6, 0.3 * len(layers))
    across = max(1, min(ACROSS, len(values), int(WIDEST / width)))
    colours = layer_colours(layers)
    keys = _keys(colours[layers[len(layers) // 2]], dots=len(draws) > 0, excess=rows == 2)
    grid = Grid(
        across=across,
        down=rows * ceil(len(values) / across),
        width=width,
        height=1.6,
        left=0.85,
        below=0.5,
        keys=[keys],
    )
    figure = grid.figure(title, subtitle)
    bottom = _lowest(arms, ["accuracy_drop", "accuracy_drop_low"])
    lower = _lowest(against, ["excess_drop", "low"])
    for index, value in enumerate(values):
        block, column = divmod(index, across)
        place = rows * block * across + column
        worst = [_worst(arms, value, layer) for layer in layers]
        axes = grid.axes(figure, place)
        _bars(axes, worst, list(colours.values()))
        if len(draws):
            _dots(axes, worst, draws)
        axes.set_ylim(bottom, 1.03)
        axes.set_title(literal(value), fontsize=9.5)
        _finish(axes, layers, "largest accuracy drop", labelled=column == 0)
        if rows == 2:
            below = grid.axes(figure, place + across)
            _excess(below, worst, against, list(colours.values()))
            below.set_ylim(lower, 1.03)
            _finish(below, layers, "drop beyond the control", labelled=column == 0)
    return figure


def _keys(colour: Colour, *, dots: bool, excess: bool) -> list[Patch | Line2D]:
    """What the legend says."""
    keys: list[Patch | Line2D] = [
        Patch(color=colour, label="component, a colour per layer"),
        Patch(color=CONTROL, label=f"{CONTROL_LABEL}, at the same strength"),
    ]
    if dots:
        label = "each random direction"
        keys.append(
            Line2D([], [], linestyle="", marker="o", color="0.3", markersize=2, label=label)
        )
    if excess:
        keys.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                markersize=5,
                color=colour,
                markerfacecolor="white",
                label=f"hollow: p above {ALPHA:g}, of all targets",
            )
        )
    return keys


def _lowest(table: pd.DataFrame, columns: list[str]) -> float:
    """The lower end of an axis of drops, which may be negative."""
    numbers = table.reindex(columns=columns).to_numpy(dtype=float)
    lowest = float(np.nanmin(numbers, initial=0))
    return lowest - 0.03 if lowest < 0 else 0.0


def _worst(arms: pd.DataFrame, value: str, layer: int) -> dict[str, dict[str, Any]]:
    here = arms.loc[(arms["value"] == value) & (arms["layer"] == layer)]
    targets = here.loc[(here["arm"] == "target") & here["accuracy_drop"].notna()]
    if targets.empty:
        return {}
    strength = targets.loc[targets["accuracy_drop"].idxmax(), "strength"]
    rows = here.loc[here["strength"] == strength].to_dict(orient="records")
    return {row["arm"]: {str(name): entry for name, entry in row.items()} for row in rows}


def _bars(axes: Axes, worst: Worst, colours: list[Colour]) -> None:
    """Target and control of every layer side by side, with their intervals."""
    for arm, shift, colour in (("target", -0.2, colours), ("control", 0.2, CONTROL)):
        drops, lows, highs = (
            [by_arm.get(arm, {}).get(name, np.nan) for by_arm in worst]
            for name in ("accuracy_drop", "accuracy_drop_low", "accuracy_drop_high")
        )
        places = np.arange(len(worst)) + shift
        axes.bar(places, drops, width=0.4, color=colour)
        axes.vlines(places, lows, highs, color="black", linewidth=0.9)


def _dots(axes: Axes, worst: Worst, draws: pd.DataFrame) -> None:
    """The drop of every random direction, at its layer's strength."""
    for place, by_arm in enumerate(worst):
        found = _of_control(draws, by_arm.get("target"), "strength")
        if len(found):
            axes.plot(
                place + 0.2 + np.linspace(-0.13, 0.13, len(found)),
                found["accuracy_drop"],
                linestyle="",
                marker="o",
                markersize=1.4,
                color="0.3",
            )


def _excess(axes: Axes, worst: Worst, contrasts: pd.DataFrame, colours: list[Colour]) -> None:
    """Per layer what the direction costs beyond random ones, with its interval."""
    for place, (by_arm, colour) in enumerate(zip(worst, colours, strict=True)):
        for row in _of_control(contrasts, by_arm.get("target")).to_dict(orient="records"):
            axes.vlines(place, row["low"], row["high"], color=colour, linewidth=1.3)
            axes.plot(
                [place],
                [row["excess_drop"]],
                marker="o",
                markersize=5,
                color=colour,
                markerfacecolor=colour if row["p_max"] <= ALPHA else "white",
            )


def _random(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the random directions, among those of all controls."""
    return table.loc[table["arm"] == "control"]


def _of_control(table: pd.DataFrame, target: dict[str, Any] | None, *also: str) -> pd.DataFrame:
    """Rows of the random directions beside one target."""
    if target is None:
        return table.iloc[:0]
    same = [table[name] == target[name] for name in ("layer", *DIRECTION, *also)]
    return _random(table.loc[np.logical_and.reduce(same)])


def _finish(axes: Axes, layers: list[int], label: str, *, labelled: bool) -> None:
    """The axes of a panel over layers."""
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    light_axes(axes)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("layer (0-based)", fontsize=8.5)
    axes.tick_params(labelleft=labelled)
    if labelled:
        axes.set_ylabel(f"{label}\n(share of problems)", fontsize=8.5)
