"""Where values are held: components against values, layer by layer and position by position."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mech_arith.figures.style import (
    SMALL,
    Grid,
    distinct,
    heatmap,
    literal,
    outline,
    two_digits,
)

SCALE = "|R| on the report split"

CELL = 0.3
"""Height of a heatmap's cell, in inches."""

BARS = 0.45
"""Height of the bars over a heatmap, in inches."""

MANY_POSITIONS = 26
"""A map of more positions than that has one column of panels and no numbers in its cells."""


def correlation_heatmaps(correlations: pd.DataFrame, *, title: str = "") -> Figure:
    """|R| of every component with every value, a panel per layer, its explained variance on top.

    The component that is best on the fit split is framed. Rows of one position set only.

    Raises:
        ValueError: the table is empty, or holds several points or positions.
    """
    _require_rows(correlations)
    for column in ("point", "position"):
        if len(found := distinct(correlations, column)) > 1:
            raise ValueError(
                f"expected correlations at one {column}, got {found}; draw a figure for each"
            )
    values, layers = distinct(correlations, "value"), sorted(distinct(correlations, "layer"))
    components = sorted(distinct(correlations, "component"))
    across = 2 if len(layers) in (2, 4) else min(3, len(layers))
    down = ceil(len(layers) / across)
    point, position = (distinct(correlations, column)[0] for column in ("point", "position"))
    cells_height = CELL * len(values)
    grid = Grid(
        across=across,
        down=down,
        width=1.2 * CELL * len(components),
        height=cells_height + BARS,
        left=_room_for(values),
        below=0.5,
        scale=True,
    )
    figure = grid.figure(title, f"{point}, positions: {position}; framed: best on the fit split")
    tallest = float(np.nanmax(correlations["explained_variance"].to_numpy(), initial=1e-3))
    image = None
    for index, layer in enumerate(layers):
        at_layer = correlations.loc[correlations["layer"] == layer]
        first_column = index % across == 0
        bars = grid.axes(figure, index, bottom=cells_height, height=BARS)
        cells = grid.axes(figure, index, height=cells_height)
        _variance_bars(bars, at_layer, components, top=tallest, labelled=first_column)
        bars.set_title(f"layer {layer}", fontsize=9.5)
        shares = _matrix(at_layer, values, components, "abs_r")
        image = heatmap(
            cells,
            shares,
            rows=values if first_column else [""] * len(values),
            columns=[str(component) for component in components],
            notes=_numbers(shares),
        )
        fitted = np.abs(_matrix(at_layer, values, components, "r_fit"))
        for row, on_fit in enumerate(fitted):
            if not np.isnan(on_fit).all():
                outline(cells, row, int(np.nanargmax(on_fit)))
        cells.set_xlabel("component", fontsize=8.5)
    assert image is not None
    grid.add_scale(figure, image, SCALE)
    return figure


def best_correlation_map(correlations: pd.DataFrame, *, title: str = "") -> Figure:
    """The |R| of the component that is best on the fit split, per value and layer.

    Each cell names the component, and where the table holds several positions the position too.

    Raises:
        ValueError: the table is empty.
    """
    _require_rows(correlations)
    values, layers = distinct(correlations, "value"), sorted(distinct(correlations, "layer"))
    several = len(distinct(correlations, "position")) > 1
    shares = np.full((len(values), len(layers)), np.nan)
    notes = [["" for _ in layers] for _ in values]
    for (value, layer), row in _best_on_fit(correlations, ["value", "layer"]).items():
        at = values.index(value), layers.index(layer)
        shares[at] = row["abs_r"]
        place = f" at {row['position']}" if several else ""
        notes[at[0]][at[1]] = f"{two_digits(row['abs_r'])}\nc{row['component']}{place}"
    grid = Grid(
        across=1,
        down=1,
        width=(0.8 if several else 0.6) * len(layers),
        height=0.4 * len(values),
        left=_room_for(values),
        scale=True,
    )
    figure = grid.figure(
        title, "best component of each layer, chosen on the fit split (c: component)"
    )
    axes = grid.axes(figure, 0)
    image = heatmap(
        axes, shares, rows=values, columns=[str(layer) for layer in layers], notes=notes
    )
    axes.set_xlabel("layer (0-based)", fontsize=8.5)
    axes.set_ylabel("value", fontsize=8.5)
    grid.add_scale(figure, image, SCALE)
    return figure


def position_maps(correlations: pd.DataFrame, *, title: str = "") -> Figure:
    """The best |R| at every layer and single position, a panel per value, tokens on the x axis.

    Rows of single positions only (see `single_positions`). Components are chosen on the fit split.

    Raises:
        ValueError: there is no row of a single position.
    """
    each = correlations.loc[correlations["position_index"] >= 0]
    _require_rows(each)
    values, layers = distinct(each, "value"), sorted(distinct(each, "layer"), reverse=True)
    tokens = dict(zip(each["position_index"].tolist(), each["token"].tolist(), strict=True))
    positions = sorted(tokens)
    many = len(positions) > MANY_POSITIONS
    across = 1 if many or len(values) == 1 else 2
    down = ceil(len(values) / across)
    longest = max(len(tokens[p]) for p in positions)
    rotated = many or longest > 5
    grid = Grid(
        across=across,
        down=down,
        width=(0.17 if many else 0.36) * len(positions),
        height=(CELL if len(layers) <= 12 else 0.16) * len(layers),
        gap=0.55,
        below=0.5 + 0.06 * (longest + 4) if rotated else 0.65,
        scale=True,
    )
    figure = grid.figure(title, "best component at each single position, chosen on the fit split")
    image = None
    for index, value in enumerate(values):
        axes = grid.axes(figure, index)
        shares = np.full((len(layers), len(positions)), np.nan)
        of_value = each.loc[each["value"] == value]
        for (layer, position), row in _best_on_fit(of_value, ["layer", "position_index"]).items():
            shares[layers.index(layer), positions.index(position)] = row["abs_r"]
        numbers = None if many or len(layers) > 12 else _numbers(shares)
        image = heatmap(
            axes,
            shares,
            rows=[str(layer) for layer in layers],
            columns=[_token_label(tokens[p], p, rotated=rotated) for p in positions],
            notes=numbers,
        )
        axes.set_title(literal(value), fontsize=9.5)
        if rotated:
            axes.tick_params(axis="x", labelrotation=90)
        if index % across == 0:
            axes.set_ylabel("layer (0-based)", fontsize=8.5)
        axes.set_xlabel("token and position", fontsize=8.5)
    assert image is not None
    grid.add_scale(figure, image, SCALE)
    return figure


def single_positions(correlations: pd.DataFrame) -> pd.Series:
    """Which rows are of single positions by index, and of no position with a name."""
    indices = correlations["position_index"].astype(str)
    return pd.Series(correlations["position"] == indices, index=correlations.index)


def _variance_bars(
    axes: Axes, at_layer: pd.DataFrame, components: Sequence[int], *, top: float, labelled: bool
) -> None:
    """Share of the variance that each component explains, above its column."""
    shares = at_layer.groupby("component")["explained_variance"].first().reindex(components)
    bars = axes.bar(range(len(components)), shares.to_numpy(), color="0.55", width=0.7)
    texts = ["" if np.isnan(share) or share < 0.005 else two_digits(share) for share in shares]
    axes.bar_label(bars, texts, fontsize=SMALL - 1.5, padding=1)
    axes.set_xlim(-0.5, len(components) - 0.5)
    axes.set_ylim(0, 1.5 * top)  # room for the numbers
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "left", "right"]].set_visible(False)
    if labelled:
        axes.set_ylabel("variance\nexplained", fontsize=SMALL, rotation=0, ha="right", va="center")


def _best_on_fit(table: pd.DataFrame, keys: list[str]) -> dict[tuple, dict[str, Any]]:
    """The row with the largest |R| on the fit split, by the keys' values."""
    known = table.dropna(subset=["r_fit"])
    best = known["r_fit"].abs().groupby([known[key] for key in keys]).idxmax()
    return {tuple(row[key] for key in keys): row for row in known.loc[best].to_dict("records")}


def _matrix(
    table: pd.DataFrame, values: Sequence[str], components: Sequence[int], number: str
) -> np.ndarray:
    """One number per value (row) and component (column); NaN where there is none."""
    wide = table.pivot(index="value", columns="component", values=number)
    return wide.reindex(index=values, columns=components).to_numpy(dtype=float)


def _numbers(shares: np.ndarray) -> list[list[str]]:
    return [[two_digits(share) for share in row] for row in shares]


def _token_label(token: str, position: int, *, rotated: bool) -> str:
    """Token and position, with white space that can be seen."""
    visible = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    visible = visible if visible.strip() else "\N{OPEN BOX}"
    return f"{visible}  {position}" if rotated else f"{visible}\n{position}"


def _room_for(values: Sequence[str]) -> float:
    """Inches that the values' names take at the left of a panel, and a label beside them."""
    return 0.55 + 0.075 * max(len(value) for value in values)


def _require_rows(table: pd.DataFrame) -> None:
    if table.empty:
        raise ValueError("expected a table of correlations with rows, got none; trace first")
