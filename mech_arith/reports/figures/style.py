"""What all figures share: sizes, colours, panels in rows, cells with numbers in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mech_arith.reports.figures.layout import WIDEST, fitting, has_title, on_page, room, scale_of
from mech_arith.reports.figures.lettering import width_of
from mech_arith.reports.figures.sheet import MINUS, NAMES, SMALL, TITLE, Panel, Sheet, number_names

MISSING = "\N{EN DASH}"
"""Stands in the cell of a number that could not be had."""

FRAME = "#d95f02"
"""Colour of the frame around a cell."""

LAYERS = "layer (0-based)"
"""Name of an axis of layers."""

MOST_ACROSS = 5
"""Panels side by side; more go below."""

MOST_TICKS = 16
"""Of more layers than that along an axis, every second, third, ... is named."""

HEADING = 11.0
"""Font size of the title."""

KEY_ROW = 0.22
"""Height of a line of the legend."""

LINE_OF_TEXT = 0.17
"""Height of a line of small print under the title and under the legend."""

NARROWEST = 6.6
"""Width of a figure, however little is in it, unless a page has another."""

Colour = tuple[float, float, float, float]


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    label: str
    kind: Literal["line", "dashed", "dotted", "patch", "hatched", "point", "hollow", "dot", "tick"]
    colour: Any = "black"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Panels of one size in rows and columns, laid out in inches.

    Sizes in inches keep fonts and cells in proportion however many panels there are.
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
    last: float = 0.0
    """Room under the last row beyond that."""
    keys: Sequence[Sequence[Key]] = ()
    """Legends under all rows, one under the other: the entries of each."""
    notes: Sequence[str] = ()
    """Lines of small print under the legends."""
    scale: bool = False
    """Whether to keep room for a colour scale on the right."""
    title: str = ""
    subtitle: str = ""

    def sheet(self) -> Sheet:
        """A sheet of the right size with its heading and legends, and no panels yet."""
        wide, high = self.size
        sheet = Sheet(wide, high, scale_of(wide, high))
        sheet.about = self.title, self.subtitle
        y = high - 0.09
        for line in self._title:
            sheet.write(line, wide / 2, y, size=HEADING, along="top")
            y -= 0.23
        for line in self._subtitle:
            sheet.write(line, wide / 2, y, size=NAMES, colour="0.3", along="top")
            y -= LINE_OF_TEXT
        bottom = self._foot
        for row in self._key_rows:
            bottom -= _row_height(row)
            x = wide / 2 - sum(map(_key_width, row)) / 2
            for key in row:
                _draw_key(sheet, key, x, bottom + _row_height(row) / 2)
                x += _key_width(key)
        for line in self._notes:
            bottom -= LINE_OF_TEXT
            sheet.write(line, wide / 2, bottom, size=NAMES - 1, colour="0.3", along="bottom")
        return sheet

    @property
    def size(self) -> tuple[float, float]:
        """Of the sheet: wide enough for its title, too."""
        rows = self.down * (self.above + self.height + self.below) + self.last
        return self._wide, self._heading + rows + self._foot

    @property
    def _content(self) -> float:
        panels = self.across * self.width + (self.across - 1) * self.gap
        return self.left + panels + (1.0 if self.scale else 0.25)

    @cached_property
    def _wide(self) -> float:
        if on_page():
            return max(self._content, room())
        return max(self._content, NARROWEST, width_of(self.title, HEADING) + 0.4)

    @cached_property
    def _title(self) -> list[str]:
        return (wrapped(self.title, HEADING, self._wide - 0.3) or [""]) if has_title() else []

    @cached_property
    def _subtitle(self) -> list[str]:
        return wrapped(self.subtitle, NAMES, self._wide - 0.3) if has_title() else []

    @property
    def _heading(self) -> float:
        """Room for the title and the lines under it."""
        return (
            (0.15 if self._title else 0.05)
            + 0.23 * len(self._title)
            + LINE_OF_TEXT * len(self._subtitle)
        )

    @cached_property
    def _notes(self) -> list[str]:
        return [line for note in self.notes for line in wrapped(note, NAMES - 1, self._wide - 0.3)]

    @cached_property
    def _key_rows(self) -> list[list[Key]]:
        """The entries line by line, as many as fit."""
        rows: list[list[Key]] = []
        for keys in self.keys:
            rows.append([])
            for key in (_narrowed(key, self._wide - 0.2) for key in keys):
                if sum(map(_key_width, [*rows[-1], key])) > self._wide - 0.2 and rows[-1]:
                    rows.append([])
                rows[-1].append(key)
        return [row for row in rows if row]

    @property
    def _foot(self) -> float:
        """Room that the legends and the notes take."""
        taken = sum(map(_row_height, self._key_rows)) + LINE_OF_TEXT * len(self._notes)
        return taken + 0.1 if taken else 0.0

    @property
    def _start(self) -> float:
        """The left edge of what is drawn, which stands in the middle of a wider figure."""
        return (self._wide - self._content) / 2

    def panel(
        self, sheet: Sheet, index: int, *, bottom: float = 0.0, height: float | None = None
    ) -> Panel:
        """The panel of that number, from left to right and top to bottom.

        Args:
            sheet: made by `sheet`.
            index: from 0.
            bottom: inches from the panel's lower edge to that of this one.
            height: inches; the panel's by default.
        """
        row, column = divmod(index, self.across)
        x = self._start + self.left + column * (self.width + self.gap)
        under = self.down - 1 - row
        y = self._foot + self.last + self.below + bottom
        y += under * (self.above + self.height + self.below)
        return Panel(sheet, (x, y, self.width, self.height if height is None else height))

    def add_scale(
        self, sheet: Sheet, label: str, *, signed: bool = False, largest: float = 1.0
    ) -> None:
        """The scale of a map's colours, at the right of the panels; `largest` is the darkest."""
        free = self.size[1] - self._heading - self._foot
        tall = min(2.2, free - self.above - self.below)
        x = self._start + self._content - 0.8
        scale = Panel(sheet, (x, self._foot + (free - tall) / 2, 0.13, tall))
        scale.limit(y=(-1.0 if signed else 0.0, 1.0))
        edges = np.linspace(*scale.y, 65)
        colours = map_colours((edges[1:] + edges[:-1]) / 2, signed=signed)
        corners = [(0.0, low, 1.0, high) for low, high in pairwise(edges.tolist())]
        scale.rectangles(corners, facecolors=colours, antialiased=False)
        wide = 0.13
        marks = np.linspace(*scale.y, 5)
        names = number_names([float(f"{at * largest:.3g}") for at in marks])
        for at, text in zip(marks.tolist(), names, strict=True):
            y = scale.box[1] + tall * (at - scale.y[0]) / (scale.y[1] - scale.y[0])
            sheet.write(text, x + wide + 0.05, y, size=SMALL, across="left")
        sheet.write(label, x + 0.62, scale.box[1] + tall / 2, size=NAMES, upright=True)


def _key_width(key: Key) -> float:
    return 0.55 + width_of(key.label, NAMES) - (0.33 if key.kind == "tick" else 0.0)


def _narrowed(key: Key, most: float) -> Key:
    """The entry with its words on several lines, if it is wider than that."""
    if _key_width(key) <= most:
        return key
    return replace(key, label="\n".join(wrapped(key.label, NAMES, most - 0.55)))


def _row_height(row: Sequence[Key]) -> float:
    """Inches that a line of the legend takes."""
    return KEY_ROW + LINE_OF_TEXT * max(key.label.count("\n") for key in row)


def _draw_key(sheet: Sheet, key: Key, x: float, y: float) -> None:
    """The mark and the words of an entry of the legend."""
    inches: dict[str, Any] = {"transform": sheet.inches}
    ends = ([x + 0.05, x + 0.31], [y, y])
    style: dict[str, Any] = {"color": key.colour, "linewidth": 1.6}
    match key.kind:
        case "line":
            sheet.add_artist(Line2D(*ends, **style, **inches))
        case "dashed":
            sheet.add_artist(Line2D(*ends, **style | CONTROL_LINE, **inches))
        case "dotted":
            sheet.add_artist(Line2D(*ends, **style | {"linestyle": ":"}, **inches))
        case "patch" | "hatched":
            box = Rectangle((x + 0.05, y - 0.055), 0.26, 0.11, **inches)
            box.set(facecolor=key.colour, linewidth=0)
            if key.kind == "hatched":
                box.set(facecolor="white", edgecolor=key.colour, hatch="//////")
            sheet.add_artist(box)
        case "point" | "hollow" | "dot":
            size = 1.6 if key.kind == "dot" else 5.0
            inside: dict[str, Any] = {"markerfacecolor": "white"} if key.kind == "hollow" else {}
            mark = Line2D([x + 0.2], [y], marker="o", markersize=size, **inside, **style, **inches)
            mark.set_linestyle("")
            sheet.add_artist(mark)
        case "tick":
            x -= 0.33
    sheet.write(key.label, x + 0.38, y, size=NAMES, across="left")


def wrapped(text: str, size: float, room: float) -> list[str]:
    """The text in lines of at most `room` inches, broken between its parts or else its words."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]


CONTROL_LINE: dict[str, Any] = {"linestyle": (0, (3.0, 1.5)), "linewidth": 1.1}
"""How the line of a control is drawn, in a tint of its target's colour."""


def layer_colours(layers: Iterable[int]) -> dict[int, Colour]:
    """One colour per layer, from dark to light as depth grows; none is too light on white."""
    ordered = sorted(set(layers))
    last = len(ordered) - 1
    return {layer: _viridis(place / last if last else 0.0) for place, layer in enumerate(ordered)}


METHODS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours of things without an order, told apart by people who see colours differently.

Source: Okabe & Ito (2008).
"""


def method_colours(names: Sequence[str]) -> dict[str, Colour]:
    """One colour per name, in their order; more than seven share some."""
    return {name: to_rgba(METHODS[place % len(METHODS)]) for place, name in enumerate(names)}


def tint(colour: Colour, share: float = 0.45) -> Colour:
    """The colour of a control: its target's, mixed with that share of white."""
    red, green, blue = (part + share * (1 - part) for part in colour[:3])
    return red, green, blue, 1.0


def thinned(layers: Sequence[Any], most: int = MOST_TICKS) -> list[str]:
    """The names of layers along an axis; of many every second or third."""
    step = ceil(len(layers) / most)
    return [str(layer) if index % step == 0 else "" for index, layer in enumerate(layers)]


def side_by_side(
    titles: Sequence[str], wanted: float, left: float, *, least: float, gap: float = 0.25
) -> tuple[float, int]:
    """How wide panels are, and how many stand side by side; on a page they fill its width.

    Args:
        titles: of the panels, a panel each.
        wanted: width in inches, where there is room.
        left: inches beside the first panel.
        least: inches that a panel has to have on a page, beside the room for its title.
        gap: inches between panels.
    """
    if not on_page():
        return wanted, max(1, min(len(titles), MOST_ACROSS, int(WIDEST / wanted)))
    least = max(least, *(width_of(title, TITLE) - gap + 0.05 for title in titles))
    across = evenly(len(titles), min(MOST_ACROSS, fitting(least, left, gap=gap)))
    free = room() - left - 0.25 - (across - 1) * gap
    return min(wanted, free / across), across


def evenly(count: int, fitting: int) -> int:
    """How many of `count` panels stand side by side, where so many fit, in even rows."""
    return ceil(count / ceil(count / max(1, fitting)))


def map_colours(shares: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Colours of numbers from 0 to 1, or from -1 to 1; white where there is none."""
    colours = matplotlib.colormaps["RdBu" if signed else "Blues"].with_extremes(bad="white")
    clipped = np.clip(shares, -1 if signed else 0, 1)
    return colours(np.ma.masked_invalid((clipped + 1) / 2 if signed else clipped))


def heatmap(
    panel: Panel,
    shares: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: list[list[str]] | None = None,
    signed: bool = False,
    upright: bool = False,
) -> None:
    """Draw numbers from 0 to 1, or from -1 to 1, as coloured cells.

    Args:
        panel: where to.
        shares: (rows, columns); NaN is left blank, with a dash.
        rows: labels from top to bottom.
        columns: labels from left to right.
        notes: what is written into each cell; nothing by default.
        signed: negative numbers are red.
        upright: the labels of columns are read from below.
    """
    down, across = shares.shape
    panel.cells = shares
    panel.limit((-0.5, across - 0.5), (down - 0.5, -0.5))
    corners = [
        (column - 0.5, row - 0.5, column + 0.5, row + 0.5)
        for row, column in np.ndindex(down, across)
    ]
    colours = map_colours(shares, signed=signed).reshape(-1, 4)
    panel.rectangles(corners, facecolors=colours, edgecolors="white", linewidth=0.8)
    panel.tick_x(range(across), columns, upright=upright)
    panel.tick_y(range(down), rows, size=SMALL + 1)
    if notes is None:
        return
    for row, column in np.ndindex(down, across):
        share = float(shares[row, column])
        text = MISSING if np.isnan(share) else notes[row][column]
        panel.write(text, column, row, colour=ink(share))


def ink(share: float) -> str:
    """Colour of what is written on a cell of that number."""
    return "white" if abs(share) > 0.6 else "black"


def details(
    panel: Panel, row: int, column: int, lines: Sequence[str], share: float, *, faint: bool = False
) -> None:
    """A number in a cell of a heatmap, and under it small lines that say more."""
    first, rest = lines[0], "\n".join(lines[1:])
    colour = ink(share)
    if faint:
        colour = "0.85" if colour == "white" else "0.45" if abs(share) < 0.35 else "0.25"
    panel.write(first, column, row - 0.14 * len(lines[1:]), colour=colour)
    panel.write(rest, column, row + 0.17, size=SMALL - 2, colour=colour)


def outline(panel: Panel, cells: Iterable[tuple[int, int]]) -> None:
    """Frame cells of a heatmap, each given by row and column."""
    corners = [(column - 0.47, row - 0.47, column + 0.47, row + 0.47) for row, column in cells]
    panel.rectangles(corners, facecolors="none", edgecolors=FRAME, linewidth=1.6, zorder=3)


def two_digits(share: float) -> str:
    """'.07', '.98', '1.00', '-.05' with a real minus."""
    text = f"{share:z.2f}".replace("-", MINUS)
    return text.replace("0.", ".", 1) if text.lstrip(MINUS).startswith("0.") else text


def distinct(table: pd.DataFrame, column: str) -> list[Any]:
    """What stands in a column, once each, in the order of the rows, as plain Python objects."""
    return list(dict.fromkeys(table[column].tolist()))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain Python objects; faster than pandas' own by far."""
    names = [str(name) for name in table.columns]
    columns = [table[name].tolist() for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def grouped(table: pd.DataFrame, *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows as plain Python objects, by what stands in these columns."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in records(table):
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def room_for(names: Iterable[str], *, size: float = SMALL + 1, beside: float = 0.4) -> float:
    """Inches that names take at the left of a panel, and a label beside them."""
    return beside + 0.1 + max((width_of(name, size) for name in names), default=0.0)


def _viridis(share: float) -> Colour:
    """The colour map without its lightest end."""
    red, green, blue, alpha = matplotlib.colormaps["viridis"](0.82 * share)
    return float(red), float(green), float(blue), float(alpha)
