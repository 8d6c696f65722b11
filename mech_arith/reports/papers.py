"""What a figure has to fit: file formats, and the widths of the columns of common venues."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from mech_arith.common.errors import UserError, unknown

PNG = "png"

FORMATS = (PNG, "pdf", "svg")

WIDTHS = {
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 3.25,
    "icml_wide": 6.75,
    "acl": 7.7 / 2.54,
    "acl_wide": 16 / 2.54,
    "nature": 89 / 25.4,
    "nature_wide": 183 / 25.4,
}
"""Inches of a column, or (`wide`) of both columns.

Sources: the style files and author instructions of NeurIPS, ICLR (text of 5.5 in), ICML (text of
6.75 in, columns 0.25 in apart), *ACL (columns of 7.7 cm, 0.6 cm apart) and Nature (89 and 183 mm,
text from 5 to 7 points; research-figure-guide.nature.com).
"""

NARROWEST, WIDEST = 2.0, 40.0
"""Inches that a figure may be wide."""


@dataclass(frozen=True)
class Page:
    """How the figures of a cell are saved."""

    formats: tuple[str, ...] = (PNG,)
    width: float | None = None
    """Inches; None for as wide as a figure needs."""
    title: bool = True
    """Whether a figure has its title and the line under it. A paper has a caption instead."""


def page(formats: Any, width: Any, *, title: bool) -> Page:
    """The page that a user asks for.

    Args:
        formats: one or a list of the names among `FORMATS`.
        width: a name among `WIDTHS`, inches, or None.
        title: whether figures have one.

    Raises:
        UserError: there is no such format or width.
    """
    formats = list(formats) if isinstance(formats, list | tuple) else [formats]
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", name, FORMATS)
    if not formats:
        raise UserError(f"expected at least one of the figure formats {FORMATS}, got none")
    return Page(tuple(dict.fromkeys(formats)), _inches(width), title)


def with_png(on: Page) -> Page:
    """The same page with a PNG file of each figure, which W&B and the terminal show."""
    return replace(on, formats=tuple(dict.fromkeys([PNG, *on.formats])))


def _inches(width: Any) -> float | None:
    if width is None:
        return None
    if isinstance(width, str) and width in WIDTHS:
        return WIDTHS[width]
    try:
        inches = float(width) if not isinstance(width, bool) else float("nan")
    except (TypeError, ValueError):
        raise unknown("figure width", width, [*WIDTHS, "a number of inches"]) from None
    if not (isfinite(inches) and NARROWEST <= inches <= WIDEST):
        raise UserError(
            f"expected a figure width from {NARROWEST:g} to {WIDEST:g} inches, got {width}; give "
            f"inches or one of: {', '.join(WIDTHS)}"
        )
    return inches
