"""The paper's locality test: does the model use a coordinate as the value that it goes with?"""

from collections.abc import Callable
from math import ceil
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mech_arith.figures import outside
from mech_arith.figures.style import WIDEST, Grid, distinct, light_axes, literal

PREDICTED = "#d95f02"
ACTUAL = "#1b6ca8"

UNIT = "(units of activation)"


def locality_example(
    curves: pd.DataFrame,
    observed: tuple[float, float] | None = None,
    *,
    title: str = "",
) -> Figure:
    """f_p and f_a of one problem, a panel per value (row) and layer (column).

    Args:
        curves: columns layer, component, value, kind ('f_p' or 'f_a'; others are passed over),
            problem, x (what the value is taken to be), y (the coordinate), and if there, original
            (the problem's own value) and observed_low, observed_high (the range of the coordinate
            over all problems).
        observed: that range, for a table without it.
        title: model and template.

    Raises:
        ValueError: the table holds no such curve.
    """
    functions = _named(curves.loc[curves["kind"].isin(["f_p", "f_a"])])
    _require_rows(functions, "f_p or f_a")
    in_table = "observed_low" in functions and "observed_high" in functions
    handles: list[Any] = [
        Line2D([], [], color=PREDICTED, label="f_p: predicted from edited answers"),
        Line2D([], [], color=ACTUAL, label="f_a: read with the value really replaced"),
    ]
    if "original" in functions:
        own = Line2D([], [], color="black", linestyle=":", label="the problem's own value")
        handles.append(own)
    if in_table or observed is not None:
        handles.append(outside.COORDINATES)

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        problem = panel.loc[panel["problem"] == distinct(panel, "problem")[0]]
        for kind, colour in (("f_a", ACTUAL), ("f_p", PREDICTED)):
            line = problem.loc[problem["kind"] == kind].sort_values("x")
            axes.plot(line["x"], line["y"], color=colour, linewidth=1.6)
        if "original" in problem:
            original = distinct(problem, "original")[0]
            axes.axvline(original, color="black", linestyle=":", linewidth=1.2)
        if observed is not None:
            outside.shade_coordinates(axes, *observed)
        elif in_table:
            low, high = (distinct(problem, name)[0] for name in ("observed_low", "observed_high"))
            outside.shade_coordinates(axes, low, high)

    return _small_multiples(
        functions,
        draw,
        title=title,
        subtitle="one problem: the coordinate that goes with each value",
        x_label="{value}, set to",
        y_label=f"coordinate\n{UNIT}",
        handles=handles,
    )


def locality_distance(curves: pd.DataFrame, *, title: str = "") -> Figure:
    """The median of |f_p - f_a| over problems, against the distance from the original value.

    A panel per value (row) and layer (column); the band runs from `low` to `high`.

    Raises:
        ValueError: the table holds no row of the kind 'distance'.
    """
    distances = _named(curves.loc[curves["kind"] == "distance"])
    _require_rows(distances, "distance")

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        line = panel.sort_values("x")
        axes.fill_between(line["x"], line["low"], line["high"], color=ACTUAL, alpha=0.2, lw=0)
        axes.plot(line["x"], line["y"], color=ACTUAL, linewidth=1.6)
        axes.axvline(0, color="black", linestyle=":", linewidth=1.2)
        axes.set_ylim(bottom=0)

    return _small_multiples(
        distances,
        draw,
        title=title,
        subtitle="how far the predicted function is from the actual one",
        x_label="{value}, minus its original",
        y_label=f"|f_p - f_a|\n{UNIT}",
        handles=[
            Line2D([], [], color=ACTUAL, label="median over problems"),
            Patch(color=ACTUAL, alpha=0.2, label="quartiles"),
            Line2D([], [], color="black", linestyle=":", label="the original value"),
        ],
    )


def _small_multiples(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], None],
    *,
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    handles: list[Any],
) -> Figure:
    """A panel per value (row) and layer (column), drawn by `draw` from its rows of the table."""
    values, layers = distinct(table, "value"), sorted(distinct(table, "layer"))
    width = max(1.55, 4.2 / len(layers))
    across = min(len(layers), int(WIDEST / width))
    rows_per_value = ceil(len(layers) / across)
    grid = Grid(
        across=across,
        down=len(values) * rows_per_value,
        width=width,
        height=max(1.1, 2.2 / len(values)),
        left=0.85,
        gap=0.5,
        below=0.5,
        above=0.25,
        keys=[handles],
    )
    figure = grid.figure(title, subtitle)
    for row, value in enumerate(values):
        for column, layer in enumerate(layers):
            panel = table.loc[(table["value"] == value) & (table["layer"] == layer)]
            if panel.empty:
                continue
            axes = grid.axes(figure, row * rows_per_value * across + column)
            draw(axes, panel)
            light_axes(axes)
            components = ", ".join(str(k) for k in sorted(distinct(panel, "component")))
            axes.set_title(f"layer {layer}, component {components}", fontsize=8)
            axes.set_xlabel(literal(x_label.format(value=value)), fontsize=8.5)
            if column % across == 0:
                axes.set_ylabel(y_label, fontsize=8.5)
    return figure


def _named(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves, with the operand that moves a sub-expression said beside its name."""
    if "moved_by" not in curves:
        return curves
    names = [
        value if value == operand else f"{value} (by {operand})"
        for value, operand in zip(curves["value"], curves["moved_by"], strict=True)
    ]
    return curves.assign(value=names)


def _require_rows(table: pd.DataFrame, kinds: str) -> None:
    if table.empty:
        raise ValueError(
            f"expected locality curves of kind {kinds}, got none; run the locality test first"
        )
