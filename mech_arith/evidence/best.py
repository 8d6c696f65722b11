"""Which place or component is best for a value: by |R| on the fit split, and by nothing else.

So nothing is chosen on the problems that are reported. Of arrays `readings.chosen_components` does
the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any, TypeVar

import pandas as pd

Row = TypeVar("Row", bound=Mapping[Any, Any])


def best_on_fit(table: pd.DataFrame, by: Sequence[str] = ("value",)) -> pd.DataFrame:
    """The row with the largest |R| on the fit split in each group of rows, the groups as they come.

    Args:
        table: with a column `r_fit`; rows without an R are passed over. Of equals the first counts.
        by: columns whose entries name a group.
    """
    sizes = table["r_fit"].abs().dropna()
    groups = [table.loc[sizes.index, name] for name in by]
    return table.loc[sizes.groupby(groups, sort=False).idxmax()]


def of_least_rank(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the smallest rank: what is said of a value in one number or word is of it.

    It claims least: of a larger subspace even a random one carries much. Tables and the figure of
    ranks show them all.
    """
    return table if table.empty else table.loc[table["rank"] == table["rank"].min()]


def best_places(evidence: pd.DataFrame) -> pd.DataFrame:
    """Per value and layer the row with the largest |R| on the fit split, of all positions; of the
    least rank.
    """
    return best_on_fit(of_least_rank(evidence), ("value", "layer")).sort_index()


def best_row(rows: Iterable[Row]) -> Row:
    """The same of the rows of one value; the first one if none has an R."""
    return max(rows, key=_size)


def best_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """The same for each value."""
    by_value: dict[str, list[Row]] = {}
    for row in rows:
        by_value.setdefault(row["value"], []).append(row)
    return {value: best_row(of_value) for value, of_value in by_value.items()}


def _size(row: Mapping[Any, Any]) -> float:
    r = row.get("r_fit")
    return -1.0 if r is None or isnan(r) else abs(r)
