"""Where a screen finds effects on the answer: maps of layers and positions."""

from collections.abc import Iterator
from math import ceil

import numpy as np
import pandas as pd

from mech_arith.engine.sites import SITE_COLUMNS
from mech_arith.reports.figures.correlations import MANY_LAYERS
from mech_arith.reports.figures.layout import fitting, on_page
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.registered import Drawing, Tables, figures
from mech_arith.reports.figures.sheet import SMALL, Sheet
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
)

CELL, SMALL_CELL = 0.28, 0.15
"""Width of a column and height of a row, in inches; of many layers the smaller height."""

NUMBERS = (
    *(*SITE_COLUMNS, "position_index", "token", "score", "place", "kept", "sampled"),
    *("effect", "effect_low", "effect_high", "metric", "n_fit", "n_report"),
)


@figures("screen")
def screen(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """One figure, where sites were screened."""
    table = tables.get("screen", pd.DataFrame())
    if len(table):
        yield Drawing("screen", screen_maps, (table,), {"title": title})


def screen_maps(table: pd.DataFrame, *, title: str = "") -> Sheet:
    """|score| of every layer (rows, layer 0 on top) and position (columns), a panel per point.

    As a share of the largest. Of heads the largest is shown. The sites that are kept are framed.

    Raises:
        ValueError: the table is empty.
    """
    if table.empty:
        raise ValueError("expected screened sites, got none; set screen=attribution")
    points, layers = distinct(table, "point"), sorted(distinct(table, "layer"))
    names = _names(table)
    largest = float(np.abs(table["score"].to_numpy(dtype=float)).max())
    width = max(CELL * len(names), *(width_of(point, SMALL + 1) for point in points))
    left = room_for([str(layer) for layer in layers], beside=0.45)
    across = evenly(len(points), fitting(width, left, right=1.0) if on_page() else 4)
    of_heads = "; of heads the largest" if len(distinct(table, "head")) > 1 else ""
    how = "gradients at the base" if table["steps"].iloc[0] == 0 else "integrated gradients"
    grid = Grid(
        title=title,
        subtitle=f"|first-order effect| on the answer ({how}) on the fit split, as a share of the "
        f"largest; framed: kept{of_heads}",
        across=across,
        down=ceil(len(points) / across),
        width=width,
        height=(CELL if len(layers) <= MANY_LAYERS else SMALL_CELL) * len(layers),
        left=left,
        below=0.4 + max(width_of(name, SMALL) for name in names.values()),
        scale=True,
    )
    sheet = grid.sheet()
    for index, point in enumerate(points):
        panel = grid.panel(sheet, index)
        shares = np.full((len(layers), len(names)), np.nan)
        framed = set()
        for row in records(table.loc[table["point"] == point]):
            at = layers.index(row["layer"]), [*names].index(row["position"])
            share = abs(row["score"]) / largest if largest > 0 else 0.0
            shares[at] = np.nanmax([shares[at], share])
            framed |= {at} if row["kept"] else set()
        heatmap(
            panel,
            shares,
            rows=thinned(layers, max(1, int(grid.height / 0.14))),
            columns=[*names.values()],
            upright=True,
        )
        outline(panel, sorted(framed))
        panel.name(title=point, x="position", y=LAYERS if index % across == 0 else "")
    sheet.record(records(table), [name for name in NUMBERS if bool(table[name].notna().any())])
    grid.add_scale(sheet, f"|score| ({table['metric'].iloc[0]})", largest=largest)
    return sheet


def _names(table: pd.DataFrame) -> dict[str, str]:
    """Positions as they were asked for, each with what stands there."""
    rows = table.drop_duplicates("position")
    return {
        row["position"]: f"{row['token'].strip()}  {row['position']}".strip()
        if row["token"] and row["token"] != row["position"]
        else row["position"]
        for row in records(rows)
    }
