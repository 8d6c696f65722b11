"""Figures that a person can read, drawn from the tables of a run and nothing else."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mech_arith.atomic import write_bytes
from mech_arith.figures import standard  # noqa: F401  (registers the figures of every run)
from mech_arith.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
)
from mech_arith.figures.counterfactual import counterfactual_agreement, specificity_maps
from mech_arith.figures.drops import accuracy_by_layer
from mech_arith.figures.effects import dose_response
from mech_arith.figures.evidence import evidence_maps
from mech_arith.figures.locality import locality_distance, locality_example
from mech_arith.figures.registered import FIGURES, Drawing, figure, figures
from mech_arith.figures.sheet import DPI

__all__ = [
    "accuracy_by_layer",
    "best_correlation_map",
    "cell_figures",
    "correlation_heatmaps",
    "counterfactual_agreement",
    "dose_response",
    "draw_cell",
    "evidence_maps",
    "figure",
    "figures",
    "locality_distance",
    "locality_example",
    "position_maps",
    "save_figures",
    "specificity_maps",
]

COMPRESSION = 3
"""Of PNG files, of 9."""

MOST_KEPT = 64
"""Drawn figures that a process keeps for its next cells, about 60 kB each."""


_KEPT: OrderedDict[bytes, bytes] = OrderedDict()
"""PNG files by the keys of their drawings, the latest last."""


def draw_cell(
    tables: Mapping[str, pd.DataFrame], directory: Path, *, title: str, level: float = 0.95
) -> list[Path]:
    """Draw all figures that a run's tables have the rows for into PNG files.

    Cells of a sweep often share tables: what this process has drawn before is not drawn again.

    Args:
        tables: by name: `correlations`, and what else the run made.
        directory: where to.
        title: stands over every figure; model and template.
        level: of the tables' intervals.
    """
    digests: dict[int, bytes] = {}
    files: dict[str, bytes] = {}
    for name, drawing in _drawings(tables, title, level).items():
        key = drawing.key(digests)
        if key not in _KEPT:
            _KEPT[key] = _png(drawing.figure())
        _KEPT.move_to_end(key)
        files[name] = _KEPT[key]
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return _save(files, directory)


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


def save_figures(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Save each figure as a PNG file under its name, which loses what a file name cannot hold.

    Raises:
        ValueError: two names become the same file.
    """
    return _save({name: partial(_png, figure) for name, figure in figures.items()}, directory)


def _save(files: Mapping[str, bytes | Callable[[], bytes]], directory: Path) -> list[Path]:
    """Write each file whole or not at all."""
    paths = {name: directory / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.png" for name in files}
    if len(set(paths.values())) < len(paths):
        raise ValueError(f"expected figures with different file names, got {list(files)}")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(paths[name], content if isinstance(content, bytes) else content())
    return list(paths.values())


def _png(figure: Figure) -> bytes:
    """A PNG file, in half the time of matplotlib's own, and no larger."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = BytesIO()
    opaque = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(opaque).save(file, "png", compress_level=COMPRESSION, dpi=(DPI, DPI))
    return file.getvalue()
