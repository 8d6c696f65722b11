"""The table that a run or a sweep ends with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mech_arith.results import load_run


def print_overview(directories: Sequence[Path], *, console: Console | None = None) -> None:
    """Print a row per run directory, and where the figures are."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    console.print(overview(directories))
    for directory in directories:
        figures = sorted((directory / "figures").glob("*.png"))
        if figures:
            names = ", ".join(path.name for path in figures)
            console.print(f"{figures[0].parent}/  {names}", soft_wrap=True, highlight=False)


def overview(directories: Sequence[Path]) -> Table:
    """Cell, baseline accuracy, best |R| and largest accuracy drop per run; or why there is none."""
    table = Table(title="accuracy drops are absolute; the control moves a random direction as far")
    for column in ("cell", "baseline accuracy", "best |R|", "largest accuracy drop", "its control"):
        table.add_column(column, justify="left" if column == "cell" else "right", overflow="fold")
    for directory in directories:
        table.add_row(*_row(directory))
    return table


def _row(directory: Path) -> tuple[str, ...]:
    error = directory / "error.txt"
    if error.is_file():
        return (directory.name, "failed", error.read_text(encoding="utf-8").strip(), "", "")
    if not (directory / "summary.json").is_file():
        return (directory.name, "no result", f"see the log in {directory}", "", "")
    summary = load_run(directory).summary
    cell = summary["cell"]
    name = f"{cell['model']} {cell['expression']} {cell['layers']} {cell['edit']}"
    return (
        name,
        f"{summary['baseline_accuracy']:.3f}",
        _best(summary["best"]),
        *_drop(summary["largest_drop"]),
    )


def _best(best: dict[str, Any]) -> str:
    """One line per value: its best |R|, and the layer."""
    return "\n".join(
        f"{value} {found['abs_r']:.2f} layer {found['layer']}" for value, found in best.items()
    )


def _drop(drops: dict[str, Any]) -> tuple[str, str]:
    if not drops:
        return "none asked for", ""
    value, worst = max(drops.items(), key=lambda item: item[1]["accuracy_drop"])
    where = f"{worst['accuracy_drop']:.3f} layer {worst['layer']} ({value})"
    return where, f"{worst['control_drop']:.3f}"
