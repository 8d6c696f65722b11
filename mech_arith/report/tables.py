"""The tables of all cells put together, cell by cell: memory does not grow with their number."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mech_arith.errors import UserError

ROW_GROUP = 100_000
"""Rows that are gathered before they are written."""


def put_together(target: Path, sources: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Write the rows of several Parquet files into one, each after the fields of its cell.

    Cells of different versions differ in their columns: what one of them lacks is missing in its
    rows, and nothing is left out. Where a table itself says what a field says, its word stands.

    Args:
        target: path of the new file.
        sources: paths, and the fields of the cells whose tables they are.

    Raises:
        UserError: a file is gone, or its columns do not fit those of the others.
    """
    schema = _shared_schema(sources)
    with pq.ParquetWriter(target, schema) as writer:
        waiting: list[pa.Table] = []
        for path, fields in sources:
            waiting.append(_rows(_read(path), fields, schema))
            if sum(len(table) for table in waiting) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _shared_schema(sources: Sequence[tuple[Path, Mapping[str, Any]]]) -> pa.Schema:
    """The cells' fields and then every column of every table."""
    schema = _fields_schema([fields for _, fields in sources])
    for path, _ in sources:
        own = _opened(path, pq.read_schema).remove_metadata()
        try:
            schema = pa.unify_schemas([schema, own], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"expected columns of the same kinds in all runs, got {reason} in {path}; leave "
                "that run out"
            ) from error
    return schema


def _fields_schema(fields: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """Numbers where every cell has one, else text."""
    values: dict[str, list[Any]] = {}
    for of_cell in fields:
        for name, value in of_cell.items():
            values.setdefault(name, []).append(value)
    numeric = {name: all(type(value) is int for value in found) for name, found in values.items()}
    return pa.schema(
        [(name, pa.int64() if number else pa.string()) for name, number in numeric.items()]
    )


def _rows(table: pa.Table, fields: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A cell's rows in the columns of all."""
    columns: list[Any] = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            value = fields.get(field.name)
            text = value is not None and pa.types.is_string(field.type)
            scalar = pa.scalar(str(value) if text else value, field.type)
            columns.append(pa.repeat(scalar, len(table)))
    return pa.Table.from_arrays(columns, schema=schema)


def _read(path: Path) -> pa.Table:
    return _opened(path, pq.read_table).replace_schema_metadata(None)


def _opened(path: Path, read: Any) -> Any:
    """What `read` finds in a file that was there a moment ago."""
    try:
        return read(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected {path} to stay while the report is written, got {reason}; try again"
        ) from error
