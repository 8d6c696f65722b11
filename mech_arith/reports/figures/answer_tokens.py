"""Which tokens of the answer follow a value: sign and digits, one by one."""

from math import ceil, isnan
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.results import tokens_at_best
from mech_arith.evidence.verdicts import agree
from mech_arith.reports.figures.drawn import in_order
from mech_arith.reports.figures.evidence import CELL, FEW
from mech_arith.reports.figures.layout import WIDEST, fitting, on_page
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.sharing import served, sharing_note
from mech_arith.reports.figures.sheet import SMALL, Panel, Sheet
from mech_arith.reports.figures.style import (
    Grid,
    Key,
    details,
    distinct,
    evenly,
    heatmap,
    records,
    room_for,
    two_digits,
)
from mech_arith.statistics import ALPHA


def answer_token_maps(
    answer_tokens: pd.DataFrame,
    evidence: pd.DataFrame,
    *,
    title: str = "",
    level: float = 0.95,
) -> Sheet:
    """How often each token of the answer (columns) is as each value (rows) calls for.

    A panel per layer, in the component, and of several positions at the one, with the largest |R|
    on the fit split; the whole way to the value. What may be chance is pale and in brackets.

    Raises:
        ValueError: no row of the table belongs to a component in the evidence.
    """
    rows = tokens_at_best(answer_tokens, evidence)
    if rows.empty:
        raise ValueError("expected tokens of the components in the evidence, got none")
    layers, values = sorted(distinct(rows, "layer")), in_order(rows)
    tokens = distinct(rows.sort_values("token", kind="stable"), "token_name")
    left = room_for(values, beside=0.1)
    written, cell, across = _cells(len(layers), len(tokens), left)
    longest = max(width_of(name, SMALL) for name in tokens)
    upright = longest > cell - 0.05
    grid = Grid(
        title=title,
        subtitle="IIA of each token of the answer: the share that is as the value calls for",
        across=across,
        down=ceil(len(layers) / across),
        width=cell * len(tokens),
        height=(0.5 if written else 0.22) * len(values),
        left=left,
        below=0.4 + (longest if upright else 0.1),
        keys=[[Key(note, "tick") for note in _notes(level)]] if written else [],
        notes=sharing_note(served(records(rows)), mark=""),
        scale=True,
    )
    sheet = grid.sheet()
    for index, layer in enumerate(layers):
        panel = grid.panel(sheet, index)
        at_layer = records(rows.loc[rows["layer"] == layer])
        shares = np.full((len(values), len(tokens)), np.nan)
        for row in at_layer:
            shares[values.index(row["value"]), tokens.index(row["token_name"])] = row["iia"]
        heatmap(
            panel,
            shares,
            rows=values if index % across == 0 else [""] * len(values),
            columns=tokens,
            notes=[[""] * len(tokens)] * len(values),
            upright=upright,
        )
        for row in at_layer if written else ():
            _write(panel, values.index(row["value"]), tokens.index(row["token_name"]), row)
        panel.name(title=f"layer {layer}", x="token of the answer")
        sheet.record(at_layer, [name for name in RECORDED if name in rows])
    grid.add_scale(sheet, "IIA")
    return sheet


RECORDED = [
    *("value", *COMPONENT_COLUMNS, "token", "token_name", "n", "iia", "iia_low", "iia_high"),
    *("floor", "p_max", "iia_changed", "ceiling", "ceiling_changed"),
]


def _notes(level: float) -> list[str]:
    """What the marks in the cells mean."""
    return [
        f"pale, in brackets: may be chance (p above {ALPHA:g}, or the interval reaches the floor)",
        f"small: {level:.0%} interval",
        "fl.: floor, by chance with other values",
        "c.: ceiling, the whole activation",
    ]


def _cells(n_layers: int, n_tokens: int, left: float) -> tuple[bool, float, int]:
    """Whether cells hold numbers, a cell's width, and how many panels stand side by side."""
    fits = not on_page() or fitting(CELL * n_tokens, left, right=1.0) >= min(2, n_layers)
    written = n_layers <= FEW and fits
    cell = CELL if written else 0.26
    if on_page():
        return written, cell, evenly(n_layers, fitting(cell * n_tokens, left, right=1.0))
    return written, cell, evenly(n_layers, max(1, int((WIDEST - left) / (cell * n_tokens + 0.25))))


def _write(panel: Panel, at_row: int, at_column: int, row: dict[str, Any]) -> None:
    """The number, its interval, its floor and its ceiling."""
    if isnan(row["iia"]):
        return
    bounds = [("fl.", row["floor"]), ("c.", row["ceiling"])]
    # Tables of earlier versions have no p of tokens.
    doubtful = not agree(row.get("p_max", 0.0), row["iia_low"], row["floor"])
    number = two_digits(row["iia"])
    lines = [
        f"({number})" if doubtful else number,
        f"{two_digits(row['iia_low'])} to {two_digits(row['iia_high'])}",
        " ".join(f"{word} {two_digits(bound)}" for word, bound in bounds if not isnan(bound)),
    ]
    details(panel, at_row, at_column, lines, row["iia"], faint=doubtful)
