"""The tables of all cells put together, cell by cell: memory does not grow with their number."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mech_arith.errors import UserError

ROW_GROUP = 100_000
"""Rows that are gathered before they are written."""


Source = tuple[Path, Mapping[str, Any]]
"""The path of a cell's table, and the fields of the cell."""

KEY = pa.schema(
    [
        *((name, pa.string()) for name in ("cell", "identity", "command")),
        ("layer", pa.int64()),
        ("point", pa.string()),
        ("position", pa.string()),
        ("component", pa.int64()),
    ]
)
"""Columns of a table of no cell: whoever reads it finds what tells rows apart."""


def misfits(paths: Sequence[Path]) -> dict[Path, str]:
    """Tables whose columns are of other kinds than those of most tables, and in what."""
    schemas = {path: _schema(path) for path in paths}
    frequent = Counter(schemas.values())
    shared, found = pa.schema([]), {}
    for path in sorted(paths, key=lambda path: -frequent[schemas[path]]):
        try:
            shared = _unified(shared, schemas[path])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            found[path] = str(error).splitlines()[0]
    return found


def put_together(target: Path, sources: Sequence[Source]) -> None:
    """Write the rows of several Parquet files into one, each after the fields of its cell.

    Cells of different versions differ in their columns: what one of them lacks is missing in its
    rows, and nothing is left out. Where a table itself says what a field says, its word stands.

    Args:
        target: path of the new file.
        sources: tables whose columns fit each other; see `misfits`.

    Raises:
        UserError: a file is gone.
    """
    schema = _shared_schema(sources) if sources else KEY
    with pq.ParquetWriter(target, schema) as writer:
        waiting: list[pa.Table] = []
        for path, fields in sources:
            waiting.append(_rows(_read(path), fields, schema))
            if sum(len(table) for table in waiting) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _shared_schema(sources: Sequence[Source]) -> pa.Schema:
    """The cells' fields and then every column of every table."""
    own = pa.schema([])
    for path, _ in sources:
        own = _unified(own, _schema(path))
    fields = _fields_schema([fields for _, fields in sources])
    known = set(own.names)
    first = [own.field(field.name) if field.name in known else field for field in fields]
    return pa.schema([*first, *(field for field in own if field.name not in fields.names)])


def _unified(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    return pa.unify_schemas([one, other], promote_options="permissive")


def _schema(path: Path) -> pa.Schema:
    return _opened(path, pq.read_schema).remove_metadata()


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
