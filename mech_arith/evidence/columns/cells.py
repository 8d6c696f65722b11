"""Columns of the problems, and those that tell the cells of a sweep apart."""

from mech_arith.evidence.columns.base import FLAG, NUMBER, NUMBERED, TEXT, WHOLE, Column
from mech_arith.evidence.columns.shared import EDIT, MADE_BY, POINT

PROBLEMS = (
    Column("split", TEXT, "fit (components are chosen on it) or report (numbers are read on it)."),
    Column("problem", WHOLE, "Row of the problem within its split, from 0."),
    Column("prompt_text", TEXT, "What the model reads of this problem, without the examples."),
    Column("operands", NUMBERED, "Each operand and its number."),
    Column("values", NUMBERED, "Each value of the expression and its number."),
    Column("right", WHOLE, "The right answer."),
    Column("written", TEXT, "The model's answer as it wrote it; null where it writes none."),
    Column("answer", NUMBER, "The model's answer as it was read; null where it is no number."),
    Column("correct", FLAG, "The answer is right within the tolerance."),
    Column("edited", FLAG, "The problem is among those that are edited."),
    Column("reason", TEXT, "Why there is no `answer`."),
)

CELL = (
    Column("cell", TEXT, "Directory of the cell, as short as tells it from the others."),
    Column("identity", TEXT, "SHA-256 of all that determines the cell's numbers."),
    Column("command", TEXT, "Shell line that runs the cell."),
    *(column for column in MADE_BY if column.name in ("model", "template", "expression")),
    Column("hypothesis", TEXT, "How the answer is taken to be computed."),
    Column("layers", TEXT, "Layers that the cell asks for."),
    Column("tracing", TEXT, "How directions are found."),
    POINT,
    Column("positions", TEXT, "Positions that the cell asks for."),
    Column("heads", TEXT, "Heads that are sites of their own; null for whole points."),
    *(column for column in MADE_BY if column.name == "prompt"),
    EDIT,
    Column("design", TEXT, "How problems are drawn."),
    *(column for column in MADE_BY if column.name == "seed"),
)
"""At the beginning of every table of a sweep: the cell that a row is of."""

SWEPT = "swept."
"""Before the name of an override in which a sweep's cells differ: a text column of its tables, with
the override as typed, and null for cells without it."""


def swept_column(key: str) -> Column:
    """The column of one swept override."""
    return Column(f"{SWEPT}{key}", TEXT, f"Override {key!r} of the cell, as typed.")
