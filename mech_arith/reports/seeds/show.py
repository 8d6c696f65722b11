"""The findings of several seeds as tables to read: those that hold in all, those that in some."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from mech_arith.common.progress import counted
from mech_arith.engine.sites import is_asked_for
from mech_arith.models.kinds import EACH
from mech_arith.reports.seeds.groups import Groups, SeedCell

MOST = 24
"""Rows of a printed table; the files have all."""


def print_seeds(
    console: Console,
    cells: Sequence[SeedCell],
    correlations: pd.DataFrame,
    effects: pd.DataFrame,
) -> None:
    """Print what one group of cells has found."""
    fields = cells[0].fields
    console.print(
        f"{fields['expression']}, layers {fields['layers']}, {fields['edit']}: "
        f"{counted(len(cells), 'seed')} ({', '.join(_named(cell) for cell in cells)})",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    asked, single = _own_sites(correlations, fields["positions"])
    for title, found in (
        (f"|R| at positions {fields['positions']}, best component of each seed", asked),
        ("|R| at the single position that is best for each value and layer", single),
    ):
        _print(console, title, found, "abs_r", _keys(found), ["share_peak"])
    keys = [*_keys(effects), "strength"]
    _print(console, "Accuracy drop beyond random directions", effects, "excess_drop", keys, [])


def _keys(found: pd.DataFrame) -> list[str]:
    """What a printed row is about; its head only where heads are sites of their own."""
    has_heads = not found.empty and any(found["head"])
    return ["value", "layer", "position", *(["head"] if has_heads else [])]


def print_alone(console: Console, groups: Groups) -> None:
    """Print which cells have no like."""
    for cell, differences in groups.alone:
        console.print(
            f"left out: {cell.directory} ({_named(cell)}), which differs from the nearest other "
            f"in {differences}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def _named(cell: SeedCell) -> str:
    return f"{cell.model} of seed {'unknown' if cell.seed is None else cell.seed}"


def _own_sites(correlations: pd.DataFrame, asked: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sites that were asked for, and of the map of single positions the best ones."""
    if asked == EACH:
        return correlations.iloc[:0], _best_places(correlations)
    own = correlations["position"].map(lambda position: is_asked_for(position, asked))
    return correlations.loc[own], _best_places(correlations.loc[~own])


def _best_places(correlations: pd.DataFrame) -> pd.DataFrame:
    """Per value and layer the position (and head) with the largest mean |R|."""
    by = [correlations["value"], correlations["layer"]]
    return correlations.loc[correlations["abs_r_mean"].groupby(by, sort=False).idxmax()]


def _print(
    console: Console,
    title: str,
    found: pd.DataFrame,
    number: str,
    keys: list[str],
    shares: list[str],
) -> None:
    """One table for what holds in all seeds, one for what holds in some."""
    if found.empty:
        return
    holds = found["share_holds"].to_numpy()
    in_all, in_some = found.loc[holds == 1], found.loc[(holds > 0) & (holds < 1)]
    for held, rows in (("all", in_all), ("some", in_some)):
        table = Table(
            title=f"{title}: beyond chance in {held} seeds ({len(rows)})", title_justify="left"
        )
        for column in (*keys, "mean", "sd", "min", "max", "holds in", *shares):
            table.add_column(column, justify="left" if column in keys else "right")
        for row in rows.head(MOST).to_dict(orient="records"):
            numbers = [f"{row[f'{number}_{how}']:.3f}" for how in ("mean", "sd", "min", "max")]
            count = round(row["share_holds"] * row["n_seeds"])
            table.add_row(
                *(_text(row[key]) for key in keys),
                *numbers,
                f"{count} of {row['n_seeds']}",
                *(f"{row[share]:.0%}" for share in shares),
            )
        if len(rows) > MOST:
            table.caption = f"and {len(rows) - MOST} more in the file"
        if len(rows):
            console.print(table)
    if in_all.empty and in_some.empty:
        console.print(
            f"{title}: nothing is beyond chance in any seed", highlight=False, markup=False
        )


def _text(key: object) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)
