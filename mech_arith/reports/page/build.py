"""From run directories to the files of a report: what is read and what is written stands here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.common.registry import without_additions
from mech_arith.common.runs.directories import readable
from mech_arith.common.runs.sweeps import swept_overrides, untold
from mech_arith.evidence.results import adopt_columns, load_run, table_file
from mech_arith.reports.page.cells import SHOWN, cell_overview, cell_page, figure_links
from mech_arith.reports.page.files import COMPARISON, PAGE, TABLES, outputs
from mech_arith.reports.page.listing import DAMAGED, Listed, cell_fields, list_cells
from mech_arith.reports.page.page import Entry, as_json, render
from mech_arith.reports.page.tables import misfits, put_together
from mech_arith.reports.page.unfinished import unfinished

if TYPE_CHECKING:
    from mech_arith.reports.page.differences import Compared

Read = tuple[Entry, set[str]]
"""A cell as the page shows it, and the names of its tables."""


@dataclass(frozen=True)
class Built:
    """A report that has been written."""

    page: Path
    cells: list[Listed]

    @property
    def damaged(self) -> list[Listed]:
        """Runs that could not be read; the report says why."""
        return [cell for cell in self.cells if cell.status == DAMAGED]


@dataclass(frozen=True)
class BuiltComparison:
    """A comparison that has been written."""

    page: Path
    compared: "Compared"


@without_additions()
def build(directory: Path, places: Sequence[Path]) -> Built:
    """Write the files of a report into `directory`.

    Args:
        directory: made if it is not there.
        places: directories of runs and of sweeps.

    Raises:
        UserError: there is nothing to report on, or `directory` cannot be written.
    """
    listed = list_cells(places, directory)
    with outputs(directory, (*TABLES.values(), PAGE)) as temporary:
        shown = progress(listed, description="report", unit="cells")
        read = [_entry(cell, directory) for cell in shown]
        read = _fitting(read)
        swept = swept_overrides([cell.overrides or () for cell in listed])
        for table, name in TABLES.items():
            sources = [
                (_table(entry, table), cell_fields(entry.cell, entry.page["summary"], own))
                for (entry, tables), own in zip(read, swept, strict=True)
                if table in tables
            ]
            put_together(temporary[name], table, sources)
        entries = _labelled([entry for entry, _ in read], swept)
        title = ", ".join(dict.fromkeys(_title(place) for place in places))
        temporary[PAGE].write_text(render(title, entries), encoding="utf-8")
    return Built(directory / PAGE, [entry.cell for entry in entries])


def _labelled(entries: Sequence[Entry], swept: Sequence[Mapping[str, str]]) -> list[Entry]:
    """The cells with the swept overrides that no other field tells, for the page's labels."""
    labels = untold(swept, [entry.fields for entry in entries])
    return [
        replace(entry, fields=entry.fields | label)
        for entry, label in zip(entries, labels, strict=True)
    ]


@without_additions()
def build_comparison(directory: Path, one: Path, other: Path) -> BuiltComparison:
    """Write what two runs or sweeps differ in into `directory`.

    Args:
        directory: made if it is not there.
        one: A, a run or a sweep.
        other: B; the differences are B minus A.

    Raises:
        UserError: a run is not there or not finished, nothing of them can be compared, or
            `directory` cannot be written.
    """
    from mech_arith.reports.page.differences import plain_differences

    places = (one, other)
    read, found = _compared(places, directory)
    parquet, csv, page = COMPARISON
    with outputs(directory, COMPARISON) as temporary:
        found.table.to_parquet(temporary[parquet], index=False)
        found.table.to_csv(temporary[csv], index=False)
        titles = tuple(_title(place) for place in places)
        html = render(" and ".join(titles), read, plain_differences(found, titles))
        temporary[page].write_text(html, encoding="utf-8")
    return BuiltComparison(directory / page, found)


@without_additions()
def compared(one: Path, other: Path, base: Path) -> "Compared":
    """What two runs or sweeps differ in; see `build_comparison`.

    Args:
        one: A.
        other: B.
        base: the cells are named by their path from here, if all lie under it.
    """
    return _compared((one, other), base)[1]


def _compared(places: tuple[Path, Path], directory: Path) -> "tuple[list[Entry], Compared]":
    """All cells of both places, and the differences of those that fit each other."""
    from mech_arith.reports.page.differences import compare
    from mech_arith.reports.page.pairing import pair

    inside = [{c.directory.resolve() for c in list_cells([p], directory)} for p in places]
    read = [_entry(cell, directory)[0] for cell in list_cells(places, directory)]
    sides = [
        [e for e in read if e.cell.whole and e.cell.directory.resolve() in own] for own in inside
    ]
    for place, entries in zip(places, sides, strict=True):
        if not entries:
            raise UserError(f"expected a finished run in {place}, found none; run it to its end")
    pairs, notes = pair(*sides)
    return read, compare(pairs, notes)


def _entry(cell: Listed, directory: Path) -> Read:
    """What the page says of a cell, and what it has for the tables.

    A run that cannot be read is damaged, and says why; the others are reported all the same.
    """
    if not cell.whole:
        return _without_result(cell), set()
    try:
        with readable(cell.directory):
            result = load_run(cell.directory, tables={*SHOWN, *TABLES})
            adopt_columns(cell.directory)
            page = cell_page(result) | {"figures": figure_links(cell.directory, directory)}
            entry = Entry(
                cell,
                command=result.summary.get("command") or cell.command,
                fields=dict(result.summary["cell"]),
                overview=cell_overview(page, result.summary),
                page=page,
            )
            as_json(page)
    except UserError as error:
        return _damaged(cell, str(error))
    return entry, set(result.tables)


def _fitting(read: Sequence[Read]) -> list[Read]:
    """The cells, those damaged whose tables cannot stand in one file with those of the others."""
    reasons: dict[Path, str] = {}
    for table in TABLES:
        paths = [_table(entry, table) for entry, tables in read if table in tables]
        reasons |= misfits(table, paths)
    return [
        next(
            (
                _damaged(
                    entry.cell,
                    "expected columns of the same kinds as in the other runs, got "
                    f"{reasons[path]} in {path}; leave that run out, or run it again",
                )
                for path in (_table(entry, table) for table in tables)
                if path in reasons
            ),
            (entry, tables),
        )
        for entry, tables in read
    ]


def _damaged(cell: Listed, reason: str) -> Read:
    """A run that cannot be read, with the reason in one line."""
    return _without_result(replace(cell, status=DAMAGED, note=reason)), set()


def _without_result(cell: Listed) -> Entry:
    fields, config = unfinished(cell)
    page = {} if config is None else {"config": config}
    return Entry(cell, cell.command, fields=fields, overview={}, page=page)


def _table(entry: Entry, name: str) -> Path:
    return table_file(entry.cell.directory, name)


def _title(place: Path) -> str:
    """A sweep by the last two parts of its directory: the date and the time."""
    return "/".join(place.resolve().parts[-2:])
