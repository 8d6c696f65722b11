"""The dictionary of all columns, as Markdown."""

from mech_arith.evidence.columns.base import Columns
from mech_arith.evidence.columns.cells import CELL
from mech_arith.evidence.columns.registry import RENAMED_TABLES, TABLES
from mech_arith.evidence.columns.shared import MADE_BY


def dictionary() -> str:
    """A section per table, with each column's name, kind, unit and meaning."""
    before = {now: earlier for earlier, now in RENAMED_TABLES.items()}
    made_by = {column.name for column in MADE_BY}
    sections = []
    for name, columns in TABLES.items():
        was = f" (was `{before[name]}.parquet`)" if name in before else ""
        own = tuple(column for column in columns if column.name not in made_by)
        sections.append(_section(f"`{name}.parquet`{was}", own))
    sections.append(_section("At the end of every table of a cell", MADE_BY))
    sections.append(_section("At the beginning of every table of a sweep", CELL))
    return "\n".join(sections)


def _section(title: str, columns: Columns) -> str:
    rows = ["| column | kind | unit | meaning |", "|---|---|---|---|"]
    for column in columns:
        was = "".join(f" Was `{name}`." for name in column.was)
        cells = (f"`{column.name}`", column.kind.name.lower(), column.unit, column.meaning + was)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([f"## {title}", "", *rows, ""])
