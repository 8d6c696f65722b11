"""The difference of two numbers of independent samples, from their intervals alone.

Each number's error on one side is the distance to that end of its interval; the errors add as
squares. Nothing but the two intervals is needed, and they may be of any kind and lopsided.

Source: Newcombe (1998), method 10, for shares; Zou (2007) for correlations with intervals on
Fisher's scale; Zou & Donner (2008) for any numbers.
"""

from dataclasses import dataclass
from math import copysign, hypot, inf, nan
from statistics import NormalDist


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number and the ends of its interval."""

    number: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one number is above another."""

    number: float
    low: float
    high: float
    """Ends of its interval, of the level of the two."""
    p: float
    """Two-sided. At most 1 - level exactly where the interval does not hold 0."""


def difference(a: Measured, b: Measured, *, level: float) -> Difference:
    """`b` minus `a`.

    Args:
        a: what is subtracted.
        b: what it is subtracted from.
        level: of the intervals of both.

    Returns:
        NaN as p where both intervals have no width.
    """
    found = b.number - a.number
    below = hypot(b.number - b.low, a.high - a.number)
    above = hypot(b.high - b.number, a.number - a.low)
    return Difference(
        number=found,
        low=found - below,
        high=found + above,
        p=_p(found, below if found > 0 else above, level),
    )


def _p(found: float, reach: float, level: float) -> float:
    """Two-sided p of a number whose interval of that level reaches so far towards 0."""
    normal = NormalDist()
    if reach == 0:
        return nan
    errors = normal.inv_cdf((1 + level) / 2) * abs(found) / reach
    return 2 * normal.cdf(copysign(errors, -1)) if errors < inf else 0.0
