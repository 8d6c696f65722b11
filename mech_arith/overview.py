"""The table that a run or a sweep ends with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mech_arith.results import load_summary
from mech_arith.summary import CLEARLY
from mech_arith.sweeps import DONE, STATUSES, CellState, own_overrides

USUAL = {"point": "resid_post", "positions": "all", "prompt": None, "seed": 0, "tracing": "pca"}
"""What a cell's name need not say."""


FEW = 10
"""Cells of which each one's figures are listed."""


def cell_name(cell: Mapping[str, Any]) -> str:
    """Model, expression, layers and edit, and whatever else differs from the usual."""
    parts = [cell["model"], cell["expression"], f"layers {cell['layers']}", cell["edit"]]
    parts += [f"{name} {cell[name]}" for name, usual in USUAL.items() if cell[name] != usual]
    return ", ".join(str(part) for part in parts)


def print_overview(directories: Sequence[Path], *, console: Console | None = None) -> None:
    """Print a row per run directory, and where the results and figures are."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    console.print(overview(directories))
    # Of a large sweep the report says where what is.
    for directory in directories if len(directories) <= FEW else ():
        figures = sorted((directory / "figures").glob("*.png"))
        names = ", ".join(path.name for path in figures) or "none"
        console.print(
            f"{directory}: figures/ {names}", soft_wrap=True, highlight=False, markup=False
        )


def print_states(states: Sequence[CellState], *, console: Console | None = None) -> None:
    """Print how many cells came to which end, and which and why where that is not simply done."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    table = Table()
    for column in ("status", "cells", "which and why"):
        table.add_column(column, overflow="fold")
    named = list(zip(states, own_overrides([state.overrides for state in states]), strict=True))
    for status in STATUSES:
        some = [_which(state, own) for state, own in named if state.status == status]
        table.add_row(status, str(len(some)), Text("" if status == DONE else "\n".join(some)))
    console.print(table)


def _which(state: CellState, overrides: str) -> str:
    named = f"{state.directory.name} ({overrides})" if overrides else state.directory.name
    return f"{named}: {state.note}" if state.note else named


def overview(directories: Sequence[Path]) -> Table:
    """Cell, baseline accuracy, best |R| and largest accuracy drop per finished run."""
    table = Table(
        caption="Best on the fit split, |R| on the report split. The drop is the largest of all "
        "edits that were made; its control moves a random direction exactly as far. The floor "
        "is the accuracy of always giving the most frequent answer.",
        show_lines=True,
    )
    columns = (
        "cell",
        "baseline accuracy",
        "best |R|",
        "largest accuracy drop (before -> after)",
        "its control",
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for directory in directories:
        table.add_row(*_row(directory))
    return table


def _row(directory: Path) -> tuple[str, ...]:
    summary = load_summary(directory)
    return (
        cell_name(summary["cell"]),
        _baseline(summary),
        _best(summary),
        *_drop(summary),
    )


def _baseline(summary: Mapping[str, Any]) -> str:
    """The accuracy, beside that of always giving the most frequent answer."""
    near = "\nnot clearly above it" if summary["above_floor_p"] >= CLEARLY else ""
    return f"{summary['baseline_accuracy']:.3f}\nfloor {summary['majority_floor']:.3f}{near}"


def _best(summary: Mapping[str, Any]) -> str:
    """One line per value: its best |R|, the layer, and out of how many components."""
    lines = [
        f"{value} {found['abs_r']:.2f} layer {found['layer']}"
        for value, found in sorted(summary["best"].items(), key=lambda item: len(item[0]))
    ]
    return "\n".join([*lines, f"of {summary['n_searched']} components"])


def _drop(summary: Mapping[str, Any]) -> tuple[str, str]:
    drops = summary["largest_drop"]
    if not drops:
        return "no edit asked for", ""
    value, worst = max(drops.items(), key=lambda item: item[1]["accuracy_drop"])
    before = worst["baseline_accuracy"]
    where = (
        f"{worst['accuracy_drop']:.3f} ({before:.2f} -> {before - worst['accuracy_drop']:.2f})\n"
        f"layer {worst['layer']}, component {worst['component']} ({value}), "
        f"strength {worst['strength']:g}\n"
        f"of {summary['n_edits_searched']} edits on {worst['n']} problems"
    )
    return where, f"{worst['control_drop']:.3f}"
