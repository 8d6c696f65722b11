"""Which heads hold each value, and which ones the answer follows: maps of layers and heads."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, isnan

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_on_fit, of_least_rank
from mech_arith.evidence.verdicts import agree
from mech_arith.reports.figures.drawn import in_order
from mech_arith.reports.figures.layout import fitting, on_page
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.registered import Drawing, Tables, figures
from mech_arith.reports.figures.rule import Claim, Row, counts, number_of
from mech_arith.reports.figures.sharing import subspace_note
from mech_arith.reports.figures.sheet import NAMES, TITLE, Panel, Sheet
from mech_arith.reports.figures.style import (
    LAYERS,
    Grid,
    Key,
    distinct,
    evenly,
    heatmap,
    ink,
    outline,
    records,
    room_for,
    thinned,
    two_digits,
)
from mech_arith.statistics import ALPHA

MAPS = {
    "|R|": Claim("r", counts="r_counts"),
    "IIA": Claim("iia", counts="iia_counts"),
    "ceiling of IIA": Claim("ceiling"),
}
"""What is drawn, by its title: a column of the evidence, and that which says whether it counts."""

MANY = 12
"""Cells of more layers or heads than that are small, and without numbers."""

CELL, SMALL_CELL = (0.36, 0.28), (0.17, 0.15)
"""Width and height of a cell with a number and of one without, in inches."""

HEADS = "query head (0-based)"

SHOWN = (
    *("value", *COMPONENT_COLUMNS, "r", "r_low", "r_high", "p_holm", "r_counts"),
    *("iia", "iia_low", "iia_high", "floor", "iia_p_holm", "iia_counts", "ceiling", "n"),
    *("others_iia", "difference", "difference_low", "difference_high", "difference_p_max"),
)
"""Columns of the numbers beside the figure."""


@figures("heads")
def heads(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """One figure, where heads are sites of their own."""
    evidence = tables.get("evidence", pd.DataFrame())
    if len(evidence) and any(evidence["head"]):
        given = evidence, tables.get("site_contrasts")
        yield Drawing("heads", head_maps, given, {"title": title})


def head_maps(
    evidence: pd.DataFrame, site_contrasts: pd.DataFrame | None = None, *, title: str = ""
) -> Sheet:
    """|R| of every head (columns) at every layer (rows, layer 0 on top), a map for each value.

    After an interchange there stand beside it how often the answer is that of the source, and its
    ceiling: how often it is so where the head's whole activation is the source's. In the component,
    and of several positions at the one, with the largest |R| on the fit split; numbers of the
    report split. What may be chance is in brackets, or hatched where there is no room for numbers.
    A head is framed whose answers follow more often than those of the layer's other heads.

    Args:
        evidence: the run's table.
        site_contrasts: the run's table, where answers were asked.
        title: model and template.

    Raises:
        ValueError: no row is about a head.
    """
    of_heads = evidence.loc[evidence["head"] != ""]
    if of_heads.empty:
        raise ValueError("expected evidence at heads, got none; trace them with tracing.heads=each")
    best = best_on_fit(of_least_rank(of_heads), ("value", "layer", "head"))
    values, layers = in_order(best), sorted(distinct(best, "layer"))
    best = _contrasted(best, site_contrasts)
    columns = sorted(map(int, distinct(best, "head")))
    maps = {name: one for name, one in MAPS.items() if _known(best, one.number)}
    written = max(len(layers), len(columns)) <= MANY and not on_page()
    heading = {"title": title, "subtitle": _subtitle(of_heads)}
    framed = any(map(_stands_out, records(best)))
    grid = _grid(values, [*maps], layers, columns, written=written, framed=framed, **heading)
    sheet = grid.sheet()
    depths = thinned(layers, max(1, int(grid.height / 0.14)))
    heads_named = thinned(columns, max(1, int(grid.width / 0.2)))
    rows_of_value = ceil(len(maps) / grid.across)
    apart = len(maps) if rows_of_value == 1 else rows_of_value * grid.across
    for (place, value), (shift, name) in product(enumerate(values), enumerate(maps)):
        index = place * apart + shift
        panel = grid.panel(sheet, index)
        rows = records(best.loc[best["value"] == value])
        at = [(layers.index(row["layer"]), columns.index(int(row["head"])), row) for row in rows]
        is_first = index % grid.across == 0
        axes = depths if is_first else [""] * len(layers), heads_named
        _draw(panel, at, axes, maps[name], written=written)
        if name == "IIA":
            outline(panel, [(layer, head) for layer, head, row in at if _stands_out(row)])
        panel.name(title=f"{value}\n{name}", x=HEADS, y=LAYERS if is_first else "")
    grid.add_scale(sheet, "|R| or share of answers" if len(maps) > 1 else "|R|")
    sheet.record(records(best), [name for name in SHOWN if _known(best, name)])
    return sheet


def _grid(
    values: Sequence[str],
    maps: Sequence[str],
    layers: Sequence[int],
    columns: Sequence[int],
    *,
    written: bool,
    framed: bool,
    **heading: str,
) -> Grid:
    """The maps of a value side by side, and as many values as fit; else maps below each other."""
    cell = CELL if written else SMALL_CELL
    names = max(width_of(HEADS, NAMES), *(width_of(name, TITLE) for name in (*values, *maps)))
    width, left = max(cell[0] * len(columns), names), room_for(thinned(layers), beside=0.45)
    fits = fitting(width, left, right=1.0)
    if fits < len(maps):
        across = evenly(len(maps), fits)
        down = len(values) * ceil(len(maps) / across)
    else:
        across = evenly(len(values), fits // len(maps)) * len(maps)
        down = ceil(len(values) * len(maps) / across)
    return Grid(
        across=across,
        down=down,
        width=width,
        height=max(cell[1] * len(layers), 0.5),
        left=left,
        above=0.46,
        below=0.5,
        keys=[[Key(note, "tick") for note in (_doubt(written=written), *([FRAMED] * framed))]],
        scale=True,
        **heading,  # pyright: ignore[reportArgumentType]  # title and subtitle
    )


def _draw(
    panel: Panel,
    placed: Sequence[tuple[int, int, Row]],
    axes: tuple[Sequence[str], Sequence[str]],
    claim: Claim,
    *,
    written: bool,
) -> None:
    """One map, of a row for each place, with names of its rows and columns."""
    shares = np.full(tuple(map(len, axes)), np.nan)
    notes = [["" for _ in axes[1]] for _ in axes[0]]
    doubtful = []
    for layer, head, row in placed:
        share = abs(number_of(row, claim.number))
        if isnan(share):
            continue
        shares[layer, head] = share
        stands = counts(row, claim)
        notes[layer][head] = two_digits(share) if stands else f"({two_digits(share)})"
        doubtful += [] if stands else [(layer, head)]
    heatmap(panel, shares, rows=axes[0], columns=axes[1], notes=notes if written else None)
    for colour, written_in in () if written else (("0.75", "white"), ("0.55", "black")):
        panel.hatch([at for at in doubtful if ink(float(shares[at])) == written_in], colour)


FRAMED = f"framed: more than the layer's other heads (p at most {ALPHA:g}, of all heads)"


def _contrasted(best: pd.DataFrame, site_contrasts: pd.DataFrame | None) -> pd.DataFrame:
    """The rows with each head's difference from the layer's other heads, where it is known."""
    if site_contrasts is None or site_contrasts.empty:
        return best
    ends = {name: f"difference_{name}" for name in ("low", "high", "p_max")}
    place = ["value", *COMPONENT_COLUMNS]
    columns = [*place, "others_iia", "difference", *ends]
    taken = pd.DataFrame(site_contrasts[columns]).rename(columns=ends)
    return best.merge(taken, on=place, how="left")


def _stands_out(row: Row) -> bool:
    return agree(row.get("difference_p_max"), row.get("difference_low"))


def _subtitle(of_heads: pd.DataFrame) -> str:
    positions = distinct(of_heads, "position")
    where = positions[0] if len(positions) == 1 else "the best of the fit split"
    point = ", ".join(distinct(of_heads, "point"))
    return f"{point} of each head; positions: {where}; {subspace_note(of_heads)}"


def _doubt(*, written: bool) -> str:
    mark = "in brackets" if written else "hatched"
    return f"{mark}: may be chance (p above .05, or the interval reaches 0 or the floor)"


def _known(table: pd.DataFrame, column: str) -> bool:
    """Whether a column has any entry."""
    return column in table and bool(table[column].notna().any())
