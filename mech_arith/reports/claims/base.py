"""What the test of a claim says, and what it reads the numbers of finished cells with.

A claim is one preset in `conf/experiment/papers/` and one file in `published/`, both called by its
name. The preset says what the paper says; the file has the test, a function of the finished cells
of one seed:

    @CLAIMS.register("mine_2026")
    def mine(runs: Runs) -> list[Part]:
        row = the_row(runs, "evidence", value="b-c", layer=2)
        slope = measured(row, "slope")
        return [Part("answers follow b-c in layer 2", slope, holds=slope.low > 0)]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mech_arith.evidence.results import RunResult
from mech_arith.evidence.verdicts import LEAST_CEILING
from mech_arith.interventions.controls import TARGET
from mech_arith.statistics.independent import Difference, Measured, difference

LEVEL = 0.95
"""Of the intervals that are compared, where a run does not say otherwise."""

Runs = Sequence[RunResult]


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


def untested(says: str, why: str, number: Measured | None = None, **more: Any) -> Part:
    """A part that these cells cannot decide."""
    return Part(says, number, None, why=why, **more)


def cells_of(runs: Runs, **fields: object) -> list[RunResult]:
    """The runs whose cell has these fields, as tracing='pca'."""
    return [
        run
        for run in runs
        if all(run.summary["cell"].get(name) == entry for name, entry in fields.items())
    ]


def rows(runs: Runs, table: str, **columns: object) -> pd.DataFrame:
    """The rows of a table of all these runs in which columns have these entries."""
    found = pd.concat([run.tables[table] for run in runs if table in run.tables] or [_NOTHING])
    for name, entry in columns.items():
        found = found[found[name] == entry] if name in found else found.iloc[:0]
    return found.reset_index(drop=True)


_NOTHING = pd.DataFrame()


def targets(runs: Runs, table: str, **columns: object) -> pd.DataFrame:
    """The same rows, of what was edited and of no control."""
    return rows(runs, table, arm=TARGET, **columns)


def measured(row: "pd.Series[Any]", name: str, low: str = "", high: str = "") -> Measured:
    """A number of a row and the ends of its interval, by default NAME_low and NAME_high."""
    ends = (row[low or f"{name}_low"], row[high or f"{name}_high"])
    return Measured(number=float(row[name]), low=float(ends[0]), high=float(ends[1]))


def larger(a: Measured, b: Measured) -> Difference:
    """How far `a` is above `b`, with its interval; the two count as independent."""
    return difference(b, a, level=LEVEL)


def where_carried(found: pd.DataFrame) -> "pd.Series[Any] | None":
    """The row of the site that carries most: the largest ceiling, if it is one to speak of.

    A ceiling is that of the whole activation, whatever a method finds in it. Of several rows of
    one site it is the first.
    """
    known = found[found["ceiling"].notna()] if "ceiling" in found else found.iloc[:0]
    if known.empty:
        return None
    best = known.loc[known["ceiling"].idxmax()]
    return best if best["ceiling"] >= LEAST_CEILING else None


NOT_CARRIED = f"no site's whole activation carries the value (ceiling below {LEAST_CEILING:g})"
"""Why no subspace of it can."""


def layer_text(row: "pd.Series[Any]") -> str:
    """'layer 16'."""
    return f"layer {int(row['layer'])}"


def entry(found: pd.DataFrame, name: str) -> float | None:
    """The one number of a column, as of a control's row; None where there is none."""
    known = found[name].dropna() if name in found else ()
    return float(known.iloc[0]) if len(known) else None
