"""Every column of the evidence that a report shows, named once: the page's tables, legends and
figures and the comparison of two runs are made from this list.

A column of which a run has no number is not shown: a new one needs an entry here and nothing else.
Whether a number counts is not decided here: `verdicts` does, and the evidence says it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any


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
    counts: str | None = None
    """Column that says whether the number is a finding; see `verdicts`."""
    null: str | None = None
    """Column with what the number is by chance."""
    is_size: bool = False
    """Shown without its sign, which is an accident of the fit."""
    beside: tuple[tuple[str, str], ...] = ()
    """Words and columns of numbers that are read with it."""
    said: tuple[str, str] | None = None
    """A word and a column of text that is read with it."""
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
        beside = (name for _, name in self.beside)
        names = (self.name, self.low, self.high, self.p, self.null, *beside)
        return tuple(name for name in names if name and not (self.is_text and name == self.name))

    @property
    def texts(self) -> tuple[str, ...]:
        """Every column of text that it is shown with."""
        own = self.name if self.is_text else None
        said = self.said[1] if self.said else None
        return tuple(name for name in (own, said, self.why) if name)


EVIDENCE = (
    Column(
        name="verdict",
        title="verdict",
        about="what all numbers say together: whether the component holds the value ('with b': it "
        "is b's as well), and whether the answer is computed from it",
        why="untold",
        is_text=True,
        is_headline=True,
    ),
    Column(
        name="r",
        title="|R|",
        about="correlation of the coordinate with the value, on the report split; p: Holm's",
        low="r_low",
        high="r_high",
        p="p_holm",
        counts="r_counts",
        null="untrained_abs_r",
        is_size=True,
        beside=(("untrained", "untrained_abs_r"), ("p of the site's largest", "p_site_holm")),
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
        counts="agreement_counts",
        null="floor",
        beside=(("floor", "floor"), ("random", "agreement_random"), ("ceiling", "ceiling")),
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
        counts="slope_counts",
        null="slope_random",
        beside=(
            ("random", "slope_random"),
            ("span", "slope_span"),
            ("valueless", "slope_valueless"),
        ),
        is_headline=True,
        is_drawn=True,
        is_compared=True,
    ),
    Column(
        name="excess_drop",
        title="drop beyond drawn directions",
        about="accuracy that the edit costs beyond drawn directions, moved as far; mean over all "
        "strengths. Of random directions, of directions in the components' span and of ones there "
        "that carry no value the kind that it exceeds with the least certainty. p: the largest of "
        "all targets under their controls",
        low="excess_low",
        high="excess_high",
        p="excess_p_max",
        counts="excess_counts",
        beside=(
            ("edited", "target_drop"),
            ("control", "control_drop"),
            ("beyond random", "excess_random_drop"),
            ("span", "excess_span_drop"),
            ("valueless", "excess_valueless_drop"),
        ),
        said=("beyond", "excess_against"),
        is_headline=True,
        is_compared=True,
        is_of_edits=True,
    ),
    Column(
        name="least_partial_r",
        title="least |R|, another value held fixed",
        about="the least that is left of |R| where one other value is held fixed",
        is_size=True,
        said=("given", "least_partial_given"),
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


def judged(row: Row) -> dict[str, str]:
    """Of each column that is judged whether its number is a finding or may be chance."""
    said = {column.name: row.get(column.counts) for column in EVIDENCE if column.counts}
    words = {True: "finding", False: "chance"}
    return {name: words[bool(counts)] for name, counts in said.items() if _is_truth(counts)}


def verdict(row: Row) -> str:
    """What a row's numbers say together, in few words; '' in a run of an earlier version."""
    if not _is_truth(row.get("held")):
        return ""
    if not row["held"]:
        return "not held"
    held = f"with {row['shared_with']}" if row.get("shared_with") else "held"
    if not _is_truth(row.get("used")):
        return f"{held}, use unknown"
    return f"{held}, {'used' if row['used'] else 'not used'}"


def _is_truth(entry: Any) -> bool:
    """Whether it is true or false: a table may hold numpy's, or 1.0 beside what is missing."""
    return entry is not None and entry in (True, False)
