"""From a sweep's directory to the files and tables of its spread over seeds."""

from pathlib import Path

import pandas as pd
from rich.console import Console

from mech_arith.common.runs.directories import check_writable
from mech_arith.reports.seeds.groups import SeedCell, seed_groups
from mech_arith.reports.seeds.show import print_alone, print_seeds
from mech_arith.reports.seeds.tables import correlations_over_seeds, effects_over_seeds, write_table

CORRELATIONS, EFFECTS = "seeds.parquet", "seeds_effects.parquet"


def write_seeds(directory: Path, *, console: Console | None = None) -> tuple[Path, Path]:
    """Write and print the spread over seeds of the finished cells under `directory`.

    Returns:
        The files: of correlations, and of effects.

    Raises:
        UserError: the cells are not those of several seeds, or cannot be compared.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140, file=console.file)
    found = seed_groups(directory)
    check_writable(directory)
    correlations = [correlations_over_seeds(cells) for cells in found.groups]
    effects = [effects_over_seeds(cells) for cells in found.groups]
    for group in zip(found.groups, correlations, effects, strict=True):
        print_seeds(console, *group)
    print_alone(console, found)
    files = (directory / CORRELATIONS, directory / EFFECTS)
    for path, tables in zip(files, (correlations, effects), strict=True):
        marked = [_marked(*of) for of in zip(found.groups, tables, strict=True)]
        write_table(path, pd.concat(marked))
    return files


def _marked(cells: tuple[SeedCell, ...], spread: pd.DataFrame) -> pd.DataFrame:
    """The rows with columns that name their cells and seeds."""
    seeds = " ".join("?" if cell.seed is None else str(cell.seed) for cell in cells)
    apart = {name: field for name, field in cells[0].fields.items() if name not in spread}
    return spread.assign(**apart, seeds=seeds)
