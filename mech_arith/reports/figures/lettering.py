"""Text in figures: in fonts that have its characters, measured exactly, and drawn fast.

Matplotlib lays out and draws each text anew, in half a millisecond, and a cell's figures hold more
than a thousand. Here a string is drawn once per process and size, and then only put in its places.
"""

import contextlib
import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.transforms import Transform

log = logging.getLogger(__name__)

FAMILY = "DejaVu Sans"
"""Comes with matplotlib."""

BOX = "\N{WHITE SQUARE}"
"""Stands for a character that no installed font has."""

LINE = 1.2
"""From one line to the next, in font sizes."""

CAPITAL = 0.73
"""Height of digits and capitals, in font sizes."""

ASCENT, DESCENT = 0.76, 0.24
"""How far letters reach over and under the line that they stand on, in font sizes."""

MOST_FONTS = 300
"""Installed fonts that are searched for a character."""

CHECKED_AT = 20.0
"""Points at which it is tried whether a font can draw a character."""

Number = float | int

Mask = np.ndarray
"""(height, width), the lowest row first: how much of each pixel a text covers, of 255."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text and its place; the lines of several stand under each other."""

    text: str
    x: Number
    y: Number
    """In the coordinates of `transform`."""
    transform: Transform
    size: float
    """Points."""
    colour: str = "black"
    across: str = "center"
    """What of it stands at x: its left, center or right."""
    along: str = "center"
    """What of it stands at y: its top, center or bottom."""
    upright: bool = False
    """Whether it is turned by a quarter, to be read from below."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Inches to the right and upwards from (x, y)."""


class Lettering(Artist):
    """All the text of a figure."""

    def __init__(self) -> None:
        """Without any text yet."""
        super().__init__()
        self.labels: list[Label] = []
        self.set_zorder(10)

    def draw(self, renderer) -> None:
        """Put every text in its place."""
        context = renderer.new_gc()
        dpi = float(np.asarray(renderer.points_to_pixels(72.0)))
        for label in self.labels:
            for line, x, y in _lines(label, dpi):
                if isinstance(renderer, RendererAgg):
                    mask, left, low = _placed(line, label, x, y, renderer.dpi)
                    renderer.draw_image(context, left, low, _inked(mask, label.colour))
                elif line:  # of a file of curves, which is drawn once
                    _write(renderer, context, label, line, (x, y))
        context.restore()
        self.stale = False

    def boxes(self, dpi: float) -> list[tuple[Label, tuple[int, int, int, int]]]:
        """Where each label's ink is: left, low, right, high, in pixels from below."""
        found = []
        for label in self.labels:
            ends = []
            for line, x, y in _lines(label, dpi):
                mask, left, low = _placed(line, label, x, y, dpi)
                ends.append((left, low, left + mask.shape[1], low + mask.shape[0]))
            lefts, lows, rights, highs = zip(*ends, strict=True)
            found.append((label, (min(lefts), min(lows), max(rights), max(highs))))
        return found


def width_of(text: str, size: float) -> float:
    """Inches that the longest line of a text takes."""
    return max(_mask(drawable(line), size, 150.0)[0].shape[1] for line in text.split("\n")) / 150


def drawable(text: str) -> str:
    """`text` as it is drawn: without marks that cannot be seen, a box for what no font has."""
    if text.isascii():
        return text
    seen = "".join(c for c in text if not _invisible(c))
    lacking = [c for c in dict.fromkeys(seen) if font_of(c) is None]
    if lacking:
        _say_once(lacking)
        seen = seen.translate({ord(c): BOX for c in lacking})
    return seen


@cache
def font_of(character: str) -> Path | None:
    """A font that can draw the character: the figures' own, or an installed one; None for none."""
    if _draws(_own(), character):
        return _own()
    fonts = (path for path, covered in _coverage() if ord(character) in covered)
    return next((path for path in fonts if _draws(path, character)), None)


_REPORTED: set[str] = set()
"""Characters drawn as boxes that the log has named already."""


def _say_once(lacking: list[str]) -> None:
    """One line for the whole process, however many texts are concerned."""
    if not _REPORTED:
        log.warning(
            "figures show %s as boxes: matplotlib can draw no installed font that has %s; install "
            "one, e.g. Debian's fonts-noto-cjk for Chinese, Japanese and Korean, fonts-symbola for "
            "emoji",
            ", ".join(f"{c} (U+{ord(c):04X})" for c in lacking[:3])
            + (", ..." if lacking[3:] else ""),
            "it" if len(lacking) == 1 else "them",
        )
    _REPORTED.update(lacking)


def _invisible(character: str) -> bool:
    """Joiners and selectors of variants, which change how their neighbours look."""
    return unicodedata.category(character) in ("Cf", "Cc") or 0xFE00 <= ord(character) <= 0xFE0F


@cache
def _own() -> Path:
    return Path(font_manager.findfont(FAMILY))


@cache
def _coverage() -> list[tuple[Path, frozenset[int]]]:
    """Installed fonts with the code points that they have, the most suitable first.

    Matplotlib's own list of fonts is made once, and does not know what was installed since.
    """
    wanted = ("cjk", "emoji", "symbola", "unifont", "noto")
    special = ("bold", "italic", "oblique", "mono", "serif", "light", "thin", "black", "condensed")

    def order(path: Path) -> tuple[bool, int, str]:
        name = path.name.lower()
        unlikely = not any(word in name for word in wanted)
        return unlikely, sum(word in name for word in special), str(path)

    found = []
    for path in sorted(map(Path, font_manager.findSystemFonts()), key=order)[:MOST_FONTS]:
        with contextlib.suppress(RuntimeError, OSError, ValueError):  # not a font after all
            found.append((path, frozenset(_open(path).get_charmap())))
    return found


def _draws(path: Path, character: str) -> bool:
    """Whether the font has the character in a form that matplotlib can draw, not as a picture."""
    try:
        font = _open(path)
        if not (font.scalable and font.get_char_index(ord(character))):
            return False
        font.clear()
        font.set_size(CHECKED_AT, 72)
        font.set_text(character)
        font.draw_glyphs_to_bitmap()
    except (RuntimeError, OSError, ValueError):
        return False
    return character.isspace() or bool(np.asarray(font.get_image()).any())


@lru_cache(maxsize=64)
def _open(path: Path) -> FT2Font:
    return FT2Font(str(path))


def _paths(text: str) -> tuple[Path, ...]:
    """The fonts of a drawable text, the figures' own first."""
    own = _own()
    if text.isascii():
        return (own,)
    others = (font_of(c) for c in text)
    return tuple(dict.fromkeys([own, *(path for path in others if path is not None)]))


def _properties(text: str, size: float) -> font_manager.FontProperties:
    """The same fonts, for renderers that ask for their names."""
    paths = _paths(text)
    for path in paths[1:]:
        font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(family=[_open(p).family_name for p in paths], size=size)


@lru_cache(maxsize=8192)
def _mask(text: str, size: float, dpi: float) -> tuple[Mask, float]:
    """A drawable line of text, and how many pixels of it are under the line it stands on."""
    font = font_manager.get_font([str(path) for path in _paths(text)])
    font.clear()
    font.set_size(size, dpi)
    font.set_text(text)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return np.array(font.get_image())[::-1], font.get_descent() / 64


def _lines(label: Label, dpi: float) -> Iterable[tuple[str, float, float]]:
    """Each line with the place in pixels where its own line of writing begins, by `across`."""
    x, y = label.transform.transform((label.x, label.y))
    x, y = x + label.shift[0] * dpi, y + label.shift[1] * dpi
    size = label.size * dpi / 72
    lines = [drawable(line) for line in label.text.split("\n")]
    between = LINE * size * (len(lines) - 1)
    first = {
        "center": between / 2 - CAPITAL * size / 2,
        "top": -ASCENT * size,
        "bottom": between + DESCENT * size,
    }[label.along]
    for number, line in enumerate(lines):
        down = first - number * LINE * size
        yield (line, x - down, y) if label.upright else (line, x, y + down)


def _write(renderer, context, label: Label, line: str, place: tuple[float, float]) -> None:
    """Put a line into a file of curves as text, not as its outlines."""
    properties = _properties(line, label.size)
    angle = 90.0 if label.upright else 0.0
    x, y = place
    text = Text(x, y, line, ha=label.across, va="baseline", rotation=angle, rotation_mode="anchor")
    before = {"left": 0.0, "center": 0.5, "right": 1.0}[label.across]
    before *= renderer.get_text_width_height_descent(line, properties, ismath=False)[0]
    x, y = (x, y - before) if label.upright else (x - before, y)
    if renderer.flipy():
        y = renderer.get_canvas_width_height()[1] - y
    context.set_foreground(label.colour)
    renderer.draw_text(context, x, y, line, properties, angle, mtext=text)


def _placed(line: str, label: Label, x: float, y: float, dpi: float) -> tuple[Mask, int, int]:
    """The line's mask, and the pixel of its lower left corner."""
    mask, descent = _mask(line, label.size, dpi)
    before = {"left": 0.0, "center": 0.5, "right": 1.0}[label.across] * mask.shape[1]
    if label.upright:
        return np.rot90(mask, -1), round(x - mask.shape[0] + descent), round(y - before)
    return mask, round(x - before), round(y - descent)


def _inked(mask: Mask, colour: str) -> np.ndarray:
    """Red, green, blue and alpha of a text in that colour; the lowest row first."""
    image = np.empty((*mask.shape, 4), dtype=np.uint8)
    image[..., :3] = np.round(255 * np.array(to_rgb(colour)))
    image[..., 3] = mask
    return image
