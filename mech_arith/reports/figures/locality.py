"""The paper's locality test: does the model use a coordinate as the value that it goes with?"""

from collections.abc import Callable
from math import ceil

import numpy as np
import pandas as pd

from mech_arith.engine.sites import SITE_COLUMNS, Site, site_of
from mech_arith.reports.figures import observed_range
from mech_arith.reports.figures.layout import WIDEST, fitting, on_page, room
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.figures.style import Grid, Key, distinct, evenly, records

PREDICTED = "#d95f02"
ACTUAL = "#1b6ca8"

UNIT = "(units of activation)"

OBSERVED = ("observed_low", "observed_high")

SHOWN = (
    *("value", "moved_by", "layer", "position", "head", "component", "rank", "kind"),
    *("problem", "x", "y", "low", "high", "original", *OBSERVED),
)
"""Columns of the numbers that a figure shows."""


def locality_example(
    curves: pd.DataFrame,
    observed: tuple[float, float] | None = None,
    *,
    title: str = "",
) -> Sheet:
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
    keys = [
        Key("f_p: predicted from edited answers", "line", PREDICTED),
        Key("f_a: read with the value really replaced", "line", ACTUAL),
    ]
    if "original" in functions:
        keys.append(Key("the problem's own value", "dotted"))
    if in_table or observed is not None:
        keys.append(observed_range.COORDINATES)

    def draw(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
        problem = table.loc[table["problem"] == distinct(table, "problem")[0]]
        panel.limit(_around(problem["x"]), _around(problem["y"]))
        for kind, colour in (("f_a", ACTUAL), ("f_p", PREDICTED)):
            line = problem.loc[problem["kind"] == kind].sort_values("x")
            panel.line(line["x"].to_numpy(), line["y"].to_numpy(), color=colour, linewidth=1.6)
        if "original" in problem:
            panel.upright(distinct(problem, "original")[0], linestyle=":", linewidth=1.2)
        if observed is not None:
            observed_range.shade_coordinates(panel, *observed)
        elif in_table:
            low, high = (distinct(problem, name)[0] for name in ("observed_low", "observed_high"))
            observed_range.shade_coordinates(panel, low, high)
        return problem

    return _small_multiples(
        functions,
        draw,
        title=title,
        subtitle="one problem: the coordinate that goes with each value",
        x_label="{value}, set to",
        y_label=f"coordinate\n{UNIT}",
        keys=keys,
    )


def locality_distance(curves: pd.DataFrame, *, title: str = "") -> Sheet:
    """The median of |f_p - f_a| over problems, against the distance from the original value.

    A panel per value (row) and layer (column); the band runs from `low` to `high`.

    Raises:
        ValueError: the table holds no row of the kind 'distance'.
    """
    distances = _named(curves.loc[curves["kind"] == "distance"])
    _require_rows(distances, "distance")

    def draw(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
        line = table.sort_values("x")
        x, y, low, high = (line[name].to_numpy(float) for name in ("x", "y", "low", "high"))
        panel.limit(_around(line["x"]), (0.0, _around(line[["y", "high"]])[1]))
        panel.band(x, low, high, colour=ACTUAL, alpha=0.2)
        panel.line(x, y, color=ACTUAL, linewidth=1.6)
        panel.upright(0, linestyle=":", linewidth=1.2)
        return line.drop(columns=["original", *OBSERVED], errors="ignore")

    return _small_multiples(
        distances,
        draw,
        title=title,
        subtitle="how far the predicted function is from the actual one",
        x_label="{value}, minus its original",
        y_label=f"|f_p - f_a|\n{UNIT}",
        keys=[
            Key("median over problems", "line", ACTUAL),
            Key("quartiles", "patch", "#d1e2ee"),
            Key("the original value", "dotted"),
        ],
    )


def _small_multiples(
    table: pd.DataFrame,
    draw: Callable[[Panel, pd.DataFrame], pd.DataFrame],
    *,
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    keys: list[Key],
) -> Sheet:
    """A panel per value (row) and site (column), drawn by `draw`, which returns what it drew."""
    values, sites = distinct(table, "value"), _sites(table)
    width = max(1.55, 4.2 / len(sites))
    across = min(len(sites), int(WIDEST / width))
    if on_page():
        across = evenly(len(sites), fitting(1.1, 1.05, gap=0.5))
        width = min(width, (room() - 1.3 - 0.5 * (across - 1)) / across)
    rows_per_value = ceil(len(sites) / across)
    grid = Grid(
        title=title,
        subtitle=subtitle,
        across=across,
        down=len(values) * rows_per_value,
        width=width,
        height=max(1.1, 2.2 / len(values)),
        left=1.05,
        gap=0.5,
        below=0.5,
        above=0.25,
        keys=[keys],
    )
    sheet = grid.sheet()
    for row, value in enumerate(values):
        for column, (site, at_site) in enumerate(sites.items()):
            here = at_site.loc[at_site["value"] == value]
            if here.empty:
                continue
            panel = grid.panel(sheet, row * rows_per_value * across + column)
            sheet.record(records(draw(panel, here)), SHOWN)
            panel.frame()
            head = "" if site.head is None else f" head {site.head}"
            panel.name(
                title=f"layer {site.layer}{head}, {_moved(here)}",
                x=x_label.format(value=value),
                y=y_label if column % across == 0 else "",
            )
    return sheet


def _moved(curves: pd.DataFrame) -> str:
    """Along what a site's curves go: components by their numbers, subspaces by their ranks."""
    ranks = curves["rank"] if "rank" in curves else pd.Series(1, index=curves.index)
    components = sorted(distinct(curves.loc[ranks == 1], "component"))
    larger = sorted(set(ranks[ranks > 1].tolist()))
    said = [
        f"{name} {', '.join(map(str, of))}"
        for name, of in (("component", components), ("subspace of rank", larger))
        if of
    ]
    return " and ".join(said)


def _sites(table: pd.DataFrame) -> dict[Site, pd.DataFrame]:
    """The curves of each site, by layer and head."""
    known = [name for name in SITE_COLUMNS if name in table]
    found = {
        site_of(records(rows.iloc[:1])[0]): rows for _, rows in table.groupby(known, sort=False)
    }
    return dict(sorted(found.items(), key=lambda entry: (entry[0].layer, entry[0].head or 0)))


def _around(numbers: pd.Series | pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that holds all the numbers, with a little room."""
    found = numbers.to_numpy(dtype=float)
    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


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
