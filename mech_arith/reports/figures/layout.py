"""How much room a figure has: as much as it needs, or the column of a paper.

A figure for a column of `width` inches is laid out in fewer and smaller panels on a sheet of
`width / SHRUNK` inches, which is then made smaller as a whole, with its text.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mech_arith.reports.papers import Page

log = logging.getLogger(__name__)

WIDEST = 13.0
"""Inches that panels side by side may take without a page; more go below."""

SHRUNK = 0.8
"""A sheet on a page, of its size as it is laid out: numbers of 7.5 points become 6."""

TALLEST = 9.0
"""Inches that a figure on a page may be high: about what a page of text is."""

MOST_SHRUNK = 2 / 3
"""No figure is made smaller than that: its numbers have 5 points."""

LEAST_POINTS = 5.0
"""No text on a page is smaller."""

_PAGE: ContextVar[Page] = ContextVar("page", default=Page())  # noqa: B039  # it is frozen


@contextmanager
def laid_out(on: Page) -> Iterator[None]:
    """Draw all figures within for that page."""
    token = _PAGE.set(on)
    try:
        yield
    finally:
        _PAGE.reset(token)


def on_page() -> bool:
    """Whether the figure has to fit a width."""
    return _PAGE.get().width is not None


def has_title() -> bool:
    """Whether the figure has its title, and the line under it."""
    return _PAGE.get().title


def room() -> float:
    """Inches that a figure may be wide as it is laid out."""
    width = _PAGE.get().width
    return WIDEST if width is None else width / SHRUNK


def fitting(width: float, left: float, *, gap: float = 0.25, right: float = 0.25) -> int:
    """How many panels of that width stand side by side, with `left` and `right` beside them."""
    return max(1, int((room() - left - right + gap + 1e-9) / (width + gap)))


def scale_of(wide: float, high: float) -> float:
    """By how much a sheet that is laid out on so many inches is made smaller."""
    width = _PAGE.get().width
    if width is None:
        return 1.0
    if width / wide < MOST_SHRUNK - 1e-9:
        log.warning(
            "a figure needs %.2f inches and the page has %.2f: it is drawn wider than the page; "
            "choose a wider one with figures.width",
            wide * MOST_SHRUNK,
            width,
        )
    scale = min(max(width / wide, MOST_SHRUNK), SHRUNK)
    if high * scale > TALLEST:
        log.warning(
            "a figure of %.2f inches is %.1f inches high, more than a page; choose a larger "
            "figures.width, or trace fewer layers",
            width,
            high * scale,
        )
    return scale
