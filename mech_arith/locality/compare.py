"""f_p against f_a, once both have been run: on the places that both cover, and beside chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.problems import ProblemSet
from mech_arith.sites import Site
from mech_arith.statistics import pearson, r_squared, rank_p
from mech_arith.tracing import Trace

DEGREE = 4
"""Of the polynomial that f_p is fitted with, as in the paper."""

SHUFFLES = 200
"""Orders of the places, for the chance floor."""


NOT_COMPARED = "the functions have at most two places in common, or one of them is constant"


@dataclass(frozen=True)
class Probe:
    """A value really replaced, by moving one of its operands, at several places."""

    value: str
    moved_by: str
    places: Float64[Tensor, " x"]
    """What the value is set to."""
    coordinates: dict[Site, Float64[Tensor, "n x k"]]
    """Of the problems so changed."""
    valid: Bool[Tensor, "n x"]
    """The operand stayed within its range."""


@dataclass(frozen=True)
class Sweep:
    """A coordinate set to evenly spaced places in every problem."""

    places: Float64[Tensor, " g"]
    answers: Float64[Tensor, "g n"]
    """Then given by the solver."""


def compare(
    found: Trace,
    component: int,
    problems: ProblemSet,
    slope: Float64[Tensor, " n"],
    sweep: Sweep,
    probe: Probe,
) -> tuple[dict[str, object], pd.DataFrame]:
    """f_p and f_a of one value in one component, on the places that both cover."""
    original = torch.from_numpy(problems.values[probe.value]).double()
    right = torch.from_numpy(problems.answers).double()
    hypothetical = (original + (sweep.answers - right) / slope).mT
    predicted = _polynomial(hypothetical, sweep.places, probe.places)
    actual = probe.coordinates[found.site][:, :, component]
    covered = (
        probe.valid
        & torch.isfinite(predicted)
        & (probe.places >= hypothetical.nan_to_num(torch.inf).amin(1, keepdim=True))
        & (probe.places <= hypothetical.nan_to_num(-torch.inf).amax(1, keepdim=True))
    )
    match = _match(predicted, actual, covered)
    chance = _by_chance(predicted, actual, covered)
    head = {
        **found.site.columns(),
        "component": component,
        "value": probe.value,
        "moved_by": probe.moved_by,
    }
    row = {
        **head,
        "r": match.r,
        "r2": match.r2,
        "r_floor": chance.r,
        "r2_floor": chance.r2,
        "p_trend": chance.share_above(match.r),
        "covered": float(covered[probe.valid].double().mean()) if probe.valid.any() else 0.0,
        "n_problems": len(problems),
        "reason": "" if match.r == match.r else NOT_COMPARED,
    }
    observed = found.coordinates[:, component]
    curves = _curves(probe, original, predicted, actual, covered).assign(
        **head,
        original=float(original[0]),
        observed_low=float(observed.min()),
        observed_high=float(observed.max()),
    )
    return row, curves


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


def _polynomial(
    x: Float64[Tensor, "n g"], y: Float64[Tensor, " g"], at: Float64[Tensor, " x"]
) -> Float64[Tensor, "n x"]:
    """Y as a polynomial of x, fitted to each row by least squares, at new places.

    Rows with too few distinct numbers to fit are NaN.
    """
    known = torch.isfinite(x)
    centre = x.nanmean(1, keepdim=True)
    reach = torch.where(known, (x - centre).abs(), 0).amax(1, keepdim=True)
    enough = (known.sum(1, keepdim=True) > DEGREE) & (reach > 0)
    scaled = torch.where(known, (x - centre) / reach.clamp(min=1e-12), 0)
    powers = torch.arange(DEGREE + 1)
    design = torch.where(known[..., None], scaled[..., None] ** powers, 0)
    target = torch.where(known, y.expand_as(x), 0)[..., None]
    coefficients = torch.linalg.lstsq(design, target, driver="gelsd").solution
    places = ((at - centre) / reach.clamp(min=1e-12))[..., None] ** powers
    return torch.where(enough, (places @ coefficients)[..., 0], torch.nan)


def _curves(
    probe: Probe,
    original: Float64[Tensor, " n"],
    predicted: Float64[Tensor, "n x"],
    actual: Float64[Tensor, "n x"],
    covered: Bool[Tensor, "n x"],
) -> pd.DataFrame:
    """The first problem's functions, and the median and quartiles of |f_p - f_a| by distance."""
    tables, places = [], probe.places
    for kind, function, known in (
        ("f_p", predicted[0], covered[0]),
        ("f_a", actual[0], probe.valid[0]),
    ):
        tables.append(
            pd.DataFrame({"kind": kind, "problem": 0, "x": places[known], "y": function[known]})
        )
    distance = (places - original[:, None])[covered].numpy()
    gap = (predicted - actual).abs()[covered].numpy()
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
    return curves.reindex(columns=["kind", "problem", "x", "y", "low", "high"])
