"""One number of a cell, for what searches for the best cell: Optuna, or a sweep of W&B.

It is asked for as METRIC/VALUE (`excess_drop/b-c`): a headline column of the evidence, under the
name that the report shows, and a value of the expression. It is read where the summary's headlines
are: at the site with the largest |R| on the fit split, of the least rank. So a search over sites
and strengths sees numbers of the report split that nothing within the cell has chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mech_arith.common.errors import UserError, nearest
from mech_arith.evidence.columns import NUMBER, Column, shown_columns
from mech_arith.evidence.table import headline
from mech_arith.evidence.verdicts import known

EDITED, FOLLOWED = "excess_drop", "counterfactual"
"""Groups of the summary whose numbers need an edit, and one that goes the whole way to a value."""


@dataclass(frozen=True)
class Objective:
    """A headline number of one value."""

    column: Column
    value: str

    @property
    def name(self) -> str:
        """As it is asked for: METRIC/VALUE."""
        return f"{self.column.shown}/{self.value}"

    @property
    def needs_edit(self) -> bool:
        """Whether nothing is known of it where nothing is edited."""
        return self.column.group in (EDITED, FOLLOWED)

    @property
    def needs_target(self) -> bool:
        """Whether nothing is known of it unless the edit goes the whole way to another value."""
        return self.column.group == FOLLOWED

    def read(self, evidence: pd.DataFrame) -> tuple[float | None, str]:
        """The number in a cell's evidence; without one None, and why.

        Args:
            evidence: the table of a cell, as `load_run` or `Cell.run` gives it.
        """
        row = headline(evidence).get(self.value)
        if row is None:
            return None, f"the evidence has no row of {self.value}"
        number = known(row, self.column.name)
        if number is None:
            why = row.get(self.column.why) if self.column.why else ""
            return None, str(why or "the cell does not know it at the value's best site")
        return abs(number) if self.column.is_size else number, ""


def read_objective(evidence: pd.DataFrame, name: str) -> float | None:
    """The number of an objective in a cell's evidence; None where there is none.

        read_objective(load_run(directory).tables["evidence"], "abs_r/b-c")

    Args:
        evidence: the table of a cell.
        name: METRIC/VALUE.

    Raises:
        UserError: it is no METRIC/VALUE, or there is no such metric or value.
    """
    return find_objective(name, values_of(evidence)).read(evidence)[0]


def values_of(evidence: pd.DataFrame) -> tuple[str, ...]:
    """The values that a cell's evidence is about."""
    return tuple(evidence["value"].unique()) if len(evidence) else ()


def find_objective(asked: str, values: Sequence[str]) -> Objective:
    """The objective of a name.

    Args:
        asked: METRIC/VALUE.
        values: of the expression, or of the hypothesis.

    Raises:
        UserError: it is no METRIC/VALUE, or there is no such metric or value.
    """
    metrics = objective_metrics()
    metric, slash, value = asked.strip().partition("/")
    if not slash:
        raise UserError(
            f"expected objective=METRIC/VALUE, got {asked!r}; write for example "
            f"objective={next(iter(metrics))}/{values[-1] if values else 'b-c'}"
        )
    if metric not in metrics:
        raise UserError(f"unknown metric {metric!r} in objective; {nearest(metric, [*metrics])}")
    if value not in values:
        raise UserError(f"unknown value {value!r} in objective; {nearest(value, list(values))}")
    return Objective(metrics[metric], value)


def objective_metrics() -> dict[str, Column]:
    """Name -> column of the evidence: the headline numbers, those of plugins too."""
    return {
        column.shown: column
        for column in shown_columns()
        if column.is_headline and column.kind is NUMBER
    }


def objective_names(asked: Any) -> list[str]:
    """The names in `objective`: none, one or several.

    Raises:
        UserError: it is neither null, a text nor a list of distinct texts.
    """
    listed = [] if asked is None else list(asked) if isinstance(asked, list | tuple) else [asked]
    if any(not isinstance(name, str) for name in listed) or (asked is not None and not listed):
        raise UserError(
            f"expected objective=METRIC/VALUE, a list of such or null, got {asked!r}; change it"
        )
    if len(set(listed)) < len(listed):
        raise UserError(f"expected distinct objectives, got {listed}; drop the repeated ones")
    return listed
