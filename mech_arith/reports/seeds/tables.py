"""Numbers of several seeds in one row: mean, spread, and in how many seeds the finding holds.

Which component carries a value is an accident of the seed. So values are compared, each by the
component that is best for it on the fit split, and components' numbers never.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mech_arith.common.atomic import atomic
from mech_arith.common.errors import UserError
from mech_arith.engine.sites import SITE_COLUMNS, WITHIN_LAYER
from mech_arith.evidence.best import best_on_fit, of_least_rank
from mech_arith.evidence.results import load_run, per_value
from mech_arith.evidence.verdicts import drop_counts, r_counts
from mech_arith.reports.seeds.groups import SeedCell

SITE = ["value", *SITE_COLUMNS]
EDIT = [*SITE, "edit", "strength", "strength_unit"]

CORRELATIONS = ("r_fit", "chosen", "abs_r", "r_low", "r_high", "p_holm")
EFFECTS = ("accuracy_drop", "excess_drop", "excess_low", "excess_p")
"""Columns without which a table says nothing of what holds."""


def correlations_over_seeds(cells: Sequence[SeedCell]) -> pd.DataFrame:
    """Per value and site |R| over the seeds, and in which share of them it counts: p of its own R,
    corrected, and its interval agree that it is not chance.

    `share_peak` is the share of seeds in which the layer is the best of all for the value at that
    position, on the fit split.
    """
    best = pd.concat([_best(_table(cell, "correlations", CORRELATIONS)) for cell in cells])
    shares = {"share_holds": _each(r_counts, best), "share_peak": best["is_peak"]}
    rows = best.assign(**{name: share.astype(float) for name, share in shares.items()})
    return _spread(rows, by=SITE, numbers=("abs_r",), shares=tuple(shares))


def effects_over_seeds(cells: Sequence[SeedCell]) -> pd.DataFrame:
    """Per value, site and strength the drops over the seeds.

    The finding is a drop beyond that of random directions at the same strength: p and the interval
    agree. No rows where nothing was edited, or where directions were chosen by number.
    """
    tables = [_table(cell, "effects", EFFECTS) for cell in cells]
    targets = pd.concat([_targets(table) for table in tables])
    if targets.empty:
        return pd.DataFrame(columns=EDIT)
    counts = _each(drop_counts, targets).astype(float)
    rows = targets.assign(share_holds=counts.where(targets["excess_low"].notna()))
    numbers = ("accuracy_drop", "excess_drop")
    return _spread(rows, by=EDIT, numbers=numbers, shares=("share_holds",))


def _table(cell: SeedCell, name: str, needed: Sequence[str]) -> pd.DataFrame:
    """One table of a cell.

    Raises:
        UserError: it lacks what is compared.
    """
    table = load_run(cell.directory).tables[name]
    missing = [] if table.empty else [column for column in needed if column not in table]
    if missing:
        raise UserError(
            f"expected the columns {', '.join(needed)} in {cell.directory / name}.parquet, found "
            f"no {', '.join(missing)}: an older version has written it; run the cell again"
        )
    return table


def _best(correlations: pd.DataFrame) -> pd.DataFrame:
    """The row of each value's best component at each site, and whether the layer is the best."""
    best = correlations.loc[correlations["chosen"].astype(bool)]
    peaks = best_on_fit(best, ("value", *WITHIN_LAYER))
    return best.assign(is_peak=best.index.isin(peaks.index))


def _each(rule: Callable[[Mapping[str, Any]], bool], table: pd.DataFrame) -> pd.Series:
    """Whether each row of a table counts."""
    rows: list[Any] = table.to_dict(orient="records")
    return pd.Series([rule(row) for row in rows], index=table.index, dtype=bool)


def _targets(effects: pd.DataFrame) -> pd.DataFrame:
    """The edits of subspaces that were chosen for a value, a row per value; of the least rank."""
    if effects.empty:
        return effects
    is_target = (effects["arm"] == "target") & effects["chosen_for"].map(len).gt(0)
    return per_value(of_least_rank(effects.loc[is_target]))


def _spread(
    rows: pd.DataFrame, *, by: list[str], numbers: Sequence[str], shares: Sequence[str]
) -> pd.DataFrame:
    """One row per group: how many seeds, each number over them, in which share of them what is."""
    groups = rows.groupby(by, sort=False)
    columns = {"n_seeds": (numbers[0], "count")}
    for name in numbers:
        for how, function in (("mean", "mean"), ("sd", "std"), ("min", "min"), ("max", "max")):
            columns[f"{name}_{how}"] = (name, function)
    columns |= {name: (name, "mean") for name in shares}
    return groups.agg(**columns).reset_index()


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table whole or not at all."""
    with atomic(path) as [new]:
        table.to_parquet(new, index=False)
