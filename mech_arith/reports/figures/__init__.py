"""Figures that a person can read, drawn from the tables of a run and nothing else."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mech_arith.reports.figures import standard  # noqa: F401  (registers the figures of every run)
from mech_arith.reports.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
)
from mech_arith.reports.figures.counterfactual import counterfactual_iia, specificity_maps
from mech_arith.reports.figures.drops import accuracy_by_layer
from mech_arith.reports.figures.effects import dose_response
from mech_arith.reports.figures.evidence import evidence_maps
from mech_arith.reports.figures.layout import laid_out
from mech_arith.reports.figures.locality import locality_distance, locality_example
from mech_arith.reports.figures.registered import FIGURES, Drawing, figure, figures
from mech_arith.reports.figures.saving import NUMBERS, PRINTED_DPI, Files, file, write
from mech_arith.reports.figures.sheet import DPI
from mech_arith.reports.papers import Page

__all__ = [
    "accuracy_by_layer",
    "best_correlation_map",
    "cell_figures",
    "correlation_heatmaps",
    "counterfactual_iia",
    "dose_response",
    "draw_cell",
    "evidence_maps",
    "figure",
    "figures",
    "heading",
    "locality_distance",
    "locality_example",
    "position_maps",
    "save_figures",
    "specificity_maps",
]

PNG_ALONE = Page()

MOST_KEPT = 64
"""Drawn figures that a process keeps for its next cells, about 60 kB each."""


_KEPT: OrderedDict[tuple[bytes, Page], Files] = OrderedDict()
"""The files of drawings by their keys, the latest last."""


def draw_cell(
    tables: Mapping[str, pd.DataFrame],
    directory: Path,
    *,
    title: str,
    level: float = 0.95,
    on: Page = PNG_ALONE,
) -> list[Path]:
    """Draw all figures that a run's tables have the rows for, each in every format of the page.

    Beside each stands NAME.csv, the numbers that it shows.

    Cells of a sweep often share tables: what this process has drawn before is not drawn again.

    Args:
        tables: by name: `correlations`, and what else the run made.
        directory: where to.
        title: stands over every figure; model and template.
        level: of the tables' intervals.
        on: formats and width.
    """
    digests: dict[int, bytes] = {}
    files: dict[str, Files] = {}
    for name, drawing in _drawings(tables, title, level).items():
        key = drawing.key(digests), on
        if key not in _KEPT:
            with laid_out(on):
                _KEPT[key] = _files(drawing.figure(), on)
        _KEPT.move_to_end(key)
        files[name] = _KEPT[key]
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return write(files, directory)


def cell_figures(
    tables: Mapping[str, pd.DataFrame], *, title: str, level: float = 0.95
) -> dict[str, Figure]:
    """All figures that a run's tables have the rows for, by name; see `draw_cell`."""
    return {name: drawing.figure() for name, drawing in _drawings(tables, title, level).items()}


def _drawings(tables: Mapping[str, pd.DataFrame], title: str, level: float) -> dict[str, Drawing]:
    """What is to be drawn of a run: of all that is registered what it has the tables for."""
    return {
        drawing.name: drawing
        for name in FIGURES.names()
        for drawing in FIGURES.find(name)(tables, title, level)
    }


def save_figures(
    figures: Mapping[str, Figure], directory: Path, on: Page = PNG_ALONE
) -> list[Path]:
    """Save each figure under its name in each format, and the numbers that it shows as CSV.

    Raises:
        ValueError: two names become the same file.
    """
    return write({name: partial(_files, figure, on) for name, figure in figures.items()}, directory)


def heading(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What stands over the figures of a finished run: `title` and `level` of `draw_cell`."""
    cell = summary["cell"]
    title = f"{cell['model']}, {cell['expression']}"
    return {"title": title, "level": summary["inference"]["level"]}


def _files(figure: Figure, on: Page) -> Files:
    dpi = DPI if on.width is None else PRINTED_DPI
    suffixes = [*on.formats, *([NUMBERS] if getattr(figure, "rows", None) else [])]
    return {suffix: file(figure, suffix, dpi=dpi) for suffix in suffixes}
