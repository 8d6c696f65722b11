"""A sweep as pandas tables: the rows of all cells together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mech_arith.common.errors import UserError
from mech_arith.common.registry import without_additions
from mech_arith.common.runs.directories import readable
from mech_arith.common.runs.sweeps import swept_overrides
from mech_arith.evidence.results import RunResult, adopt_columns, load_run
from mech_arith.reports.page.listing import DAMAGED, Listed, cell_fields, list_cells


@dataclass(frozen=True)
class SweepResult:
    """All cells of one or more sweeps, as read back."""

    cells: pd.DataFrame
    """A row per cell, finished or not: `cell` (its directory, as short as tells it from the
    others), `directory`, `status` ('done', 'resumed', 'failed', 'killed', 'running', 'missing' or
    'damaged'), `note` (why it has no result), `identity`, `command` (a shell line that runs it),
    what the cell is (`model`, `template`, ...), a column `swept.KEY` for each override in which
    cells differ, and the summary's own numbers and texts."""

    tables: dict[str, pd.DataFrame]
    """Table name -> the rows of all finished cells, in the order of `cells`: the columns that say
    which cell a row is of, as in the report's tables, then those of a single run's table."""


@without_additions()
def read_sweep(*places: str | Path) -> SweepResult:
    """Read sweeps, or single runs, back.

        effects = read_sweep("multirun/2026-01-01/12-00-00").tables["effects"]
        effects.groupby("swept.layers")["accuracy_drop"].max()

    Args:
        places: directories of sweeps or runs, or of many of them.

    Raises:
        UserError: a directory is not there, has no cells, or its plan is damaged.
    """
    if not places:
        raise UserError("expected a directory of a sweep, got none; give at least one")
    for place in places:
        if not isinstance(place, str | Path):
            raise UserError(
                f"expected directories, got {place!r}; give several as read_sweep(ONE, OTHER)"
            )
    directories = [Path(place) for place in places]
    listed = list_cells(directories, directories[0])
    swept = swept_overrides([cell.overrides or () for cell in listed])
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[pd.DataFrame]] = {}
    for cell, own in zip(listed, swept, strict=True):
        said, result = _read(cell)
        state = {"directory": str(said.directory), "status": said.status, "note": said.note}
        summary = {} if result is None else result.summary
        fields = cell_fields(said, summary, own)
        plain = {name: entry for name, entry in summary.items() if _is_plain(entry)}
        rows.append(plain | fields | state)
        for name, table in ({} if result is None else result.tables).items():
            parts.setdefault(name, []).append(_beside(table, fields))
    first = ["cell", "directory", "status", "note"]
    cells = pd.DataFrame(rows)
    cells = cells.reindex(columns=[*first, *cells.columns.difference(first, sort=False)])
    tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    return SweepResult(cells, tables)


def _read(cell: Listed) -> tuple[Listed, RunResult | None]:
    """A cell and its result; one that cannot be read is damaged, and says why."""
    if not cell.whole:
        return cell, None
    try:
        with readable(cell.directory):
            adopt_columns(cell.directory)
            result = load_run(cell.directory)
            cell_fields(cell, result.summary, {})
    except UserError as error:
        return replace(cell, status=DAMAGED, note=str(error)), None
    return cell, result


def _is_plain(entry: Any) -> bool:
    return entry is None or isinstance(entry, str | int | float)


def _beside(table: pd.DataFrame, fields: Mapping[str, Any]) -> pd.DataFrame:
    """A cell's rows behind the fields; where the table itself says a field, its word stands."""
    own = [name for name in fields if name in table.columns and bool(table[name].notna().any())]
    said = {name: field for name, field in fields.items() if name not in own}
    before = pd.DataFrame(said, index=table.index, columns=list(said))
    return pd.concat([before, table.drop(columns=[n for n in said if n in table.columns])], axis=1)
