"""Where values are held: components against values, layer by layer and position by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS, WITHIN_LAYER
from mech_arith.evidence.best import best_on_fit
from mech_arith.reports.figures.layout import fitting, on_page, room
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.sharing import (
    MARK,
    component_name,
    served,
    sharing_note,
    sites_note,
)
from mech_arith.reports.figures.sheet import SMALL, Panel, Sheet
from mech_arith.reports.figures.style import (
    LAYERS,
    Grid,
    distinct,
    evenly,
    heatmap,
    outline,
    records,
    room_for,
    thinned,
    two_digits,
)

SCALE = "|R| on the report split"

CELL = 0.3
"""Height of a heatmap's cell, in inches."""

BARS = 0.45
"""Height of the bars over a heatmap, in inches."""

SMALL_CELL = 0.17
"""Width and height of a cell without a number, in inches."""

MANY_POSITIONS = 26
"""A map of more positions than that has one column of panels and no numbers in its cells."""

MANY_LAYERS = 12
"""A panel for each of more layers than that has no numbers in its cells, nor has a map of them."""

MANY_COMPONENTS = 12
"""With many layers, of more components than that every second, third, ... is named."""


@dataclass(frozen=True)
class _Layout:
    """How the panels of the layers fit the figure."""

    small: bool
    """Whether cells are small and without numbers."""
    across: int
    """Panels side by side."""
    width: float
    """Of a panel, in inches."""
    left: float
    """Inches beside the first panel."""

    @classmethod
    def of(cls, values: Sequence[str], n_layers: int, n_components: int) -> "_Layout":
        """Cells with numbers where there is room for at least two panels side by side."""
        width, left = 1.2 * CELL * n_components, room_for(values, beside=0.45)
        wanted = 2 if n_layers in (2, 4) else min(3, n_layers)
        least = min(2, wanted)
        fits = not on_page() or left + least * width + (least - 1) * 0.25 + 1.0 <= room()
        if n_layers <= MANY_LAYERS and fits:
            return cls(False, wanted, width, left)
        width, left = SMALL_CELL * n_components, room_for(values, beside=0.3)
        across = evenly(n_layers, fitting(width, left, right=1.0)) if on_page() else 6
        return cls(True, across, width, left)


def correlation_heatmaps(correlations: pd.DataFrame, *, title: str = "") -> Sheet:
    """|R| of every component with every value, a panel per layer, its explained variance on top.

    The component that is best on the fit split is framed. Rows of one position set and head only.
    The panels of many layers are small, and without numbers.

    Raises:
        ValueError: the table is empty, or holds several points, positions or heads.
    """
    _require_rows(correlations)
    _require_one_place(correlations)
    values, layers = distinct(correlations, "value"), sorted(distinct(correlations, "layer"))
    components = sorted(distinct(correlations, "component"))
    layout = _Layout.of(values, len(layers), len(components))
    small, across = layout.small, layout.across
    cells_height = (SMALL_CELL if small else CELL) * len(values)
    bars_height = 0.25 if small else BARS
    best = _best_on_fit(correlations, ["value", "layer"])
    grid = Grid(
        title=title,
        subtitle=f"{sites_note(correlations, '')}; framed: best on the fit split",
        across=across,
        down=ceil(len(layers) / across),
        width=layout.width,
        height=cells_height + bars_height,
        left=layout.left,
        below=0.42,
        notes=sharing_note(served(best.values()), mark=""),
        scale=True,
    )
    sheet = grid.sheet()
    tallest = float(np.nanmax(correlations["explained_variance"].to_numpy(), initial=1e-3))
    for index, layer in enumerate(layers):
        at_layer = correlations.loc[correlations["layer"] == layer]
        first_column = index % across == 0
        bars = grid.panel(sheet, index, bottom=cells_height, height=bars_height)
        cells = grid.panel(sheet, index, height=cells_height)
        _variance_bars(bars, at_layer, components, top=tallest, written=not small)
        if first_column and not small:
            bars.name(y="variance")
        bars.name(title=f"layer {layer}")
        shares = _matrix(at_layer, values, components, "abs_r")
        most = MANY_COMPONENTS if small else len(components)
        heatmap(
            cells,
            shares,
            rows=values if first_column else [""] * len(values),
            columns=thinned(components, most),
            notes=None if small else _numbers(shares),
        )
        fitted = np.abs(_matrix(at_layer, values, components, "r_fit"))
        known = [row for row, on_fit in enumerate(fitted) if not np.isnan(on_fit).all()]
        outline(cells, [(row, int(np.nanargmax(fitted[row]))) for row in known])
        if not small or index >= len(layers) - across:
            cells.name(x="component")
        _record(sheet, at_layer, {value: best.get((value, layer)) for value in values})
    grid.add_scale(sheet, SCALE)
    return sheet


def _require_one_place(correlations: pd.DataFrame) -> None:
    """Raise a ValueError where a table holds several points, positions or heads."""
    for column in WITHIN_LAYER:
        if len(found := distinct(correlations, column)) > 1:
            raise ValueError(
                f"expected correlations at one {column}, got {found}; draw a figure for each"
            )


def _record(sheet: Sheet, at_layer: pd.DataFrame, best: dict[str, dict[str, Any] | None]) -> None:
    """The numbers of a layer's panel; `best` is the row that is framed, by value."""
    framed = {(value, row["component"]) for value, row in best.items() if row is not None}
    sheet.record(
        (row | {"framed": (row["value"], row["component"]) in framed} for row in records(at_layer)),
        [*COMPONENT_COLUMNS, "value", "abs_r", "explained_variance", "framed", "n_report"],
    )


def best_correlation_map(correlations: pd.DataFrame, *, title: str = "") -> Sheet:
    """The |R| of the component that is best on the fit split, per value and layer.

    Each cell names the component, with its head, and where the table holds several positions the
    position too. A component that is best for several values has a mark.

    Raises:
        ValueError: the table is empty.
    """
    _require_rows(correlations)
    values, layers = distinct(correlations, "value"), sorted(distinct(correlations, "layer"))
    several = len(distinct(correlations, "position")) > 1
    shares = np.full((len(values), len(layers)), np.nan)
    notes = [["" for _ in layers] for _ in values]
    best = _best_on_fit(correlations, ["value", "layer"])
    shared = served(best.values())
    for (value, layer), row in best.items():
        at = values.index(value), layers.index(layer)
        shares[at] = row["abs_r"]
        where = f"\nat {row['position']}" if several else ""
        named = component_name(row, shared)
        notes[at[0]][at[1]] = f"{two_digits(row['abs_r'])}\n{named}{where}"
    written = [line for row in notes for note in row for line in note.split("\n")]
    left = room_for(values, beside=0.45)
    width = max(0.36, 0.1 + max(width_of(line, SMALL) for line in written)) * len(layers)
    small = on_page() and width > room() - left - 1.0
    if small:
        width = max(1.0, min(SMALL_CELL * len(layers), room() - left - 1.0))
    grid = Grid(
        title=title,
        subtitle="best component of each layer, chosen on the fit split "
        f"({_letters(correlations)})",
        across=1,
        down=1,
        width=width,
        height=(0.22 if small else 0.52 if several else 0.4) * len(values),
        left=left,
        notes=sharing_note(shared, "" if small else MARK),
        scale=True,
    )
    sheet = grid.sheet()
    panel = grid.panel(sheet, 0)
    names = thinned(layers, max(1, int(width / 0.22))) if small else [str(k) for k in layers]
    heatmap(panel, shares, rows=values, columns=names, notes=None if small else notes)
    sheet.record(best.values(), [*COMPONENT_COLUMNS, "value", "abs_r", "n_report"])
    panel.name(x=LAYERS, y="value")
    grid.add_scale(sheet, SCALE)
    return sheet


def position_maps(correlations: pd.DataFrame, *, title: str = "") -> Sheet:
    """The best |R| at every layer and single position, a panel per value, tokens on the x axis.

    Layer 0 is the top row. Rows of single positions only (see `single_positions`). Components are
    chosen on the fit split.

    Raises:
        ValueError: there is no row of a single position.
    """
    each = correlations.loc[correlations["position_index"] >= 0]
    _require_rows(each)
    values, layers = distinct(each, "value"), sorted(distinct(each, "layer"))
    tokens = dict(zip(each["position_index"].tolist(), each["token"].tolist(), strict=True))
    positions = sorted(tokens)
    many, across, cell = _position_cells(len(positions), len(values))
    rotated = many or max(width_of(_visible(tokens[p]), SMALL) for p in positions) > 0.33
    names = [_token_label(tokens[p], p, rotated=rotated) for p in positions]
    under = max(width_of(name, SMALL) for name in names) if rotated else 0.25
    of_heads = " of all heads" if len(distinct(each, "head")) > 1 else ""
    grid = Grid(
        title=title,
        subtitle=f"best component{of_heads} at each single position, chosen on the fit split",
        across=across,
        down=ceil(len(values) / across),
        width=cell * len(positions),
        height=(0.18 if on_page() and many else CELL if len(layers) <= MANY_LAYERS else 0.16)
        * len(layers),
        gap=0.55,
        below=0.4 + under,
        scale=True,
    )
    sheet = grid.sheet()
    best = _best_on_fit(each, ["value", "layer", "position_index"])
    for index, value in enumerate(values):
        panel = grid.panel(sheet, index)
        shares = np.full((len(layers), len(positions)), np.nan)
        for (of, layer, position), row in best.items():
            if of == value:
                shares[layers.index(layer), positions.index(position)] = row["abs_r"]
        heatmap(
            panel,
            shares,
            rows=[str(layer) for layer in layers],
            columns=thinned(names, len(names) if cell >= 0.13 else int(panel.box[2] / 0.13)),
            notes=None if many or len(layers) > MANY_LAYERS else _numbers(shares),
            upright=rotated,
        )
        beside = LAYERS if index % across == 0 else ""
        panel.name(title=value, x="token and position", y=beside)
    columns = [*COMPONENT_COLUMNS, "position_index", "token", "value", "abs_r", "n_report"]
    sheet.record(best.values(), columns)
    grid.add_scale(sheet, SCALE)
    return sheet


def _position_cells(n_positions: int, n_values: int) -> tuple[bool, int, float]:
    """Whether cells have no numbers, how many panels stand side by side, and a cell's width."""
    many = n_positions > MANY_POSITIONS
    across = 1 if many or n_values == 1 else 2
    if not on_page():
        return many, across, SMALL_CELL if many else 0.36
    for across, least in ((min(2, n_values), 0.36), (min(2, n_values), 0.13), (1, 0.0)):
        cell = (room() - 1.75 - 0.55 * (across - 1)) / across / n_positions
        if cell >= least:
            return least < 0.36, across, min(cell, max(least, SMALL_CELL))
    raise AssertionError("the last layout always fits")


def single_positions(correlations: pd.DataFrame) -> pd.Series:
    """Which rows are of single positions by index, and of no position with a name."""
    indices = correlations["position_index"].astype(str)
    return pd.Series(correlations["position"] == indices, index=correlations.index)


def _variance_bars(
    panel: Panel, at_layer: pd.DataFrame, components: Sequence[int], *, top: float, written: bool
) -> None:
    """Share of the variance that each component explains, above its column."""
    shares = at_layer.groupby("component")["explained_variance"].first().reindex(components)
    panel.limit((-0.5, len(components) - 0.5), (0.0, 1.5 * top))  # room for the numbers
    known = [(at, share) for at, share in enumerate(shares.tolist()) if not np.isnan(share)]
    corners = [(at - 0.35, 0.0, at + 0.35, share) for at, share in known]
    panel.rectangles(corners, facecolors="0.55")
    panel.level(0.0)
    for at, share in known if written else ():
        if share >= 0.005:
            above = {"along": "bottom", "shift": (0.0, 0.01)}
            panel.write(two_digits(share), at, share, size=SMALL - 1.5, **above)


def _best_on_fit(table: pd.DataFrame, keys: list[str]) -> dict[tuple, dict[str, Any]]:
    """The row with the largest |R| on the fit split, by the keys' values, in their order."""
    found = records(best_on_fit(table, keys))
    return {tuple(row[name] for name in keys): row for row in found}


def _matrix(
    table: pd.DataFrame, values: Sequence[str], components: Sequence[int], number: str
) -> np.ndarray:
    """One number per value (row) and component (column); NaN where there is none."""
    wide = table.pivot(index="value", columns="component", values=number)
    return wide.reindex(index=values, columns=components).to_numpy(dtype=float)


def _numbers(shares: np.ndarray) -> list[list[str]]:
    return [[two_digits(share) for share in row] for row in shares]


def _visible(token: str) -> str:
    """A token with white space that can be seen."""
    shown = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    return shown if shown.strip() else "\N{OPEN BOX}"


def _token_label(token: str, position: int, *, rotated: bool) -> str:
    return f"{_visible(token)}{'  ' if rotated else chr(10)}{position}"


def _letters(correlations: pd.DataFrame) -> str:
    """What the letters in cells stand for."""
    return "h: head, c: component" if any(correlations["head"]) else "c: component"


def _require_rows(table: pd.DataFrame) -> None:
    if table.empty:
        raise ValueError("expected a table of correlations with rows, got none; trace first")
