"""Which numbers a figure shows as found, and which as what may be chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from mech_arith.statistics import ALPHA

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A number of a table's row, and the columns that say how sure it is."""

    number: str
    low: str = ""
    high: str = ""
    """Columns of its interval's ends."""
    p: str = ""
    floor: str = ""
    """Column of what the number is without any effect; 0 where the row has none."""
    either_way: bool = False
    """Whether a number below the floor is a finding too."""


def counts(row: Row, claim: Claim) -> bool:
    """Whether the number stands: its p is at most ALPHA and its interval is above the floor.

    Both must agree. A p that could not be had is none; of a column that the row does not have at
    all, nothing is asked.
    """
    low, high = number_of(row, claim.low), number_of(row, claim.high)
    floor = number_of(row, claim.floor)
    nothing = 0.0 if isnan(floor) else floor
    above, below = not low <= nothing, not high >= nothing  # also of an end that is not known
    if not (above or (claim.either_way and below)):
        return False
    return claim.p not in row or number_of(row, claim.p) <= ALPHA


def number_of(row: Row, name: str) -> float:
    """NaN where the row has no such column, or nothing in it."""
    number = row.get(name)
    return float("nan") if number is None or number is pd.NA else float(number)
