"""f_p against f_a: how well they agree on the places that both cover, and beside chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.common.progress import progress
from mech_arith.interventions.locality.functions import Functions
from mech_arith.statistics import pearson, r_squared, rank_p

SHUFFLES = 200
"""Orders of the places, for the chance floor."""

NOT_COMPARED = "the functions have at most two places in common, or one of them is constant"


def locality_tables(every: Sequence[Functions]) -> dict[str, pd.DataFrame]:
    """Of every value at every site.

    Returns:
        `locality`: a row per site, value and operand. `locality_curves`: the functions for the
        first problem, and the distance |f_p - f_a| over all.
    """
    rows, curves = [], []
    for one in progress(every, description="locality", unit="functions"):
        rows.append(_row(one))
        curves.append(_curves(one))
    return {
        "locality": pd.DataFrame(rows),
        "locality_curves": pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(),
    }


def _row(one: Functions) -> dict[str, Any]:
    """How well the two functions agree."""
    match = _match(one.predicted, one.actual, one.covered)
    chance = _by_chance(one.predicted, one.actual, one.covered)
    covered = one.covered[one.valid]
    return {
        **_key(one),
        "r": match.r,
        "r2": match.r2,
        "r_floor": chance.r,
        "r2_floor": chance.r2,
        "p_trend": chance.share_above(match.r),
        "covered": float(covered.double().mean()) if len(covered) else 0.0,
        "n_problems": len(one.original),
        "reason": "" if match.r == match.r else NOT_COMPARED,
    }


def _key(one: Functions) -> dict[str, Any]:
    """What a row says of where it is."""
    return {
        **one.site.columns(),
        "component": one.component,
        "rank": one.rank,
        "value": one.value,
        "moved_by": one.moved_by,
    }


@dataclass(frozen=True)
class _Match:
    """How well two functions agree, over all problems and places that both cover."""

    r: float
    r2: float


def _match(
    predicted: Float64[Tensor, "n x"], actual: Float64[Tensor, "n x"], covered: Bool[Tensor, "n x"]
) -> _Match:
    if int(covered.sum()) <= 2:
        return _Match(float("nan"), float("nan"))
    both = predicted[covered], actual[covered]
    r = pearson(both[0][:, None], both[1][:, None])
    return _Match(float(r[0, 0]), float(r_squared(*both)))


@dataclass(frozen=True)
class _Chance:
    """The matches with the places of f_a in random orders: as if the value said nothing of it.

    A small p says that f_p and f_a go the same way along the value, and no more: smooth functions
    that have nothing else in common do so too. Whether they agree is said by r2.
    """

    matches: tuple[_Match, ...]

    @property
    def r(self) -> float:
        return _mean([match.r for match in self.matches])

    @property
    def r2(self) -> float:
        return _mean([match.r2 for match in self.matches])

    def share_above(self, r: float) -> float:
        """One-sided p of a match with this R; NaN where most orders have none to compare with."""
        known = [match.r for match in self.matches if match.r == match.r]
        if r != r or len(known) < len(self.matches) / 2:
            return float("nan")
        return float(rank_p(*(torch.tensor(x, dtype=torch.float64) for x in (r, known))))


def _mean(numbers: Sequence[float]) -> float:
    known = [number for number in numbers if number == number]
    return float(np.mean(known)) if known else float("nan")


def _by_chance(
    predicted: Float64[Tensor, "n x"], actual: Float64[Tensor, "n x"], covered: Bool[Tensor, "n x"]
) -> _Chance:
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(actual.shape[1], generator=generator) for _ in range(SHUFFLES)]
    return _Chance(
        tuple(_match(predicted, actual[:, order], covered & covered[:, order]) for order in orders)
    )


def _curves(one: Functions) -> pd.DataFrame:
    """The first problem's functions, and the median and quartiles of |f_p - f_a| by distance."""
    tables, places = [], one.places
    for kind, function, known in (
        ("f_p", one.predicted[0], one.covered[0]),
        ("f_a", one.actual[0], one.valid[0]),
    ):
        tables.append(
            pd.DataFrame({"kind": kind, "problem": 0, "x": places[known], "y": function[known]})
        )
    distance = (places - one.original[:, None])[one.covered].numpy()
    gap = (one.predicted - one.actual).abs()[one.covered].numpy()
    width = float(places[-1] - places[0]) / 10 or 1.0
    binned = pd.DataFrame({"x": np.round(distance / width) * width, "gap": gap}).groupby("x")["gap"]
    low, middle, high = (binned.quantile(share) for share in (0.25, 0.5, 0.75))
    if len(middle):
        tables.append(
            pd.DataFrame(
                {
                    "kind": "distance",
                    "problem": -1,
                    "x": middle.index,
                    "y": np.asarray(middle),
                    "low": np.asarray(low),
                    "high": np.asarray(high),
                }
            )
        )
    curves = pd.concat(tables, ignore_index=True)
    return curves.reindex(columns=["kind", "problem", "x", "y", "low", "high"]).assign(
        **_key(one),
        original=float(one.original[0]),
        observed_low=one.observed_low,
        observed_high=one.observed_high,
    )
