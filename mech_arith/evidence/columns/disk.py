"""Tables as Arrow has them on disk, and as this package works with them in memory."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mech_arith.evidence.columns.base import (
    FLAG,
    NUMBER,
    NUMBERED,
    TEXT,
    TEXTS,
    WHOLE,
    Beside,
    Column,
    Columns,
    Kind,
)
from mech_arith.evidence.columns.registry import (
    TABLES,
    adopt_column,
    completed,
    earlier_names,
    own_columns,
)

OWN = b"mech_arith.column"
"""In a field's metadata: what a column is that a user has added, for reports of the table."""


@cache
def schema(columns: Columns) -> pa.Schema:
    """As Arrow types, and for pandas that whole numbers and flags may be missing."""
    fields = pa.schema([(column.name, column.kind.value) for column in columns])
    known = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    empty = fields.empty_table().to_pandas(types_mapper=known.get)
    return fields.with_metadata(pa.Schema.from_pandas(empty, preserve_index=False).metadata)


def table_schema(name: str) -> pa.Schema:
    """Of a cell's table."""
    return schema(TABLES[name])


def _described(name: str, fields: pa.Schema) -> pa.Schema:
    """The same, in which columns that a user has added say what they are."""
    for column in own_columns(name):
        place = fields.get_field_index(column.name)
        said = {
            key: entry.name if key == "kind" else entry
            for key, entry in asdict(replace(column, of=None, taken=None)).items()
        }
        fields = fields.set(place, fields.field(place).with_metadata({OWN: json.dumps(said)}))
    return fields


def adopt(name: str, path: Path) -> None:
    """Take the columns that a user has added to a table on disk for known ones, to report them."""
    for field in pq.read_schema(path):
        said = (field.metadata or {}).get(OWN)
        if said is not None:
            entries = json.loads(said)
            beside = tuple(Beside(**one) for one in entries["beside"])
            word = Beside(**entries["said"]) if entries["said"] else None
            kind, was = Kind[entries["kind"]], tuple(entries["was"])
            parts = {"kind": kind, "beside": beside, "said": word, "was": was}
            adopt_column(name, Column(**{**entries, **parts}))


def conformed(name: str, table: pd.DataFrame) -> pa.Table:
    """A cell's table with all of its columns, in their order and types; those it lacks are null.

    Raises:
        ValueError: there is no table of the name, or a column has no place in it, or holds
            something of another kind.
    """
    if name not in TABLES:
        raise ValueError(f"expected a table of {list(TABLES)}, got {name!r}; name its columns")
    table = completed(name, table)
    fields = table_schema(name)
    unknown = [column for column in table.columns if column not in fields.names]
    if unknown:
        raise ValueError(
            f"expected the columns that mech_arith.evidence.columns names in {name}, got "
            f"{unknown}; name them there"
        )
    arrays = [_array(name, table, column) for column in TABLES[name]]
    return pa.Table.from_arrays(arrays, schema=_described(name, fields))


def _array(name: str, table: pd.DataFrame, column: Column) -> pa.Array:
    kind = column.kind
    if column.name not in table:
        return pa.nulls(len(table), kind.value)
    entries = table[column.name]
    if isinstance(entries.dtype, pd.StringDtype):  # which Arrow would read as numbers
        entries = entries.astype(object)
    try:
        if kind is TEXTS and any(isinstance(entry, str) for entry in entries):
            raise TypeError("one text")  # which Arrow would read as a list of its characters
        array = pa.array(entries, kind.value, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"expected {kind.name} in the column {column.name} of {name}, got {error}"
        ) from error
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if kind is TEXT:
        return pa.array([entry or None for entry in array.to_pylist()], pa.string())
    return array


def in_memory(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A table as it was read, with the missing entries that this package works with.

    A column that has the name of an earlier version gets today's, and one that an earlier version
    lacked is what it would have been.
    """
    earlier = earlier_names(columns)
    renamed = {was: now for was, now in earlier.items() if was in table and now not in table}
    table = table.rename(columns=renamed) if renamed else table
    lacking = {
        column.name: column.absent
        for column in columns
        if column.absent is not None and column.name not in table
    }
    table = table.assign(**lacking) if lacking else table
    kinds: Mapping[str, Kind] = {column.name: column.kind for column in columns}
    # All at once: a table that is given column after column is copied as often.
    return pd.DataFrame(
        {
            name: entries
            if kinds.get(str(name), NUMBER) is NUMBER
            else _usable(pd.Series(entries), kinds[str(name)])
            for name, entries in table.items()
        },
        index=table.index,
    )


def _usable(column: pd.Series, kind: Kind) -> pd.Series:
    """Whole numbers and flags that are all there as plain ones; texts without missing entries."""
    if kind is TEXT:
        return column.fillna("") if column.dtype != float else column.map(lambda _: "")
    if kind is TEXTS:
        entries = [_texts(entry) for entry in column.tolist()]
        return pd.Series(entries, index=column.index, dtype=object)
    if kind is NUMBERED:
        entries = [{} if entry is None else dict(entry) for entry in column.tolist()]
        return pd.Series(entries, index=column.index, dtype=object)
    missing = column.isna()
    if not missing.any():
        return column.astype("int64" if kind is WHOLE else bool)
    if kind is FLAG:
        return column.astype(object).where(~missing, None)
    return column.astype("Int64")


def _texts(entry: Iterable[str] | None) -> tuple[str, ...]:
    """A list of texts; a run of an earlier version has them in one, as in 'b | a+b'."""
    if isinstance(entry, str):
        return tuple(entry.split(" | ")) if entry else ()
    return () if entry is None else tuple(entry)
