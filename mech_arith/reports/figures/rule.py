"""Which numbers a figure shows as found, and which as what may be chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mech_arith.evidence.verdicts import agree

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A number of a table's row, and the columns that say how sure it is."""

    number: str
    low: str = ""
    high: str = ""
    """Columns of its interval's ends."""
    p: str = ""
    counts: str = ""
    """The column that says whether it counts, where the table has one."""


def counts(row: Row, claim: Claim) -> bool:
    """Whether the number counts. A number without a p or an interval counts."""
    if claim.counts:
        known = row.get(claim.counts)
        return known is not None and known is not pd.NA and bool(known)
    return not claim.p or agree(row.get(claim.p), row.get(claim.low))


def number_of(row: Row, name: str) -> float:
    """NaN where the row has no such column, or nothing in it."""
    number = row.get(name)
    return float("nan") if number is None or number is pd.NA else float(number)
