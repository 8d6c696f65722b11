"""What a column is: its kind, its unit, its meaning, and what else is made from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyarrow as pa


class Kind(Enum):
    """What a column holds."""

    TEXT = pa.string()
    TEXTS = pa.list_(pa.string())
    WHOLE = pa.int64()
    NUMBER = pa.float64()
    FLAG = pa.bool_()
    NUMBERED = pa.map_(pa.string(), pa.int64())
    """Names, each with a whole number."""


TEXT, TEXTS, WHOLE, NUMBER, FLAG, NUMBERED = Kind


@dataclass(frozen=True)
class Beside:
    """A column that is read together with another one."""

    column: str
    word: str
    """Before it on the page."""
    short: str = ""
    """Before it in a cell of a figure; '' for not there."""
    about: str = ""
    """What `short` stands for, if it needs saying."""


@dataclass(frozen=True)
class Taken:
    """Where a column of the evidence comes from."""

    table: str
    """correlations, contrasts or counterfactual."""
    column: str
    arm: str = ""
    """Kind of drawn directions. '' in the contrasts: the kind that the target exceeds with the
    least certainty; '' in the counterfactual edits: the target itself."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    The name, the kind and the meaning make a column of the table and of the dictionary. A `label`
    shows it on the report's page. All other fields say where else it stands.
    """

    name: str
    kind: Kind
    meaning: str
    """In one line."""
    unit: str = ""
    """Of a number; '' for none."""
    label: str = ""
    """Its name for people; '' for a column that is not shown by itself."""
    about: str = ""
    """What it is, for the page's legend; '' for its meaning."""
    low: str | None = None
    high: str | None = None
    """Columns with the ends of its interval."""
    p: str | None = None
    """Column with its p, corrected for all tests of the cell."""
    counts: str | None = None
    """Column that says whether the number is a finding; see `verdicts`."""
    null: str | None = None
    """Column with what the number is by chance."""
    beside: tuple[Beside, ...] = ()
    """Columns of numbers that are read with it."""
    said: Beside | None = None
    """A column of text that is read with it."""
    why: str | None = None
    """Column that says why there is no number."""
    is_size: bool = False
    """Shown without its sign, which is an accident of the fit."""
    is_headline: bool = False
    """Shown for each value in the table of all cells."""
    is_drawn: bool = False
    """Drawn by layer on the page, as a share of 1."""
    is_compared: bool = False
    """Subtracted where two runs stand side by side."""
    is_of_edits: bool = False
    """Depends on which edits and strengths were tried."""
    map_title: str = ""
    """Title of its map in the figure of the evidence; '' for none."""
    group: str = ""
    """Group of the summary in which its number stands for each value: best, excess_drop or
    counterfactual."""
    is_logged: bool = False
    """Among W&B's headline numbers, if it has a `group`."""
    is_curve: bool = False
    """A curve by layer in W&B."""
    taken: Taken | None = None
    of: Callable[[Mapping[Any, Any]], Any] | None = None
    """Computes the entry from the finished row."""
    was: tuple[str, ...] = ()
    """Its names in tables of earlier versions, which are read as this one."""
    absent: Any = None
    """What it holds in the tables of earlier versions that lack it; None leaves it out."""

    @property
    def is_text(self) -> bool:
        """Whether it holds text and no number."""
        return self.kind is TEXT

    @property
    def shown(self) -> str:
        """The name of what is shown."""
        return f"abs_{self.name}" if self.is_size else self.name

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column of numbers that it is shown with."""
        own = None if self.is_text else self.name
        beside = (one.column for one in self.beside)
        return tuple(
            name for name in (own, self.low, self.high, self.p, self.null, *beside) if name
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """Every column of text that it is shown with."""
        own = self.name if self.is_text else None
        said = self.said.column if self.said else None
        return tuple(name for name in (own, said, self.why) if name)


Columns = tuple[Column, ...]

SHARE = "share of problems"
ACTIVATION = "activation units"
ANSWER = "units of the answer"


def with_interval(name: str, meaning: str, unit: str = "", **more: Any) -> Columns:
    """A number and the ends of its interval; `group` and `is_logged` hold for all three."""
    low, high = f"{name}_low", f"{name}_high"
    ends = {key: more[key] for key in ("group", "is_logged") if key in more}
    return (
        Column(name, NUMBER, meaning, unit, low=low, high=high, **more),
        Column(low, NUMBER, f"Lower end of the interval of `{name}`.", unit, **ends),
        Column(high, NUMBER, f"Upper end of the interval of `{name}`.", unit, **ends),
    )


def named(columns: Columns, *names: str) -> Columns:
    """Some of the columns, in the order of the names.

    Raises:
        KeyError: there is none of a name.
    """
    by_name = {column.name: column for column in columns}
    return tuple(by_name[name] for name in names)
