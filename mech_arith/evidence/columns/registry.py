"""The tables and their columns, and how a user adds a column of their own."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa

from mech_arith.common.errors import UserError
from mech_arith.common.registry import Registry
from mech_arith.evidence.columns.base import NUMBER, TEXTS, Column, Columns
from mech_arith.evidence.columns.cells import PROBLEMS
from mech_arith.evidence.columns.edits import (
    ANSWER_TOKENS,
    CONTRASTS,
    CONTROL_DRAWS,
    COUNTERFACTUAL,
    EFFECTS,
    OFF_DISTRIBUTION,
    SITE_CONTRASTS,
    SPECIFICITY,
)
from mech_arith.evidence.columns.evidence import EVIDENCE, PAGE_ORDER
from mech_arith.evidence.columns.hypotheses import ALIGNMENTS, HYPOTHESES
from mech_arith.evidence.columns.screen import SCREEN, SCREEN_DIRECTIONS
from mech_arith.evidence.columns.shared import MADE_BY
from mech_arith.evidence.columns.tracing import (
    CORRELATIONS,
    LEARNING,
    LOCALITY,
    LOCALITY_CURVES,
    SUBSPACES,
)

log = logging.getLogger(__name__)

OWN: Registry[Column] = Registry("column")
"""Columns that users have registered, as TABLE.NAME."""

_BUILT_IN: dict[str, Columns] = {
    "problems": PROBLEMS,
    "screen": SCREEN,
    "screen_directions": SCREEN_DIRECTIONS,
    "correlations": CORRELATIONS,
    "subspaces": SUBSPACES,
    "learning": LEARNING,
    "effects": EFFECTS,
    "contrasts": CONTRASTS,
    "control_draws": CONTROL_DRAWS,
    "counterfactual": COUNTERFACTUAL,
    "answer_tokens": ANSWER_TOKENS,
    "site_contrasts": SITE_CONTRASTS,
    "hypotheses": HYPOTHESES,
    "alignments": ALIGNMENTS,
    "specificity": SPECIFICITY,
    "off_distribution": OFF_DISTRIBUTION,
    "locality": LOCALITY,
    "locality_curves": LOCALITY_CURVES,
    "evidence": EVIDENCE,
}


class _Tables(Mapping[str, Columns]):
    """The built-in columns of each table, with those of the running cell's plugins."""

    def __getitem__(self, table: str) -> Columns:
        return (*_BUILT_IN[table], *own_columns(table), *MADE_BY)

    def __iter__(self) -> Iterator[str]:
        return iter(_BUILT_IN)

    def __len__(self) -> int:
        return len(_BUILT_IN)


TABLES: Mapping[str, Columns] = _Tables()
"""The tables of a cell, by the names of their files."""

RENAMED_WORDS = {"iia": "agreement"}
"""Beginning of a column's name -> the same in runs of earlier versions."""

RENAMED_TABLES: dict[str, str] = {"manifold": "off_distribution"}
"""Name of a table in runs of earlier versions -> its name today."""


def register_column(table: str, column: Column) -> None:
    """Add a column to a table, computed from each finished row by `column.of`.

    Raises:
        UserError: there is no such table, the name is taken or no name, or `of` is missing.
    """
    if table not in TABLES:
        raise UserError(f"expected a table of {', '.join(TABLES)}, got {table!r}; name one of them")
    if column.of is None:
        raise UserError(
            f"expected a function of a row as `of` of the column {column.name!r}, got none; give it"
        )
    built_in = {one.name for one in (*_BUILT_IN[table], *MADE_BY)}
    if column.name in built_in or not column.name.isidentifier():
        raise UserError(
            f"expected a new name in letters, digits and _ for a column of {table}, got "
            f"{column.name!r}; choose another"
        )
    described = replace(column, about=column.about or column.meaning.removesuffix("."))
    OWN.register(f"{table}.{column.name}")(described)


def adopt_column(table: str, column: Column) -> None:
    """Know a column that a user has added to a table on disk, unless it is known."""
    if column.name not in {known.name for known in TABLES[table]}:
        OWN.adopt(f"{table}.{column.name}", column)


def own_columns(table: str) -> Columns:
    """The columns that users have added to a table."""
    names = (name for name in OWN.names() if name.startswith(f"{table}."))
    return tuple(map(OWN.find, names))


def shown_columns() -> Columns:
    """The columns of the evidence that have a label, in the order of the page."""
    order = {name: place for place, name in enumerate(PAGE_ORDER)}
    labelled = [column for column in TABLES["evidence"] if column.label]
    return tuple(sorted(labelled, key=lambda column: order.get(column.name, len(order))))


def completed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that are computed from its rows, unless they are there.

    A row at which a column's function fails has no entry in it, with a warning: what a cell has
    computed is not lost for it.
    """
    for column in TABLES[name]:
        if column.of is not None and column.name not in table and len(table):
            kind = float if column.kind is NUMBER else object
            entries = pd.Series(_computed(name, column, table), table.index, dtype=kind)
            table = table.assign(**{column.name: entries})
    return table


def _computed(name: str, column: Column, table: pd.DataFrame) -> list[Any]:
    """The entries of a column, None where there is none."""
    assert column.of is not None
    entries: list[Any] = []
    failed: list[str] = []
    for row in table.to_dict(orient="records"):
        try:
            entry = column.of(row)
            if column.kind is TEXTS and isinstance(entry, str):
                raise TypeError("expected a list of texts, got one text")
            pa.array([entry], column.kind.value, from_pandas=True)
        except Exception as error:
            failed.append(" ".join(f"{type(error).__name__}: {error}".split()))
            entry = None
        entries.append(entry)
    if failed:
        log.warning(
            "the column %r of %s is null in %d of %d rows, where its function failed: %s; change "
            "the function",
            column.name,
            name,
            len(failed),
            len(entries),
            failed[0],
        )
    return entries


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
