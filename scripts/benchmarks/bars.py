"""Rows of the calibration's table: what was found, what it is held to, and whether it holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from mech_arith.statistics import ALPHA

COVERED = (0.93, 0.97)
"""The share of 95% intervals that are to hold the truth."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    n: int
    """Models, tests or simulated cases."""
    found: str
    bar: str
    """What is expected; empty for a number that is shown beside others."""
    met: bool

    @property
    def verdict(self) -> str:
        """In one word."""
        if not self.bar:
            return ""
        return "ok" if self.met else "MISSED"


def at_least(what: str, hits: int, n: int, *, of: float = 1.0, note: str = "") -> Row:
    """A count that is to reach a share of n."""
    return Row(what, n, f"{hits}{note}", f">= {of * n:g}", hits >= of * n)


def never(what: str, hits: int, n: int, *, note: str = "") -> Row:
    """A count that is to be 0."""
    return Row(what, n, f"{hits}{note}", "0", hits == 0)


def at_most(what: str, hits: int, n: int, *, alpha: float = ALPHA, note: str = "") -> Row:
    """A count of false positives: within the 95% binomial interval around `alpha`, or below."""
    most = int(binom.ppf(1 - ALPHA / 2, n, alpha))
    return Row(
        what, n, f"{hits} ({hits / n:.3f}){note}", f"<= {most} ({most / n:.3f})", hits <= most
    )


def covering(what: str, hits: int, n: int) -> Row:
    """A count of intervals that hold the truth."""
    low, high = COVERED
    share = hits / n
    return Row(what, n, f"{share:.3f}", f"{low:.2f} .. {high:.2f}", low <= share <= high)


def holding(what: str, hits: int, n: int, *, note: str = "") -> Row:
    """A count of intervals that hold the truth, or are not given; more than asked is no fault."""
    share, least = hits / n, COVERED[0]
    return Row(what, n, f"{share:.3f}{note}", f">= {least:.2f}", share >= least)


def shown(what: str, n: int, found: str) -> Row:
    """A number without a bar."""
    return Row(what, n, found, "", True)


def print_rows(rows: Sequence[Row]) -> None:
    """As a table."""
    table = Table()
    for column in ("what", "n", "found", "expected", "verdict"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(row.what, str(row.n), row.found, row.bar, row.verdict)
    Console(width=140).print(table)


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """As JSON."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
