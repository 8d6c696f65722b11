"""Figures that a person can read, drawn from the tables of a run and nothing else."""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mech_arith.common.errors import UserError
from mech_arith.common.plugins import plugin_file
from mech_arith.reports.figures.answer_tokens import answer_token_maps
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
from mech_arith.reports.figures.ranks import iia_by_rank, iia_by_rank_and_method
from mech_arith.reports.figures.registered import FIGURES, Drawing, figure, figures
from mech_arith.reports.figures.saving import NUMBERS, PRINTED_DPI, Files, file, stem, write
from mech_arith.reports.figures.sheet import DPI
from mech_arith.reports.papers import Page

__all__ = [
    "accuracy_by_layer",
    "answer_token_maps",
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
    "iia_by_rank",
    "iia_by_rank_and_method",
    "locality_distance",
    "locality_example",
    "position_maps",
    "save_figures",
    "specificity_maps",
]

log = logging.getLogger(__name__)

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

    A plugin's figure that fails is left out, with a warning.

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
    for name in FIGURES.names():
        with _alone(name):
            drawings = FIGURES.find(name)(tables, title, level)
            drawn = {drawing.name: _drawn(drawing, digests, on) for drawing in drawings}
            _check_new(drawn, files)
            files |= drawn
    return write(files, directory)


@contextmanager
def _alone(plan: str) -> Iterator[None]:
    """What fails in a user's own figure costs that figure; the package's must not fail."""
    try:
        yield
    except Exception as error:
        file = plugin_file(FIGURES.module(plan).__name__)
        if file is None:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("the figure %r of %s is left out: %s; change it", plan, file, said)


def _check_new(drawn: Iterable[str], files: Iterable[str]) -> None:
    """Raise a UserError where a figure would take the place of another one."""
    taken = {stem(name): name for name in files}
    for name in drawn:
        if other := taken.get(stem(name)):
            raise UserError(f"expected a new name for a figure, got {name!r}, as of {other!r}")


def _drawn(drawing: Drawing, digests: dict[int, bytes], on: Page) -> Files:
    """The files of a drawing, kept for the next cells."""
    key = drawing.key(digests), on
    if key not in _KEPT:
        with laid_out(on):
            _KEPT[key] = _files(drawing.figure(), on)
    _KEPT.move_to_end(key)
    while len(_KEPT) > MOST_KEPT:
        _KEPT.popitem(last=False)
    return _KEPT[key]


def cell_figures(
    tables: Mapping[str, pd.DataFrame], *, title: str, level: float = 0.95
) -> dict[str, Figure]:
    """All figures that a run's tables have the rows for, by name; see `draw_cell`."""
    return {
        drawing.name: drawing.figure()
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
