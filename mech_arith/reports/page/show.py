"""Two runs side by side, as a table in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mech_arith.evidence.verdicts import known
from mech_arith.reports.page.differences import (
    ABOUT,
    BASELINE,
    Compared,
    known_text,
    several_places,
    titles,
)

MOST = 24
"""Rows of the printed table; the files have all."""


def print_differences(
    compared: Compared, places: Sequence[Path], *, console: Console | None = None
) -> None:
    """Print how B differs from A, the clearest differences first."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    table = compared.table
    several = len(table.drop_duplicates(["cell_a", "cell_b"])) > 1
    for side, place in zip("AB", places, strict=True):
        console.print(f"{side}: {place}", soft_wrap=True, highlight=False, markup=False)
    found = sum(table["counts"].dropna().tolist())
    tested = len(table.dropna(subset=["p"]))
    console.print(
        f"{found} of {tested} differences are findings (p at most .05, adjusted for all of them)",
        highlight=False,
        markup=False,
    )
    shown = Table(title="B minus A, the clearest first", title_justify="left")
    within = several_places(table)
    cells_named = ["cells"] if several else []
    for name in (*cells_named, "quantity", "value", "layer", *within, "strength"):
        shown.add_column(name, justify="right" if name in ("layer", "strength") else "left")
    for name in ("A", "B", "B minus A", "p"):
        shown.add_column(name, no_wrap=True)
    ordered = table.assign(first=table["quantity"] != BASELINE).sort_values(
        ["first", "p"], kind="stable", na_position="last"
    )
    for row in ordered.head(MOST).to_dict(orient="records"):
        cells = [f"{row['cell_a']}, {row['cell_b']}"] if several else []
        entries = map(Text, (*cells, *_entries(row, within)))
        shown.add_row(*entries, style=_style(row["counts"]))
    console.print(shown)
    if len(table) > MOST:
        console.print(f"and {len(table) - MOST} more rows in the file", highlight=False)
    for sentence in (ABOUT, *compared.notes):
        console.print(sentence, highlight=False, markup=False)


def _style(counts: Any) -> str:
    """In bold what counts, in grey what may be chance."""
    return "" if pd.isna(counts) else "bold" if counts else "dim"


def _entries(row: Mapping[Any, Any], within: Sequence[str]) -> list[str]:
    layer, strength, p = (known(row, name) for name in ("layer", "strength", "p_holm"))
    return [
        titles()[row["quantity"]],
        row["value"],
        "" if layer is None else f"{layer:.0f}",
        *(known_text(row[f"{name}_a"]) or "" for name in within),
        "" if strength is None else f"{strength:g}",
        *(_with_interval(row, name) for name in ("a", "b", "difference")),
        "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0"),
    ]


def _with_interval(row: Mapping[Any, Any], name: str) -> str:
    number, low, high = (known(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if number is None:
        return ""
    return f"{number:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")
