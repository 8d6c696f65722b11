"""What the test of a claim says, and what it reads the numbers of finished cells with.

A claim is one preset in `conf/experiment/papers/` and one file in `published/`, both called by its
name. The preset says what the paper says; the file has the test, a function of the finished cells
of one seed of problems:

    @CLAIMS.register("mine_2026")
    def mine(runs: Runs) -> list[Part]:
        row = largest(rows(runs, "evidence", value="b-c"), "slope")
        slope = measured(row, "slope")
        return [Part("answers follow b-c in some layer", slope, slope.low > 0, where=layer_of(row))]

A plugin registers one of its own in the same way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mech_arith.evidence.results import RunResult
from mech_arith.evidence.verdicts import LEAST_CEILING
from mech_arith.interventions.controls import TARGET
from mech_arith.statistics.independent import Difference, Measured, difference
from mech_arith.statistics.intervals import Resampling, share_interval

LEVEL = 0.95
"""Of the intervals that are compared."""

Runs = Sequence[RunResult]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One thing that a claim says, by the cells of one seed."""

    says: str
    """The same words for every seed."""
    number: Measured | None
    """What decides it."""
    holds: bool | None
    """None where it could not be tested."""
    beside: Mapping[str, float | None] = field(default_factory=dict)
    """Floor, ceiling, controls and rivals, by name."""
    where: str = ""
    """As 'layer 16'."""
    why: str = ""
    """Why it could not be tested."""


Test = Callable[[Runs], list[Part]]


NOTHING_EDITED = "nothing was edited for the value"
"""Or no value is called so."""


def share(row: Row, name: str, n: str) -> Measured:
    """A share of problems that has no interval in the table, with that of so many problems."""
    hits = torch.zeros(int(row[n]), dtype=torch.float64)
    hits[: round(float(row[name]) * len(hits))] = 1.0
    found = share_interval(hits, Resampling(level=LEVEL))
    return Measured(number=float(row[name]), low=float(found.low), high=float(found.high))


def untested(why: str, *says: str) -> list[Part]:
    """Parts that these cells cannot decide."""
    return [Part(part, None, None, why=why) for part in says]


def cells_of(runs: Runs, **fields: object) -> list[RunResult]:
    """The runs whose cell has these fields, as tracing='pca'."""
    return [
        run
        for run in runs
        if all(run.summary["cell"].get(name) == entry for name, entry in fields.items())
    ]


def rows(runs: Runs, table: str, **columns: object) -> list[Row]:
    """The rows of a table of all these runs in which columns have these entries."""
    every = (
        row
        for run in runs
        if table in run.tables
        for row in run.tables[table].to_dict(orient="records")
    )
    return [
        {str(name): entry for name, entry in row.items()}
        for row in every
        if all(row.get(name) == entry for name, entry in columns.items())
    ]


def targets(runs: Runs, table: str, **columns: object) -> list[Row]:
    """The same, of what was edited and of no control."""
    return rows(runs, table, arm=TARGET, **columns)


def known(row: Row, name: str) -> float | None:
    """A number of a row; None where there is none."""
    entry = row.get(name)
    return float(entry) if isinstance(entry, int | float) and math.isfinite(entry) else None


def largest(found: Sequence[Row], name: str) -> Row | None:
    """The row with the largest number; None where no row has one. Of equal ones the first."""
    having = [row for row in found if known(row, name) is not None]
    return max(having, key=lambda row: row[name]) if having else None


def first_number(found: Sequence[Row], name: str) -> float | None:
    """The number of the first row that has one, as of a control's."""
    return next((x for row in found if (x := known(row, name)) is not None), None)


def measured(row: Row, name: str) -> Measured:
    """A number of a row and the ends of its interval; NaN for what is not known."""
    number, low, high = (
        math.nan if (entry := known(row, f"{name}{end}")) is None else entry
        for end in ("", "_low", "_high")
    )
    return Measured(number=number, low=low, high=high)


def size(found: Measured) -> Measured:
    """The same without its sign, which is an accident of the fit."""
    if found.number >= 0:
        return found
    return Measured(number=-found.number, low=-found.high, high=-found.low)


def exact(number: float) -> Measured:
    """A number that has no interval."""
    return Measured(number=number, low=number, high=number)


def larger(a: Measured, b: Measured) -> Difference:
    """How far `a` is above `b`, with its interval; the two count as independent."""
    return difference(b, a, level=LEVEL)


def most(*controls: float | None) -> float:
    """The largest of those that are known, 0 at least."""
    return max((x for x in controls if x is not None), default=0.0)


def where_carried(found: Sequence[Row], ceiling: str = "ceiling") -> Row | None:
    """The row of the site that carries most: the largest ceiling, if it is one to speak of.

    A ceiling is that of the whole activation, whatever a method finds in it.
    """
    best = largest(found, ceiling)
    return best if best is not None and best[ceiling] >= LEAST_CEILING else None


NOT_CARRIED = f"no site's whole activation carries the value (ceiling below {LEAST_CEILING:g})"
"""Why no subspace of it can."""


def layer_of(row: Row, *, rank: bool = False) -> str:
    """'layer 16', or 'layer 16, rank 4'."""
    return f"layer {int(row['layer'])}" + (f", rank {int(row['rank'])}" if rank else "")
