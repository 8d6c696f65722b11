"""Every column of the evidence that a report shows, named once: the page's tables, legends and
figures and the comparison of two runs are made from this list.

A column of which a run has no number is not shown: a new one needs an entry here and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from mech_arith.judging import Standing, standing


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number of the evidence, and what stands beside it."""

    name: str
    """In the table of evidence."""
    title: str
    about: str
    """What the number is, for the legend."""
    low: str | None = None
    high: str | None = None
    """Columns with the ends of its interval."""
    p: str | None = None
    """Column with its p, corrected for all tests of the cell."""
    null: float | str | None = None
    """What the number is by chance, or the column that says it; None where nobody knows."""
    is_size: bool = False
    """Shown without its sign, which is an accident of the fit."""
    beside: tuple[tuple[str, str], ...] = ()
    """Words and columns of numbers that are read with it."""
    given: str | None = None
    """Column with the value that is held fixed."""
    why: str | None = None
    """Column that says why there is no number."""
    is_text: bool = False
    is_headline: bool = False
    """Shown for each value in the table of all cells."""
    is_drawn: bool = False
    """Drawn by layer, as a share of 1."""
    is_compared: bool = False
    """Subtracted where two runs stand side by side."""

    is_of_edits: bool = False
    """Depends on which edits and strengths were tried."""

    @property
    def shown(self) -> str:
        """The name of what is shown."""
        return f"abs_{self.name}" if self.is_size else self.name

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column of numbers that it is shown with."""
        null = self.null if isinstance(self.null, str) else None
        names = (self.name, self.low, self.high, self.p, null, *(name for _, name in self.beside))
        return tuple(name for name in names if name and not (self.is_text and name == self.name))

    @property
    def texts(self) -> tuple[str, ...]:
        """Every column of text that it is shown with."""
        own = self.name if self.is_text else None
        return tuple(name for name in (own, self.given, self.why) if name)


def _contrast(prefix: str, directions: str, about: str, *, is_headline: bool = False) -> Column:
    """What an edit costs beyond directions of one kind, moved as far."""
    return Column(
        name=f"{prefix}excess_drop",
        title=f"drop beyond {directions}",
        about=f"{about}, moved as far; mean over all strengths. p: the largest of all targets "
        "under their controls",
        low=f"{prefix}excess_low",
        high=f"{prefix}excess_high",
        p=f"{prefix}excess_p_max",
        null=0.0,
        beside=(("edited", "target_drop"), ("control", f"{prefix}control_drop")),
        is_headline=is_headline,
        is_compared=True,
        is_of_edits=True,
    )


EVIDENCE = (
    Column(name="verdict", title="verdict", about="what all numbers say together", is_text=True),
    Column(
        name="r",
        title="|R|",
        about="correlation of the coordinate with the value, on the report split; p: Holm's",
        low="r_low",
        high="r_high",
        p="p_holm",
        null=0.0,
        is_size=True,
        beside=(("untrained", "twin_abs_r"), ("p of the site's largest", "p_site_holm")),
        is_headline=True,
        is_drawn=True,
        is_compared=True,
    ),
    Column(
        name="agreement",
        title="answers that follow",
        about="share of edited answers that equal the answer with the value replaced. Floor: by "
        "chance, with other values; ceiling: the whole activation is replaced. p: against the "
        "floor, Holm's",
        low="agreement_low",
        high="agreement_high",
        p="agreement_p_holm",
        null="floor",
        beside=(("floor", "floor"), ("ceiling", "ceiling")),
        is_headline=True,
        is_drawn=True,
        is_compared=True,
    ),
    Column(
        name="slope",
        title="slope",
        about="change of the answer for each unit by which the answer that follows the value "
        "would change: 1 follows wholly",
        low="slope_low",
        high="slope_high",
        null="slope_floor",
        beside=(("floor", "slope_floor"),),
        is_headline=True,
        is_drawn=True,
        is_compared=True,
    ),
    _contrast("", "random directions", "accuracy lost beyond random directions", is_headline=True),
    _contrast("span_", "the components' span", "accuracy lost beyond directions of that span"),
    _contrast("valueless_", "directions without value", "accuracy lost beyond such directions"),
    Column(
        name="least_partial_r",
        title="least |R|, another value held fixed",
        about="the least that is left of |R| where one other value is held fixed",
        is_size=True,
        given="least_partial_given",
    ),
    Column(
        name="partial_r",
        title="R, all others held fixed",
        about="what is left of R where all other values are held fixed",
        why="partial_r_undefined",
    ),
    Column(
        name="shapley",
        title="share of the variance",
        about="the value's Shapley share of the coordinate's variance",
    ),
)
"""In the order in which they are shown."""

Row = Mapping[str, Any]


def known(row: Row, name: str | None) -> float | None:
    """A row's number; None where it has none."""
    number = row.get(name) if name else None
    return float(number) if isinstance(number, int | float) and isfinite(number) else None


def judged(row: Row, column: Column) -> Standing:
    """Whether a row's number is a finding."""
    if known(row, column.name) is None:
        return "not judged"
    null = known(row, column.null) if isinstance(column.null, str) else column.null
    p, low, high = (known(row, name) for name in (column.p, column.low, column.high))
    return standing(p=p, low=low, high=high, by_chance=null)
