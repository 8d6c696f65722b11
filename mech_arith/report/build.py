"""From run directories to the files of a report: what is read and what is written stands here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mech_arith.errors import UserError
from mech_arith.progress import progress
from mech_arith.report.compact import cell_overview, cell_page
from mech_arith.report.files import CORRELATIONS, EFFECTS, PAGE, outputs
from mech_arith.report.listing import DAMAGED, Listed, list_cells
from mech_arith.report.page import Entry, render
from mech_arith.report.tables import put_together
from mech_arith.results import load_run


@dataclass(frozen=True)
class Built:
    """A report that has been written."""

    page: Path
    cells: list[Listed]

    @property
    def damaged(self) -> list[Listed]:
        """Runs that could not be read; the report says why."""
        return [cell for cell in self.cells if cell.status == DAMAGED]


def build(directory: Path, places: Sequence[Path]) -> Built:
    """Write the three files of a report into `directory`.

    Args:
        directory: made if it is not there.
        places: directories of runs and of sweeps.

    Raises:
        UserError: there is nothing to report on, or `directory` cannot be written.
    """
    listed = list_cells(places, directory)
    with outputs(directory) as temporary:
        entries: list[Entry] = []
        sources: dict[str, list[tuple[Path, dict[str, Any]]]] = {"effects": [], "correlations": []}
        for cell in progress(listed, description="report", unit="cells"):
            entry, tables = _entry(cell)
            entries.append(entry)
            for name, of_cells in sources.items():
                if name in tables:
                    of_cells.append((cell.directory / f"{name}.parquet", _fields(entry)))
        put_together(temporary[EFFECTS], sources["effects"])
        put_together(temporary[CORRELATIONS], sources["correlations"])
        title = ", ".join(dict.fromkeys(_title(place) for place in places))
        temporary[PAGE].write_text(render(title, entries), encoding="utf-8")
    return Built(directory / PAGE, [entry.cell for entry in entries])


def _entry(cell: Listed) -> tuple[Entry, set[str]]:
    """What the page says of a cell, and the names of its tables.

    A run that cannot be read is damaged, and says why; the others are reported all the same.
    """
    if not cell.whole:
        return Entry(cell, cell.command, fields={}, overview={}, page={}), set()
    try:
        result = load_run(cell.directory)
        page = cell_page(result)
        fields = dict(result.summary["cell"])
        entry = Entry(
            cell,
            command=result.summary.get("command") or cell.command,
            fields=fields,
            overview=cell_overview(page, result.summary),
            page=page,
        )
    except (UserError, KeyError) as error:
        reason = (
            str(error)
            if isinstance(error, UserError)
            else f"expected {error} in the run {cell.directory}, found none; run it again"
        )
        damaged = replace(cell, status=DAMAGED, note=reason)
        return Entry(damaged, cell.command, fields={}, overview={}, page={}), set()
    return entry, set(result.tables)


def _fields(entry: Entry) -> dict[str, Any]:
    """What every row of the joined tables says of its cell."""
    return {
        "cell": entry.cell.name,
        "identity": entry.page["summary"].get("identity"),
        "command": entry.command,
        **entry.fields,
    }


def _title(place: Path) -> str:
    """A sweep by the last two parts of its directory: the date and the time."""
    return "/".join(place.resolve().parts[-2:])
