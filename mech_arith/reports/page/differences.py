"""Two runs side by side: for each value and layer the numbers of both, and B minus A.

The runs are compared as independent samples: an interval of the difference follows from the two
intervals alone. Where both runs ask the same problems, the true interval is mostly narrower.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.sites import COMPONENT_COLUMNS, WITHIN_LAYER
from mech_arith.evidence.best import best_places
from mech_arith.evidence.columns import Column, shown_columns
from mech_arith.evidence.results import load_run, per_value
from mech_arith.evidence.verdicts import known
from mech_arith.reports.page.compact import DIGITS, Plain
from mech_arith.reports.page.pairing import Pair
from mech_arith.statistics import ALPHA, holm
from mech_arith.statistics.independent import Measured, difference

BASELINE, DROP = "baseline_accuracy", "accuracy_drop"


def titles() -> dict[str, str]:
    """What is compared -> its name for people, in the order in which it is shown."""
    compared = {column.shown: column.label for column in shown_columns() if column.is_compared}
    return {BASELINE: "baseline accuracy", **compared, DROP: "accuracy drop"}


SCHEMA = {
    **dict.fromkeys(("cell_a", "cell_b", "quantity", "value"), "string"),
    "layer": "Int64",
    **dict.fromkeys((f"{name}_{side}" for name in WITHIN_LAYER for side in "ab"), "string"),
    **dict.fromkeys(("component_a", "component_b"), "Int64"),
    "strength": "float64",
    **{f"{side}{end}": "float64" for side in ("a", "b") for end in ("", "_low", "_high")},
    **{f"difference{end}": "float64" for end in ("", "_low", "_high")},
    **dict.fromkeys(("p", "p_holm"), "float64"),
    "counts": "boolean",
}
"""Columns of the table of differences. `p_holm` is adjusted for all rows of the table; a difference
counts if it is at most `ALPHA`, which no p is whose interval holds 0."""

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Compared:
    """What two runs have in common, subtracted."""

    table: pd.DataFrame
    notes: tuple[str, ...]
    """What is not compared, and why; a sentence each."""


def compare(pairs: Sequence[Pair], notes: Sequence[str] = ()) -> Compared:
    """The differences of cells that fit each other.

    Raises:
        UserError: nothing of them can be subtracted.
    """
    rows: list[dict[str, Any]] = []
    said = list(notes)
    for pair in pairs:
        of_pair = _Sides.of(pair)
        rows += of_pair.rows()
        said += of_pair.notes()
    if not rows:
        raise UserError(
            "expected two runs with values and layers in common, got none; compare runs of one "
            "template"
        )
    table = pd.DataFrame(rows).reindex(columns=[*SCHEMA])
    adjusted = holm(torch.tensor(table["p"].tolist(), dtype=torch.float64)).tolist()
    table = table.assign(p_holm=adjusted)
    table = table.assign(counts=(table["p_holm"] <= ALPHA).where(table["p"].notna(), None))
    return Compared(table.astype(SCHEMA), tuple(dict.fromkeys(said)))


@dataclass(frozen=True)
class _Sides:
    """A pair of cells, read."""

    pair: Pair
    tables: tuple[Mapping[str, pd.DataFrame], Mapping[str, pd.DataFrame]]
    summaries: tuple[Mapping[str, Any], Mapping[str, Any]]
    level: float
    """Of the intervals of both."""

    @classmethod
    def of(cls, pair: Pair) -> "_Sides":
        runs = [load_run(entry.cell.directory) for entry in (pair.a, pair.b)]
        levels = [run.summary.get("inference", {}).get("level", 0.95) for run in runs]
        if levels[0] != levels[1]:
            raise UserError(
                f"expected intervals of one level in {pair.a.cell.name} and {pair.b.cell.name}, "
                f"got {levels[0]} and {levels[1]}; run one of them again with inference.level="
                f"{levels[0]}"
            )
        a, b = runs
        return cls(pair, (a.tables, b.tables), (a.summary, b.summary), levels[0])

    @property
    def edits(self) -> tuple[Any, ...]:
        """Of both cells the edit and its strengths, which determine what a drop is of."""
        return tuple(_edit(tables.get("effects")) for tables in self.tables)

    @property
    def same_edits(self) -> bool:
        return self.edits[0] == self.edits[1]

    def notes(self) -> list[str]:
        if self.same_edits or None in self.edits:
            return []
        one, other = (f"{edit} with strengths {list(strengths)}" for edit, strengths in self.edits)
        return [f"Drops are not compared where the edits differ: {one} in A, {other} in B."]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each number that both cells have."""
        yield from self._subtracted(BASELINE, {}, {}, self.summaries[0], self.summaries[1])
        columns = [
            c for c in shown_columns() if c.is_compared and (self.same_edits or not c.is_of_edits)
        ]
        for a, b in self._matched():
            for column in columns:
                found = (_plain(a, column), _plain(b, column))
                yield from self._subtracted(column.shown, a, b, *found)
            if self.same_edits:
                drops = [_drops(t, row) for t, row in zip(self.tables, (a, b), strict=True)]
                for strength in sorted(drops[0].keys() & drops[1].keys()):
                    found = (drops[0][strength], drops[1][strength])
                    yield from self._subtracted(DROP, a, b, *found, strength=strength)

    def _matched(self) -> Iterator[tuple[Row, Row]]:
        """Rows of evidence of one value and layer: of one site where both cells have the same
        sites, else of the best one on the fit split of each.
        """
        one, other = (tables.get("evidence", pd.DataFrame()) for tables in self.tables)
        if one.empty or other.empty:
            return
        # What is the same in all rows of both, as the point is, may be another one in each.
        found = {name: [set(table[name]) for table in (one, other)] for name in WITHIN_LAYER}
        several = [name for name, entries in found.items() if max(map(len, entries)) > 1]
        key = ["value", "layer", *several]
        if any(found[name][0] != found[name][1] for name in several):
            one, other, key = best_places(one), best_places(other), key[:2]
        others = {tuple(row[k] for k in key): row for row in other.to_dict(orient="records")}
        for row in one.to_dict(orient="records"):
            fits = others.get(tuple(row[k] for k in key))
            if fits is not None:
                yield row, fits

    def _subtracted(
        self, quantity: str, a: Row, b: Row, of_a: Row, of_b: Row, strength: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """B minus A, if both are known.

        Without an interval where one has none, or one without width, which says nothing of its
        error.
        """
        ends = (quantity, f"{quantity}_low", f"{quantity}_high")
        found = [tuple(known(of_one, name) for name in ends) for of_one in (of_a, of_b)]
        numbers = [number for number, _, _ in found]
        if numbers[0] is None or numbers[1] is None:
            return
        row: dict[str, Any] = {
            "cell_a": self.pair.a.cell.name,
            "cell_b": self.pair.b.cell.name,
            "quantity": quantity,
            "value": a.get("value", ""),
            "layer": a.get("layer"),
            "strength": strength,
            "difference": numbers[1] - numbers[0],
        }
        for side, place, (number, low, high) in zip("ab", (a, b), found, strict=True):
            row |= {side: number, f"{side}_low": low, f"{side}_high": high}
            row |= {f"{name}_{side}": place.get(name) for name in (*WITHIN_LAYER, "component")}
        measured = [
            Measured(number=number, low=low, high=high)
            for number, low, high in found
            if number is not None and low is not None and high is not None and low < high
        ]
        if len(measured) == 2:
            between = difference(*measured, level=self.level)
            row |= {"difference_low": between.low, "difference_high": between.high, "p": between.p}
        yield row


def several_places(table: pd.DataFrame) -> list[str]:
    """Columns of a site in which rows of one value and layer differ, in A as in B."""
    known = table.loc[table["layer"].notna()]
    alike = [name for name in WITHIN_LAYER if known[f"{name}_a"].equals(known[f"{name}_b"])]
    keys = ["cell_a", "cell_b", "quantity", "value", "layer", "strength"]
    groups = known.groupby(keys, dropna=False)
    return [name for name in alike if (groups[f"{name}_a"].nunique() > 1).any()]


def known_text(entry: Any) -> str | None:
    """An entry of a column of text; None for a missing one."""
    return None if pd.isna(entry) or entry == "" else str(entry)


def _plain(row: Row, column: Column) -> dict[str, float | None]:
    """A column's number and its interval; without its sign where that is an accident."""
    number, low, high = (known(row, name) for name in (column.name, column.low, column.high))
    if column.is_size and number is not None and number < 0:
        number, low, high = -number, *(None if e is None else -e for e in (high, low))
    return {column.shown: number, f"{column.shown}_low": low, f"{column.shown}_high": high}


def _edit(effects: pd.DataFrame | None) -> tuple[str, tuple[float, ...]] | None:
    if effects is None or effects.empty:
        return None
    return str(effects["edit"].iloc[0]), tuple(sorted(set(effects["strength"].tolist())))


def _drops(tables: Mapping[str, pd.DataFrame], row: Row) -> dict[float, Row]:
    """Of the direction of a row of evidence the row of effects at each strength."""
    effects = tables["effects"]
    here = (effects["arm"] == "target") & (effects["status"] == "ok")
    for name in COMPONENT_COLUMNS:
        here &= effects[name] == row[name]
    rows = per_value(effects.loc[here])
    return {
        found["strength"]: found
        for found in rows.loc[rows["value"] == row["value"]].to_dict(orient="records")
        if found["target_value"] in ("", row["value"])
    }


ABOUT = (
    "The two runs are taken as independent samples: the interval of a difference follows from the "
    "two intervals (of R on Fisher's scale), and p is Holm's over all rows. Where both runs ask "
    "the same problems, the true interval is mostly narrower."
)


def plain_differences(compared: Compared, names: Sequence[str]) -> Plain:
    """What the page shows of them."""
    rows = compared.table.astype(object).where(compared.table.notna(), None)
    return {
        "titles": list(names),
        "quantities": titles(),
        "notes": [ABOUT, *compared.notes],
        "rows": [_short(row) for row in rows.to_dict(orient="records")],
    }


def _short(row: Row) -> Plain:
    """Without what is missing; numbers as the page holds them."""
    return {
        str(name): round(entry, DIGITS) if isinstance(entry, float) else entry
        for name, entry in row.items()
        if entry is not None and entry != ""
    }
