"""The table that a run or a sweep ends with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mech_arith.progress import counted
from mech_arith.results import load_summary
from mech_arith.statistics import ALPHA
from mech_arith.summary import CLEARLY
from mech_arith.sweeps import DONE, STATUSES, CellState, own_overrides

USUAL = {
    "point": "resid_post",
    "positions": "all",
    "prompt": None,
    "design": "uniform",
    "seed": 0,
    "tracing": "pca",
}
"""What a cell's name need not say."""

DOUBTFUL = " p>.05"
"""Behind a number that may be chance, corrected for all that were looked at."""


NAME_WIDTH = 20
"""Characters in a line of a cell's name: the numbers' lines stay whole."""

FEW = 10
"""Cells of which each one's figures are listed."""


def cell_name(cell: Mapping[str, Any]) -> str:
    """Model, expression, layers and edit, and whatever else differs from the usual."""
    parts = [cell["model"], cell["expression"], f"layers {cell['layers']}", cell["edit"]]
    asked = {name: cell.get(name, usual) for name, usual in USUAL.items()}
    parts += [f"{name} {asked[name]}" for name, usual in USUAL.items() if asked[name] != usual]
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
    """Cell, baseline accuracy, best |R|, what edits cost and whether answers follow a value."""
    table = Table(
        caption="Of each value the component, layer and position with the largest |R| on the fit "
        "split; numbers of the report split, in brackets their intervals, p corrected for all that "
        "were tried. Excess: the drop beyond that of random directions moved as far, mean over "
        "strengths; the largest drop is one of many. Floors: always the most frequent answer; "
        "chance, with other values. Ceiling: the whole activation.",
        show_lines=True,
    )
    table.add_column("cell", overflow="fold", max_width=NAME_WIDTH)
    for column in ("baseline\naccuracy", "best |R|", "what edits do"):
        table.add_column(column, overflow="fold")
    for directory in directories:
        table.add_row(*(Text(entry) for entry in _row(directory)))
    return table


def _row(directory: Path) -> tuple[str, ...]:
    summary = load_summary(directory)
    lines = [*_excess(summary), *_agreement(summary), *_largest(summary)]
    return (
        cell_name(summary["cell"]),
        _baseline(summary),
        _best(summary),
        "\n".join(lines) or "no edit asked for",
    )


def _baseline(summary: Mapping[str, Any]) -> str:
    """The accuracy, beside that of always giving the most frequent answer."""
    near = "\nnot clearly above it" if summary["above_floor_p"] >= CLEARLY else ""
    ends = _interval(summary, "baseline_accuracy").strip()
    accuracy = f"{summary['baseline_accuracy']:.3f}"
    lines = [accuracy, ends, f"floor {summary['majority_floor']:.3f}{near}"]
    return "\n".join(line for line in lines if line)


def _best(summary: Mapping[str, Any]) -> str:
    """One line per value: its best |R|, the layer, and out of how many components."""
    lines = [
        f"{value} {_two(found['abs_r'])}{_r_interval(found)} layer {found['layer']}"
        f"{DOUBTFUL if (found.get('p_holm') or 0) > ALPHA else ''}"
        for value, found in _by_length(summary["best"])
    ]
    return "\n".join([*lines, f"of {counted(summary['n_searched'], 'component')}"])


def _excess(summary: Mapping[str, Any]) -> list[str]:
    """Per value what its component costs beyond random directions."""
    lines = [
        f"{value} {_two(found['excess_drop'])}{_interval(found, 'excess')} "
        f"{_p(found['excess_p_max'])} (target {_two(found['target_drop'])}, "
        f"control {_two(found['control_drop'])})"
        for value, found in _by_length(summary.get("excess_drop") or {})
    ]
    return [f"excess drop, {summary['n_edited']} problems:", *lines] if lines else []


def _agreement(summary: Mapping[str, Any]) -> list[str]:
    """Per value how often answers follow the value put in its place."""
    lines = [
        f"{value} {_two(found['agreement'])}{_interval(found, 'agreement')} "
        f"(floor {_two(found['floor'])}, ceiling {_two(found['ceiling'])})"
        for value, found in _by_length(summary.get("counterfactual") or {})
    ]
    return ["answers that follow the value:", *lines] if lines else []


def _largest(summary: Mapping[str, Any]) -> list[str]:
    """The largest drop of all edits, which is a maximum over many."""
    drops = summary["largest_drop"]
    if not drops:
        return []
    value, worst = max(drops.items(), key=lambda item: item[1]["accuracy_drop"])
    before, drop = worst["baseline_accuracy"], worst["accuracy_drop"]
    p = summary.get("largest_drop_p")
    return [
        f"largest drop of {counted(summary['n_edits_searched'], 'edit')}: {drop:.3f} "
        f"({before:.2f} -> {before - drop:.2f}){'' if p is None else f' {_p(p)}'}",
        f"layer {worst['layer']}, component {worst['component']} ({value}), "
        f"strength {worst['strength']:g}; control {_two(worst['control_drop'])}",
    ]


def _by_length(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Plain before composed: a, b, c, b-c, a-(b-c)."""
    return sorted(found.items(), key=lambda item: len(item[0]))


def _interval(found: Mapping[str, Any], name: str) -> str:
    low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
    return "" if low is None or high is None else f" [{_two(low)}, {_two(high)}]"


def _r_interval(found: Mapping[str, Any]) -> str:
    """Of R, whose sign |R| does not show: turned where R is negative."""
    low, high = found.get("r_low"), found.get("r_high")
    if low is None or high is None:
        return ""
    low, high = (-high, -low) if found["r"] < 0 else (low, high)
    return f" [{_two(low)}, {_two(high)}]"


def _p(p: float | None) -> str:
    if p is None:
        return "p unknown"
    return "p<.001" if p < 0.001 else f"p={p:.3f}".replace("0.", ".", 1)


def _two(number: float | None) -> str:
    """'.07', '1.00', '-.05'; a dash for a number that could not be had."""
    if number is None:
        return "-"
    text = f"{number:z.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
