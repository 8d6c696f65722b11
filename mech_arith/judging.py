"""The one rule of which numbers count as findings; whoever prints a number in grey or bold asks it.

It needs nothing but the numbers, so that a report does not load what computed them.
"""

from typing import Literal

ALPHA = 0.05
"""Adjusted p up to which a finding counts as one."""

Standing = Literal["finding", "chance", "not judged"]


def standing(
    *,
    p: float | None = None,
    low: float | None = None,
    high: float | None = None,
    by_chance: float | None = None,
) -> Standing:
    """Whether a number is a finding: its p and its interval have to agree.

    Args:
        p: adjusted for all tests that were made; None where there was no test.
        low: end of its interval, if it has one.
        high: the other end.
        by_chance: what the number would be by chance; None where nobody knows.

    Returns:
        'chance' if p is above `ALPHA` or the interval holds what chance gives; 'not judged' if
        there is neither a p nor an interval beside a number of chance; else 'finding'.
    """
    judged = p is not None
    if p is not None and p > ALPHA:
        return "chance"
    if low is not None and high is not None and by_chance is not None:
        if low <= by_chance <= high:
            return "chance"
        judged = True
    return "finding" if judged else "not judged"
