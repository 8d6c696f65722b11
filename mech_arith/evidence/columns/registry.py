"""The tables and their columns, and how a user adds a column of their own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from mech_arith.common import registry
from mech_arith.common.errors import UserError
from mech_arith.evidence.columns.base import NUMBER, Column, Columns
from mech_arith.evidence.columns.cells import PROBLEMS
from mech_arith.evidence.columns.edits import (
    CONTRASTS,
    CONTROL_DRAWS,
    COUNTERFACTUAL,
    EFFECTS,
    OFF_DISTRIBUTION,
    SPECIFICITY,
)
from mech_arith.evidence.columns.evidence import EVIDENCE, PAGE_ORDER
from mech_arith.evidence.columns.shared import MADE_BY
from mech_arith.evidence.columns.tracing import CORRELATIONS, LOCALITY, LOCALITY_CURVES

_BUILT_IN: dict[str, Columns] = {
    "problems": PROBLEMS,
    "correlations": CORRELATIONS,
    "effects": EFFECTS,
    "contrasts": CONTRASTS,
    "control_draws": CONTROL_DRAWS,
    "counterfactual": COUNTERFACTUAL,
    "specificity": SPECIFICITY,
    "off_distribution": OFF_DISTRIBUTION,
    "locality": LOCALITY,
    "locality_curves": LOCALITY_CURVES,
    "evidence": EVIDENCE,
}

TABLES: dict[str, Columns] = {name: (*own, *MADE_BY) for name, own in _BUILT_IN.items()}
"""The tables of a cell, by the names of their files."""

RENAMED_WORDS = {"iia": "agreement"}
"""Beginning of a column's name -> the same in runs of earlier versions."""

RENAMED_TABLES: dict[str, str] = {"manifold": "off_distribution"}
"""Name of a table in runs of earlier versions -> its name today."""

_OWN: dict[str, dict[str, Column]] = {}
"""Columns that users have registered, by table and name."""


def register_column(table: str, column: Column) -> None:
    """Add a column to a table, computed from each finished row by `column.of`.

    A column of the same name that was registered before is replaced.

    Raises:
        UserError: there is no such table, the name is taken or no name, or `of` is missing.
    """
    if table not in TABLES:
        raise UserError(f"expected a table of {', '.join(TABLES)}, got {table!r}; name one of them")
    if column.of is None:
        raise UserError(
            f"expected a function of a row as `of` of the column {column.name!r}, got none; give it"
        )
    add_column(table, column)
    registry.registered.append(f"column {column.name!r} of {table}")


def add_column(table: str, column: Column) -> None:
    """Add a column that is computed here, or was computed where a table was written."""
    taken = {one.name for one in (*_BUILT_IN[table], *MADE_BY)}
    if column.name in taken or not column.name.isidentifier():
        raise UserError(
            f"expected a new name in letters, digits and _ for a column of {table}, got "
            f"{column.name!r}; choose another"
        )
    own = _OWN.setdefault(table, {})
    own[column.name] = replace(column, about=column.about or column.meaning.removesuffix("."))
    TABLES[table] = (*_BUILT_IN[table], *own.values(), *MADE_BY)


def own_columns(table: str) -> Columns:
    """The columns that users have added to a table."""
    return tuple(_OWN.get(table, {}).values())


def shown_columns() -> Columns:
    """The columns of the evidence that have a label, in the order of the page."""
    order = {name: place for place, name in enumerate(PAGE_ORDER)}
    labelled = [column for column in TABLES["evidence"] if column.label]
    return tuple(sorted(labelled, key=lambda column: order.get(column.name, len(order))))


def completed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that are computed from its rows, unless they are there.

    Raises:
        UserError: the function of a column fails at a row.
    """
    for column in TABLES[name]:
        if column.of is not None and column.name not in table and len(table):
            try:
                entries = [column.of(row) for row in table.to_dict(orient="records")]
                kind = float if column.kind is NUMBER else object
                computed = pd.Series(entries, table.index, dtype=kind)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(
                    f"expected `of` of the column {column.name!r} to take every row of {name}, got "
                    f"{reason}; change the function"
                ) from error
            table = table.assign(**{column.name: computed})
    return table


GROUPS = ("best", "largest_drop", "excess_drop", "counterfactual", "verdicts", "missing")
"""Groups of a summary that name columns of tables."""


def table_name(name: str) -> str:
    """Today's name of a table."""
    return RENAMED_TABLES.get(name, name)


def in_todays_words(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary whose numbers of tables have the names that their columns have today."""
    names: dict[str, str] = {}
    for columns in TABLES.values():
        names |= earlier_names(columns)
    if not names:
        return summary
    return {
        name: _renamed(entry, names) if name in GROUPS else entry for name, entry in summary.items()
    }


def _renamed(entry: Any, names: Mapping[str, str]) -> Any:
    """Of each value's entry, and of the row in it."""
    if not isinstance(entry, Mapping):
        return entry
    today = {name: _renamed(inner, names) for name, inner in entry.items()}
    return {
        names.get(name, name) if names.get(name) not in today else name: inner
        for name, inner in today.items()
    }


def earlier_names(columns: Columns) -> dict[str, str]:
    """Name in tables of earlier versions -> the column's name today."""
    found = {earlier: column.name for column in columns for earlier in column.was}
    for column in columns:
        for today, before in RENAMED_WORDS.items():
            if column.name == today or column.name.startswith(f"{today}_"):
                found[column.name.replace(today, before, 1)] = column.name
    return found
