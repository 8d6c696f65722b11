"""What all figures share: sizes, colours, cells with numbers in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

DPI = 150

CONTROL = "0.62"
"""Grey of everything that belongs to a control."""

MISSING = "\N{EN DASH}"
"""Stands in the cell of a number that could not be had."""

MINUS = "\N{MINUS SIGN}"

SMALL = 7.5
"""Font size of numbers inside cells and of tick labels, in points."""

WIDEST = 13.0
"""Inches that panels side by side may take; more go below."""

LARGEST_LEGEND = 12
"""Of more layers than that, a legend names every second, third, ..."""

HEADING = 0.55
"""Room for the title and the line under it, in inches."""

KEY_ROW = 0.22
"""Height of a line of the legend."""

NARROWEST = 6.6
"""Width of a figure, however little is in it."""

Colour = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Panels of one size in rows and columns, laid out in inches.

    Sizes in inches keep fonts and cells in proportion however many panels there are, and take a
    tenth of the time of matplotlib's own search for a layout.
    """

    across: int
    down: int
    width: float
    height: float
    """Of a panel."""
    left: float = 0.75
    """Room for the labels of the y axis, left of the first column."""
    gap: float = 0.25
    """Between columns."""
    below: float = 0.6
    """Room under each row for the labels of the x axis."""
    above: float = 0.3
    """Room over each row for the panels' titles."""
    keys: Sequence[Sequence[Any]] = ()
    """Legends under all rows, one under the other: the handles of each."""
    scale: bool = False
    """Whether to keep room for a colour scale on the right."""

    def figure(self, title: str, subtitle: str) -> Figure:
        """A figure of the right size with its heading and legends, and no panels yet."""
        figure = Figure(figsize=self.size)
        height = self.size[1]
        bottom = self._key
        for handles in self.keys:
            bottom -= KEY_ROW * self._key_rows(handles)
            figure.legend(
                handles=list(handles),
                loc="lower center",
                bbox_to_anchor=(0.5, bottom / height),
                ncols=self._key_columns(handles),
                fontsize=8.5,
                frameon=False,
                borderaxespad=0,
                borderpad=0,
                handlelength=1.5,
            )
        figure.text(0.5, 1 - 0.09 / height, literal(title), fontsize=11, ha="center", va="top")
        figure.text(
            0.5,
            1 - 0.32 / height,
            literal(subtitle),
            fontsize=8.5,
            color="0.3",
            ha="center",
            va="top",
        )
        return figure

    @property
    def size(self) -> tuple[float, float]:
        """Of the figure: wide enough for its heading, too."""
        height = HEADING + self.down * (self.above + self.height + self.below) + self._key
        return max(self._content, NARROWEST), height

    @property
    def _content(self) -> float:
        panels = self.across * self.width + (self.across - 1) * self.gap
        return self.left + panels + (1.0 if self.scale else 0.25)

    @property
    def _key(self) -> float:
        """Room that the legends take."""
        rows = sum(self._key_rows(handles) for handles in self.keys)
        return KEY_ROW * rows + 0.1 if rows else 0.0

    def _key_columns(self, handles: Sequence[Any]) -> int:
        longest = max(len(handle.get_label()) for handle in handles)
        fitting = int(max(self._content, NARROWEST) / (0.7 + 0.068 * longest))
        return max(1, min(len(handles), fitting))

    def _key_rows(self, handles: Sequence[Any]) -> int:
        return ceil(len(handles) / self._key_columns(handles))

    @property
    def _start(self) -> float:
        """The left edge of what is drawn, which stands in the middle of a wider figure."""
        return (self.size[0] - self._content) / 2

    def axes(
        self,
        figure: Figure,
        index: int,
        *,
        bottom: float = 0.0,
        height: float | None = None,
    ) -> Axes:
        """The panel of that number, from left to right and top to bottom.

        Args:
            figure: made by `figure`.
            index: from 0.
            bottom: inches from the panel's lower edge to that of these axes.
            height: inches; the panel's by default.
        """
        row, column = divmod(index, self.across)
        x = self._start + self.left + column * (self.width + self.gap)
        rows_below = self.down - 1 - row
        y = self._key + self.below + rows_below * (self.above + self.height + self.below) + bottom
        tall = self.height if height is None else height
        wide, high = self.size
        return figure.add_axes((x / wide, y / high, self.width / wide, tall / high))

    def add_scale(self, figure: Figure, image: AxesImage, label: str) -> None:
        """The scale of the colours, at the right of the panels."""
        wide, high = self.size
        tall = min(2.2, high - HEADING - self._key - self.above - self.below)
        x = self._start + self._content - 0.8
        y = (high - HEADING - self._key - tall) / 2 + self._key
        axes = figure.add_axes((x / wide, y / high, 0.13 / wide, tall / high))
        bar = figure.colorbar(image, cax=axes)
        bar.set_label(label, fontsize=8.5)
        axes.tick_params(labelsize=SMALL, length=2)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def layer_colours(layers: Iterable[int]) -> dict[int, Colour]:
    """One colour per layer, from dark to light as depth grows; none is too light on white."""
    ordered = sorted(set(layers))
    last = max(ordered, default=0)
    return {layer: _viridis(layer / last if last else 0.0) for layer in ordered}


def layer_handles(layers: Iterable[int]) -> list[Line2D]:
    """Legend entries that say which colour is which layer; of many layers, some."""
    colours = layer_colours(layers)
    step = ceil(len(colours) / LARGEST_LEGEND)
    return [
        Line2D([], [], color=colour, linewidth=3, label=f"layer {layer}")
        for layer, colour in list(colours.items())[::step]
    ]


def heatmap(
    axes: Axes,
    shares: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: list[list[str]] | None = None,
    signed: bool = False,
) -> AxesImage:
    """Draw numbers from 0 to 1, or from -1 to 1, as coloured cells.

    Args:
        axes: where to.
        shares: (rows, columns); NaN is left blank, with a dash.
        rows: labels from top to bottom.
        columns: labels from left to right.
        notes: what is written into each cell; nothing by default.
        signed: negative numbers are red.
    """
    colours, lowest = ("RdBu", -1) if signed else ("Blues", 0)
    image = axes.imshow(shares, cmap=colours, vmin=lowest, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), [literal(name) for name in columns], fontsize=SMALL)
    axes.set_yticks(range(len(rows)), [literal(name) for name in rows], fontsize=SMALL + 1)
    axes.tick_params(length=0)
    axes.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, color="white", lw=0.8)
    axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, color="white", lw=0.8)
    axes.spines[:].set_visible(False)
    if notes is not None:
        for row, column in np.ndindex(*shares.shape):
            share = float(shares[row, column])
            text = MISSING if np.isnan(share) else notes[row][column]
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=SMALL,
                linespacing=1.1,
                color=ink(share),
            )
    return image


def ink(share: float) -> str:
    """Colour of what is written on a cell of that number."""
    return "white" if abs(share) > 0.6 else "black"


def details(axes: Axes, row: int, column: int, lines: Sequence[str], share: float) -> None:
    """A number in a cell of a heatmap, and under it small lines that say more."""
    rest = "\n".join(lines[1:])
    common: dict[str, Any] = {"ha": "center", "va": "center", "color": ink(share)}
    axes.text(column, row - 0.14 * len(lines[1:]), lines[0], fontsize=SMALL, **common)
    if rest:
        axes.text(column, row + 0.17, rest, fontsize=SMALL - 2, linespacing=1.15, **common)


def outline(axes: Axes, row: int, column: int) -> None:
    """Frame one cell of a heatmap."""
    frame = Rectangle(
        (column - 0.47, row - 0.47),
        0.94,
        0.94,
        fill=False,
        edgecolor="#d95f02",
        linewidth=1.6,
        zorder=3,  # over the lines between the cells
    )
    axes.add_patch(frame)


def light_axes(axes: Axes) -> None:
    """A quiet frame and grid for curves and bars."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL + 0.5)


def two_digits(share: float) -> str:
    """'.07', '.98', '1.00', '-.05' with a real minus."""
    text = f"{share:z.2f}".replace("-", MINUS)
    return text.replace("0.", ".", 1) if text.lstrip(MINUS).startswith("0.") else text


def distinct(table: pd.DataFrame, column: str) -> list[Any]:
    """What stands in a column, once each, in the order of the rows, as plain Python objects."""
    return list(dict.fromkeys(table[column].tolist()))


def literal(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _viridis(share: float) -> Colour:
    """The colour map without its lightest end."""
    red, green, blue, alpha = matplotlib.colormaps["viridis"](0.9 * share)
    return float(red), float(green), float(blue), float(alpha)
