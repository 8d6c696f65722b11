"""Sheets of panels: where a number goes on paper, in inches, and the few marks that figures need.

Matplotlib's own axes cost 20 ms each with their ticks, and a cell's figures have fifty. A panel is
a transform and the marks drawn through it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox
from matplotlib.typing import ColorType

from mech_arith.reports.figures.layout import LEAST_POINTS
from mech_arith.reports.figures.lettering import LINE, Label, Lettering, Number, width_of

DPI = 150.0

SMALL = 7.5
"""Font size of numbers inside cells and of tick labels, in points."""

NAMES = 8.5
"""Font size of what stands at an axis."""

TITLE = 9.5
"""Font size of a panel's title."""

MINUS = "\N{MINUS SIGN}"

GRID = "0.92"

Limits = tuple[Number, Number]

Row = dict[str, Any]

Corners = tuple[Number, Number, Number, Number]
"""Of a rectangle: left, bottom, right, top."""


class Sheet(Figure):
    """A figure made of panels."""

    def __init__(self, width: float, height: float, scale: float = 1.0) -> None:
        """An empty sheet, laid out on that many inches and then made smaller as a whole."""
        super().__init__(figsize=(width * scale, height * scale), dpi=DPI)
        self.scale = scale
        self.inches = self.dpi_scale_trans
        if scale != 1:
            self.inches = Affine2D().scale(scale) + self.dpi_scale_trans
        self.about: tuple[str, str] = ("", "")
        """The title and the line under it, which stand in the file even if they are not drawn."""
        self.rows: list[Row] = []
        """The numbers that are drawn; see `record`."""
        self.panels: list[Panel] = []
        self.lettering = Lettering()
        self.add_artist(self.lettering)

    def write(self, text: str, x: Number, y: Number, *, size: float, **about: Any) -> None:
        """Write at a place in inches from the lower left corner."""
        if text:
            self.letter(text=text, x=x, y=y, transform=self.inches, size=size, **about)

    def letter(self, *, size: float, **about: Any) -> Label:
        """Add a text, whose size and shift become smaller with the sheet."""
        if self.scale != 1:
            size = max(size * self.scale, LEAST_POINTS)
            across, up = about.get("shift", (0.0, 0.0))
            about["shift"] = (across * self.scale, up * self.scale)
        label = Label(size=size, **about)
        self.lettering.labels.append(label)
        return label

    def record(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Keep the numbers that are drawn, for the file of numbers beside the figure.

        Args:
            rows: one per mark or cell.
            columns: which of their entries; those that no row has are left out.
        """
        self.rows += [{name: row[name] for name in columns if name in row} for row in rows]


class Panel:
    """A rectangle of a sheet with coordinates of its own, and what is drawn in it."""

    def __init__(self, sheet: Sheet, box: Corners) -> None:
        """An empty panel.

        Args:
            sheet: what it is a part of.
            box: inches from the sheet's lower left corner: left, bottom, width, height.
        """
        self.sheet = sheet
        self.box = box
        self.x: Limits = (0.0, 1.0)
        self.y: Limits = (0.0, 1.0)
        self.title = self.x_name = self.y_name = ""
        self.x_ticks: list[tuple[Number, str]] = []
        self.y_ticks: list[tuple[Number, str]] = []
        self.labels: list[Label] = []
        """What is written into it."""
        self.lines: list[Line2D] = []
        self.bands: list[PolyCollection] = []
        self.ends: list[LineCollection] = []
        """Intervals."""
        self.blocks: list[PolyCollection] = []
        """Bars, cells of a map, shades."""
        self.cells: np.ndarray | None = None
        """The numbers of a map, a row per row."""
        self._upright_ticks = False
        self._y_size = SMALL
        self.hatched: list[tuple[int, int]] = []
        """Cells of the map, by row and column."""
        self._scale = Affine2D()
        self._to_pixels = self._scale + sheet.inches
        left, bottom, width, height = box
        self._clip = TransformedBbox(Bbox.from_bounds(left, bottom, width, height), sheet.inches)
        self.limit()
        sheet.panels.append(self)

    def limit(self, x: Limits | None = None, y: Limits | None = None) -> None:
        """Say which numbers stand at the edges; what is drawn already moves along."""
        self.x, self.y = x or self.x, y or self.y
        left, bottom, width, height = self.box
        across, along = width / (self.x[1] - self.x[0]), height / (self.y[1] - self.y[0])
        self._scale.clear().translate(-self.x[0], -self.y[0]).scale(across, along)
        self._scale.translate(left, bottom)

    def line(
        self, x: Sequence[Number] | np.ndarray, y: Sequence[Number] | np.ndarray, **style: Any
    ) -> None:
        """A line through points; `style` is Line2D's."""
        self.lines.append(self._add(Line2D(x, y, **style)))

    def points(self, x: Sequence[Number], y: Sequence[Number], **style: Any) -> None:
        """Points without a line."""
        self.line(x, y, **{"linestyle": "", "marker": "o", "markeredgewidth": 1.0} | style)

    def level(self, y: Number, **style: Any) -> None:
        """A line at a height, from edge to edge."""
        self._add(Line2D(self.x, (y, y), **{"color": "black", "linewidth": 0.8} | style))

    def upright(self, x: Number, **style: Any) -> None:
        """A line at a place, from the bottom to the top as they are by now."""
        self.lines.append(self._add(Line2D((x, x), self.y, color="black", **style)))

    def band(
        self, x: np.ndarray, low: np.ndarray, high: np.ndarray, *, colour: ColorType, alpha: float
    ) -> None:
        """The space between two lines, as far as both are known."""
        known = np.isfinite(low) & np.isfinite(high)
        pieces = np.split(np.arange(len(x)), np.flatnonzero(np.diff(known)) + 1)
        outlines = [
            np.concatenate([np.c_[x[at], low[at]], np.c_[x[at], high[at]][::-1]])
            for at in pieces
            if len(at) and known[at[0]]
        ]
        style: dict[str, Any] = {"facecolor": colour, "alpha": alpha, "linewidth": 0, "zorder": 0.5}
        self.bands.append(self._add(PolyCollection(outlines, **style)))

    def intervals(
        self, x: Iterable[Number], low: Iterable[Number], high: Iterable[Number], **style: Any
    ) -> None:
        """An upright line from each `low` to its `high`."""
        pairs = [[(at, lo), (at, hi)] for at, lo, hi in zip(x, low, high, strict=True)]
        ends = np.array(pairs, dtype=float).reshape(-1, 2, 2)  # also of none
        known = list(ends[~np.isnan(ends).any((1, 2))])
        self.ends.append(self._add(LineCollection(known, **style)))

    def rectangles(self, corners: Sequence[Corners], **style: Any) -> None:
        """Filled rectangles of left, bottom, right, top."""
        outlines = [[(x, y), (u, y), (u, v), (x, v)] for x, y, u, v in corners]
        common = {"linewidth": 0, "zorder": 0.8}
        self.blocks.append(self._add(PolyCollection(outlines, **common | style)))

    def hatch(self, cells: Sequence[tuple[int, int]], colour: str) -> None:
        """Hatch cells of a map, each given by row and column."""
        if cells:
            corners = [(c - 0.5, r - 0.5, c + 0.5, r + 0.5) for r, c in cells]
            self.rectangles(corners, facecolors="none", edgecolors=colour, hatch="//////", zorder=3)
            self.hatched += cells

    def write(self, text: str, x: Number, y: Number, *, size: float = SMALL, **about: Any) -> None:
        """Write at a place in the panel's coordinates."""
        if not text:
            return
        where = self._to_pixels
        self.labels.append(
            self.sheet.letter(text=text, x=x, y=y, transform=where, size=size, **about)
        )

    def name(self, *, title: str = "", x: str = "", y: str = "") -> None:
        """Name the panel and its axes, after their ticks are there."""
        left, bottom, width, height = self.box
        middle = left + width / 2
        if title:
            self.title = title
            above = bottom + height + 0.06
            self.sheet.write(title, middle, above, size=TITLE, along="bottom")
        if x:
            self.x_name = x
            below = bottom - 0.06 - self._room_below()
            self.sheet.write(x, middle, below, size=NAMES, along="top")
        if y:
            self.y_name = y
            lines = y.count("\n") * LINE * NAMES / 72 / 2
            before = left - 0.16 - self._room_before() - lines
            self.sheet.write(y, before, bottom + height / 2, size=NAMES, upright=True)

    def tick_x(
        self, places: Sequence[Number], names: Sequence[str], *, upright: bool = False
    ) -> None:
        """Names under places; an empty one is left out."""
        left, bottom, width, _ = self.box
        self.x_ticks = [(p, n) for p, n in zip(places, names, strict=True) if n]
        for place, name in self.x_ticks:
            x = left + width * (place - self.x[0]) / (self.x[1] - self.x[0])
            turned = {"upright": True, "across": "right"} if upright else {"along": "top"}
            self.sheet.write(name, x, bottom - 0.05, size=SMALL, **turned)
        self._upright_ticks = upright

    def tick_y(
        self, places: Sequence[Number], names: Sequence[str], *, size: float = SMALL
    ) -> None:
        """Names at the left of heights; an empty one is left out."""
        left, bottom, _, height = self.box
        self.y_ticks = [(p, n) for p, n in zip(places, names, strict=True) if n]
        self._y_size = size
        for place, name in self.y_ticks:
            y = bottom + height * (place - self.y[0]) / (self.y[1] - self.y[0])
            self.sheet.write(name, left - 0.06, y, size=size, across="right")

    def frame(self, *, x_grid: bool = True, x_named: bool = True, y_named: bool = True) -> None:
        """A quiet frame with a grid and its numbers, after the limits are set."""
        along = self.round_numbers(self.y, 4 if self.box[3] > 1 else 3)
        self.rule(self.x_ticks_at() if x_grid else [], along)
        if x_named and x_grid:
            places = self.x_ticks_at()
            self.tick_x(places, number_names(places))
        if y_named:
            self.tick_y(along, number_names(along))

    def x_ticks_at(self) -> list[float]:
        """Round numbers along x, as many as there is room for."""
        return self.round_numbers(self.x, max(2, round(self.box[2] / 0.4)))

    def rule(self, x: Sequence[Number], y: Sequence[Number]) -> None:
        """Grid lines, and the two axes."""
        grid = [[(at, self.y[0]), (at, self.y[1])] for at in x]
        grid += [[(self.x[0], at), (self.x[1], at)] for at in y]
        if grid:
            self._add(LineCollection(grid, colors=GRID, linewidths=0.8, zorder=0.2))
        (x0, x1), (y0, y1) = self.x, self.y
        corner = Line2D((x0, x0, x1), (y1, y0, y0), color="black", linewidth=0.8, zorder=5)
        self._add(corner, clipped=False)

    @staticmethod
    def round_numbers(limits: Limits, most: int) -> list[float]:
        """Round numbers between limits."""
        low, high = limits
        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(at) for at in found if low <= at <= high]

    def _room_below(self) -> float:
        """Inches that the names of the ticks take under the panel."""
        if not self.x_ticks:
            return 0.0
        if self._upright_ticks:
            return 0.02 + max(width_of(name, SMALL) for _, name in self.x_ticks)
        return (1 + max(name.count("\n") for _, name in self.x_ticks)) * LINE * SMALL / 72

    def _room_before(self) -> float:
        """Inches that the names of the ticks take left of the panel."""
        return max((width_of(name, self._y_size) for _, name in self.y_ticks), default=0.0)

    def _add(self, artist: Any, *, clipped: bool = True) -> Any:
        """Put a mark into the panel; what it was given is returned."""
        artist.set_transform(self._to_pixels)
        self.sheet.add_artist(artist)
        if clipped:
            artist.set_clip_box(self._clip)
        return artist


def number_names(numbers: Sequence[Number]) -> list[str]:
    """Numbers with as many decimals as they need, all alike, and a real minus."""
    decimals = next((d for d in range(6) if all(abs(round(n, d) - n) < 1e-9 for n in numbers)), 6)
    return [f"{number:z.{decimals}f}".replace("-", MINUS) for number in numbers]
