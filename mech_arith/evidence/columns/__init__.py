"""Every column of every table, named once: its kind, its unit, what it means and where it stands.

A cell's tables are conformed to this when they are written, and so are those of a sweep: a table
has the same columns of the same types whatever was asked for, with rows or without. So the tables
of any cells join, by pyarrow as one dataset and by pandas. The summary, the figure of the evidence,
the report's page, W&B's numbers and the dictionary are made from the same list.

On disk what is not known, or does not apply, is null in every kind of column; there is no empty
text and no NaN. In memory (`results.load_run`) a missing number is NaN, a missing whole number
`pandas.NA`, a missing flag None and a missing text '', so that texts can be compared and grouped
by; a list of texts is a tuple.
"""

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
    Taken,
)
from mech_arith.evidence.columns.cells import CELL, SWEPT, swept_column
from mech_arith.evidence.columns.dictionary import dictionary
from mech_arith.evidence.columns.disk import adopt, conformed, in_memory, schema, table_schema
from mech_arith.evidence.columns.registry import (
    RENAMED_TABLES,
    TABLES,
    completed,
    earlier_names,
    in_todays_words,
    own_columns,
    register_column,
    shown_columns,
    table_name,
)
from mech_arith.evidence.columns.shared import MADE_BY, SITE

__all__ = [
    "CELL",
    "FLAG",
    "MADE_BY",
    "NUMBER",
    "NUMBERED",
    "RENAMED_TABLES",
    "SITE",
    "SWEPT",
    "TABLES",
    "TEXT",
    "TEXTS",
    "WHOLE",
    "Beside",
    "Column",
    "Columns",
    "Kind",
    "Taken",
    "adopt",
    "completed",
    "conformed",
    "dictionary",
    "earlier_names",
    "in_memory",
    "in_todays_words",
    "own_columns",
    "register_column",
    "schema",
    "shown_columns",
    "swept_column",
    "table_name",
    "table_schema",
]
