"""Rival hypotheses over the layers: how often the answer is as each of them expects."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.hypothesis_summary import at_best
from mech_arith.reports.figures.ranks import line_of
from mech_arith.reports.figures.rule import number_of
from mech_arith.reports.figures.sharing import sites_note
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.figures.style import (
    Colour,
    Grid,
    Key,
    distinct,
    grouped,
    layer_colours,
    side_by_side,
)

MOST_PANELS = 12
"""Values and rivals that are drawn: those with the clearest difference."""

SHOWN = (
    *("value", "hypothesis", "rival", "rival_value", *COMPONENT_COLUMNS, "n_distinguishing"),
    *("distinguishing", "distinguishing_low", "distinguishing_high", "floor"),
    *("distinguishing_rival", "distinguishing_rival_low", "distinguishing_rival_high"),
    *("floor_rival", "difference", "difference_low", "difference_high", "p_holm", "supports"),
)
"""Columns of the numbers beside the figure."""


def rival_hypotheses(
    hypotheses: pd.DataFrame,
    evidence: pd.DataFrame,
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """Share of answers that are as each of two hypotheses expects, over layers; a panel for each
    value and rival value, on the pairs that tell the two apart. A hypothesis has one colour.

    At the layer's best site of the fit split, in the value's subspace of the largest rank.

    Args:
        hypotheses: the run's table.
        evidence: the run's table.
        title: model and template.
        level: of the table's intervals.

    Raises:
        ValueError: no row is of a site in the evidence.
    """
    rows = at_best(hypotheses, evidence)
    largest = rows.groupby(["value", "layer"])["rank"].transform("max")
    rows = rows.loc[(rows["rank"] == largest) & (rows["n_distinguishing"] > 0)]
    if rows.empty:
        raise ValueError("expected hypotheses compared at sites of the evidence, got none")
    panels = _panels(rows)
    layers = sorted(distinct(rows, "layer"))
    names = sorted({*distinct(rows, "hypothesis"), *distinct(rows, "rival")})
    colours = dict(zip(names, layer_colours(list(range(len(names) + 1))).values(), strict=False))
    width, across = side_by_side(list(panels), max(1.8, 0.3 * len(layers)), 0.9, least=1.2)
    grid = Grid(
        title=title,
        subtitle=f"{sites_note(rows, 'the best of the fit split')}, {_ranks(rows)}; "
        f"bars: {level:.0%} intervals",
        across=across,
        down=ceil(len(panels) / across),
        width=width,
        height=1.7,
        left=0.9,
        below=0.5,
        keys=[
            [Key(f"as {name} expects", "point", colour) for name, colour in colours.items()],
            [Key("by chance", "dotted")],
        ],
    )
    sheet = grid.sheet()
    for index, (name, of_panel) in enumerate(panels.items()):
        panel = grid.panel(sheet, index)
        panel.limit((layers[0] - 0.5, layers[-1] + 0.5), (-0.03, 1.03))
        panel.tick_x(layers, [str(layer) for layer in layers])
        panel.frame(x_grid=False, y_named=index % across == 0)
        ordered = sorted(of_panel, key=lambda row: row["layer"])
        own, rival = (colours[ordered[0][side]] for side in ("hypothesis", "rival"))
        _line(panel, ordered, "distinguishing", "floor", own, aside=-0.08)
        _line(panel, ordered, "distinguishing_rival", "floor_rival", rival, aside=0.08)
        beside = "share of the pairs that\ntell them apart" if index % across == 0 else ""
        panel.name(title=name, x="layer", y=beside)
        sheet.record(ordered, SHOWN)
    return sheet


def _ranks(rows: pd.DataFrame) -> str:
    """A value of few numbers may have no subspace of the largest rank of all."""
    ranks = distinct(rows, "rank")
    least, most = min(ranks), max(ranks)
    return f"rank {most}" if least == most else f"ranks {least} to {most}, the largest of each"


def _panels(rows: pd.DataFrame) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The rows of each value and rival value, under what is compared."""
    found = grouped(rows, "value", "hypothesis", "rival_value", "rival")
    clearest = sorted(
        found.items(), key=lambda item: -max(abs(number_of(r, "difference")) for r in item[1])
    )
    return {
        f"{value} ({hypothesis})\nor {other} ({rival})": of_pair
        for (value, hypothesis, other, rival), of_pair in clearest[:MOST_PANELS]
    }


def _line(
    panel: Panel,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    floor: str,
    colour: Colour,
    *,
    aside: float,
) -> None:
    """What one hypothesis expects, with its floor."""
    at = [row["layer"] + aside for row in rows]
    line_of(panel, at, rows, name, colour)
    chance = [number_of(row, floor) for row in rows]
    panel.line(at, chance, color=colour, linestyle=":", linewidth=1)
