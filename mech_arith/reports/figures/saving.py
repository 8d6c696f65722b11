"""Figures as files: pixels, curves with text that can be edited, and the numbers that are drawn.

Equal figures make equal files, in every format: no file holds a date or a random name.
"""

import csv
import re
from collections.abc import Callable, Mapping
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mech_arith.common.atomic import write_bytes
from mech_arith.reports.figures.lettering import FAMILY
from mech_arith.reports.figures.sheet import DPI, Sheet
from mech_arith.reports.papers import PNG

COMPRESSION = 3
"""Of PNG files, of 9."""

PRINTED_DPI = 300.0
"""Dots per inch of a PNG file on a page of a paper."""

CURVES: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "mech_arith"}
"""Text stays text: by name in SVG files, in an embedded TrueType font in PDF files."""

NUMBERS = "csv"
"""Suffix of the file of the numbers that a figure shows."""

Files = dict[str, bytes]
"""Contents by suffix."""


def write(files: Mapping[str, Files | Callable[[], Files]], directory: Path) -> list[Path]:
    """Write each file whole or not at all, under its figure's name without odd characters.

    Raises:
        ValueError: two names become the same file.
    """
    stems = {name: stem(name) for name in files}
    if len(set(stems.values())) < len(stems):
        raise ValueError(f"expected figures with different file names, got {list(files)}")
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, contents in files.items():
        for suffix, content in (contents if isinstance(contents, dict) else contents()).items():
            paths.append(directory / f"{stems[name]}.{suffix}")
            write_bytes(paths[-1], content)
    return paths


def stem(name: str) -> str:
    """The name of a figure's files, without suffix."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def file(figure: Figure, suffix: str, *, dpi: float = DPI) -> bytes:
    """The figure as a file of that format, or the numbers in it as CSV."""
    if suffix == NUMBERS:
        return numbers(figure)
    return _png(figure, dpi) if suffix == PNG else _curves(figure, suffix)


def numbers(figure: Figure) -> bytes:
    """What the figure shows, a row per mark or cell; empty for a figure that records nothing."""
    rows = figure.rows if isinstance(figure, Sheet) else []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode()


def _plain(entry: object) -> object:
    """A number as Python writes it, in full; nothing for one that could not be had."""
    if isinstance(entry, np.generic):
        entry = entry.item()
    is_missing = entry is None or entry is pd.NA or entry != entry  # NaN is not itself
    return "" if is_missing else entry


def _png(figure: Figure, dpi: float) -> bytes:
    """A PNG file, in half the time of matplotlib's own, and no larger."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    content = BytesIO()
    opaque = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(opaque).save(content, "png", compress_level=COMPRESSION, dpi=(dpi, dpi))
    return content.getvalue()


def _curves(figure: Figure, suffix: str) -> bytes:
    """A PDF or SVG file, with the title and the line under it in its properties."""
    title, about = figure.about if isinstance(figure, Sheet) else ("", "")
    content = BytesIO()
    with matplotlib.rc_context(CURVES):
        if suffix == "pdf":
            from matplotlib.backends.backend_pdf import FigureCanvasPdf

            said = {"Title": title, "Subject": about, "CreationDate": None}
            FigureCanvasPdf(figure).print_pdf(content, metadata=said)
            return content.getvalue()
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        said = {"Title": title, "Description": about, "Date": None}
        FigureCanvasSVG(figure).print_svg(content, metadata=said)
    # Verdana is as wide: so the figure looks alike where the font is not installed.
    fonts = f"'{FAMILY}', Verdana, sans-serif".encode()
    return content.getvalue().replace(f"'{FAMILY}'".encode(), fonts)
