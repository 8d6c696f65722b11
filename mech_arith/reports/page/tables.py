"""The tables of all cells put together, cell by cell: memory does not grow with their number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mech_arith.common.errors import UserError
from mech_arith.evidence.columns import (
    CELL,
    SWEPT,
    TABLES,
    earlier_names,
    schema,
    swept_column,
    table_schema,
)

ROW_GROUP = 100_000
"""Rows that are gathered before they are written."""


Source = tuple[Path, Mapping[str, Any]]
"""The path of a cell's table, and the fields of the cell."""


def misfits(name: str, paths: Sequence[Path]) -> dict[Path, str]:
    """Files of a table with columns of other kinds than `columns` says, and in what.

    Columns of earlier versions, which it does not name, are to be of the kind that most files have.
    """
    schemas = {path: _schema(path, name) for path in paths}
    frequent = Counter(schemas.values())
    shared, found = table_schema(name).remove_metadata(), {}
    for path in sorted(paths, key=lambda path: -frequent[schemas[path]]):
        try:
            shared = _unified(shared, schemas[path])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            found[path] = str(error).splitlines()[0]
    return found


def put_together(target: Path, name: str, sources: Sequence[Source]) -> None:
    """Write the rows of several cells' tables into one file, each after the fields of its cell.

    The columns are those that `columns` names, and the swept overrides behind the cell's fields;
    only cells of earlier versions add others. Where a table itself says what a field says, its word
    stands, unless it says nothing in any row.

    Args:
        target: path of the new file.
        name: of the table in the cells.
        sources: tables whose columns fit each other; see `misfits`.

    Raises:
        UserError: a file is gone.
    """
    whole = _shared_schema(name, sources)
    with pq.ParquetWriter(target, whole) as writer:
        waiting: list[pa.Table] = []
        for path, fields in sources:
            waiting.append(_rows(_read(path, name), fields, whole))
            if sum(len(table) for table in waiting) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _shared_schema(name: str, sources: Sequence[Source]) -> pa.Schema:
    """The cells' fields, the swept overrides, and then every column of the table."""
    keys = dict.fromkeys(field for _, fields in sources for field in fields)
    swept = [swept_column(key[len(SWEPT) :]) for key in keys if key.startswith(SWEPT)]
    first = [*CELL, *swept]
    known = {column.name for column in first}
    columns = [*first, *(column for column in TABLES[name] if column.name not in known)]
    ours = schema(tuple(columns))
    found = pa.schema([])
    for path, _ in sources:
        found = _unified(found, _schema(path, name))
    earlier = [field for field in found if field.name not in ours.names]
    return pa.schema([*ours, *earlier], metadata=ours.metadata)


def _unified(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    return pa.unify_schemas([one, other], promote_options="permissive")


def _schema(path: Path, table: str) -> pa.Schema:
    found = _opened(path, pq.read_schema).remove_metadata()
    names = earlier_names(TABLES[table])
    return pa.schema(
        [
            field.remove_metadata().with_name(_today(field.name, found.names, names))
            for field in found
        ]
    )


def _today(name: str, all_names: Sequence[str], names: Mapping[str, str]) -> str:
    """Today's name of a column, unless there is one of that name beside it."""
    now = names.get(name, name)
    return name if now in all_names else now


def _rows(table: pa.Table, fields: Mapping[str, Any], whole: pa.Schema) -> pa.Table:
    """A cell's rows in the columns of all."""
    columns: list[Any] = []
    for field in whole:
        own = table[field.name] if field.name in table.column_names else None
        if own is not None and (own.null_count < len(own) or field.name not in fields):
            columns.append(own.cast(field.type))
        else:
            value = fields.get(field.name)
            text = value is not None and pa.types.is_string(field.type)
            scalar = pa.scalar(str(value) if text else value, field.type)
            columns.append(pa.repeat(scalar, len(table)))
    return pa.Table.from_arrays(columns, schema=whole)


def _read(path: Path, table: str) -> pa.Table:
    found = _opened(path, pq.read_table).replace_schema_metadata(None)
    return found.rename_columns(_schema(path, table).names)


def _opened(path: Path, read: Any) -> Any:
    """What `read` finds in a file that was there a moment ago."""
    try:
        return read(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected {path} to stay while the report is written, got {reason}; try again"
        ) from error
