"""Does the model use a coordinate as a value? Answers under edits beside those that sources want.

How often an answer is the wanted one (iia), and how far it goes towards it (slope), each
beside what an edit does that knows nothing of the value. What sources are, `sources` says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.evidence.metrics import exact, settled
from mech_arith.problems.sources import Sources
from mech_arith.statistics import SHARES, SHIFTS, Averaged, Resampling, averaged, rank_p


@dataclass(frozen=True)
class IIA:
    """How far answers follow the wanted values. NaN is what is undefined."""

    iia: float
    """Share of edited answers that are the expected ones."""
    iia_low: float
    iia_high: float
    floor: float
    """The same with other wanted values, drawn in the same way: what chance gives."""
    p: float
    """Share of such draws, the real one among them, that agree as often or more."""
    slope: float
    """Of the answer's change on the change expected, given what the base problem says of both (see
    `following`): 1 where the answer follows, 0 where it does not, as where it is destroyed."""
    slope_low: float
    """Ends of its interval; there is none where too few answers move, see `mean_slope`."""
    slope_high: float
    r2_change: float
    """Share of the answer's change that the change expected explains, beyond the base problem."""
    monotonicity: float
    """Over pairs of a problem's sources: share ordered alike in expected and edited answer, minus
    the share ordered the other way (Kendall's tau, pooled); NaN for a single source."""
    wrong_way: float
    """Share of problems whose own slope, over its sources, is below 0; NaN for a single source."""
    own_slope_25: float
    """Quartiles of the problems' own slopes: of the edited answer on the one expected."""
    own_slope_50: float
    own_slope_75: float


def iia(
    edited: Float64[Tensor, "k m n"],
    clean: Float64[Tensor, " n"],
    sources: Sources,
    *,
    tolerance: float,
    how: Resampling,
    drawn: bool = False,
) -> IIA:
    """Compare edited answers with those expected of each source.

    Args:
        edited: answers of the n base problems towards each of their m sources, moved along each of
            k directions, over which all is averaged.
        clean: without an edit.
        sources: with the same m and n.
        tolerance: within which an answer counts as exact.
        how: intervals are computed; over problems, each with its sources.
        drawn: the directions are a sample, and others might have been drawn.
    """
    edited = settled(edited, clean)
    hits = exact(edited, sources.expected, tolerance=tolerance)
    by_chance = torch.stack(
        [exact(along, sources.by_chance, tolerance=tolerance).sum((1, 2)) for along in edited]
    ).sum(0)
    own = _own_slopes(sources.expected, edited)
    own = own[torch.isfinite(own)]
    fitted = following_each(edited, clean, sources)
    slopes = torch.stack([one.by_problem for one in fitted])
    slope = mean_slope(slopes, edited, clean, how, drawn=drawn)
    agreed = averaged(hits.double().mean(1), how, drawn=drawn, of=SHARES)
    low, middle, high = _quartiles(own)
    return IIA(
        iia=float(hits.double().mean()),
        iia_low=float(agreed.low),
        iia_high=float(agreed.high),
        floor=float(by_chance.double().mean() / hits.numel()),
        p=float(rank_p(hits.sum().double(), by_chance.double())),
        slope=float(slope.mean),
        slope_low=float(slope.low),
        slope_high=float(slope.high),
        r2_change=float(np.mean([one.r2 for one in fitted])),
        monotonicity=_monotonicity(sources.expected, edited),
        wrong_way=float((own < 0).double().mean()),
        own_slope_25=low,
        own_slope_50=middle,
        own_slope_75=high,
    )


def _quartiles(numbers: Float64[Tensor, " n"]) -> tuple[float, float, float]:
    if not len(numbers):
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.quantile(numbers.numpy(), (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


@dataclass(frozen=True)
class Line:
    """The least-squares line of y on x, other numbers held fixed. NaN is undefined."""

    by_problem: Float64[Tensor, " n"]
    """Each problem's pseudo-value, slope + influence: their mean is the slope, and their spread its
    uncertainty, whatever the pairs of one problem have to do with each other. NaN where a problem
    has no pair of numbers. Source: the infinitesimal jackknife (Jaeckel, 1972), made wider for the
    number of fitted coefficients."""
    r2: float
    """Share of y, less what the numbers that are held fixed explain of it, that x explains."""

    @property
    def slope(self) -> float:
        return float(self.by_problem.nanmean())


NOTHING_LEFT = 1e-9
"""Share of a number's spread below which what is left of it is rounding."""


def line(
    x: Float64[Tensor, "m n"],
    y: Float64[Tensor, "m n"],
    *,
    fixed: Sequence[Float64[Tensor, " n"]] = (),
) -> Line:
    """Y on x over all pairs of numbers of n problems, numbers of the problems being held `fixed`.

    Undefined where those determine x, or where there are no more problems than coefficients.
    """
    return lines(x, y[None], fixed=fixed)[0]


def lines(
    x: Float64[Tensor, "m n"],
    ys: Float64[Tensor, "k m n"],
    *,
    fixed: Sequence[Float64[Tensor, " n"]] = (),
) -> list[Line]:
    """`line` of each of k y on one x; those that are known of the same pairs together."""
    known = torch.isfinite(x) & torch.isfinite(ys)
    alike: dict[bytes, list[int]] = {}
    for place, of_y in enumerate(known):
        alike.setdefault(of_y.numpy().tobytes(), []).append(place)
    found: dict[int, Line] = {}
    for places in alike.values():
        some = _lines(x, ys[places], known[places[0]], fixed)
        found |= dict(zip(places, some, strict=True))
    return [found[place] for place in range(len(ys))]


def _lines(
    x: Float64[Tensor, "m n"],
    ys: Float64[Tensor, "k m n"],
    known: Bool[Tensor, "m n"],
    fixed: Sequence[Float64[Tensor, " n"]],
) -> Iterator[Line]:
    """The same by the pairs that are known."""
    has_pair = known.any(0)
    n_known = int(has_pair.sum())
    basis = _basis([number.expand_as(x)[known] for number in (torch.ones_like(x[0]), *fixed)])
    n_fitted = 1 + basis.shape[1]
    x_left = _left(x[known][:, None], basis)[:, 0]
    spread = x_left.square().sum()
    if spread == 0 or n_known <= n_fitted:
        nothing = Line(torch.full_like(x[0], torch.nan), float("nan"))
        return iter([nothing] * len(ys))
    pairs = ys[:, known]
    left = _left(pairs.mT, basis).mT
    slopes = (left @ x_left / spread)[:, None]
    influence = torch.zeros_like(ys)
    influence[:, known] = x_left * (left - slopes * x_left) * (n_known / spread)
    wider = ((n_known - 1) / (n_known - n_fitted)) ** 0.5
    by_problem = (slopes + wider * influence.sum(1)).where(has_pair, torch.nan)
    total = left.square().sum(1)
    explained = (slopes[:, 0].square() * spread / total).where(total > 0, 0.0)
    r2 = explained.where((pairs != pairs[:, :1]).any(1), torch.nan)
    return map(Line, by_problem, r2.tolist())


def _basis(numbers: Sequence[Float64[Tensor, " pairs"]]) -> Float64[Tensor, "pairs k"]:
    """Orthonormal columns that span all of these numbers but those that follow from others."""
    found = numbers[0].new_zeros(len(numbers[0]), 0)
    for number in numbers:
        left = _left(number[:, None], found)
        if (left != 0).any():
            found = torch.cat([found, left / left.norm()], dim=1)
    return found


def _left(
    numbers: Float64[Tensor, "pairs c"], basis: Float64[Tensor, "pairs k"]
) -> Float64[Tensor, "pairs c"]:
    """What the basis does not explain of each column; 0 where that is rounding."""
    left = numbers
    for _ in range(2):  # once more, for what rounding left of the first time
        left = left - basis @ (basis.mT @ left)
    return left.where(left.norm(dim=0) > NOTHING_LEFT * numbers.norm(dim=0), 0.0)


def following(
    edited: Float64[Tensor, "m n"], clean: Float64[Tensor, " n"], sources: Sources
) -> Line:
    """How far answers follow the value of the source: 1 all the way, 0 not at all.

    The line of the answer's change on the change expected, where three numbers of the base problem
    are held fixed: the right answer, the clean answer, and the mean of the answers expected of
    sources drawn in the same way. Without them an edit that only destroys would seem to follow: the
    change expected is the wanted answer less the right one, so that every answer that loses the
    right one, to the mean or to noise, goes half the way. Sources are drawn at random, and given
    what is expected of such draws the source says nothing more of its base: an answer that knows
    the base alone, in whatever way, has slope 0.

    Source: Robins, Mark & Newey (1992), on treatments less their expectation.
    """
    return following_each(edited[None], clean, sources)[0]


def following_each(
    edited: Float64[Tensor, "k m n"], clean: Float64[Tensor, " n"], sources: Sources
) -> list[Line]:
    """`following` of the answers along each of k directions."""
    right = torch.from_numpy(sources.base.answers).double()
    fixed = (right, sources.usual, clean.where(torch.isfinite(clean), 0.0))
    return lines(sources.expected - right, edited - clean, fixed=fixed)


def mean_slope(
    by_problem: Float64[Tensor, "*rows k n"],
    edited: Float64[Tensor, "*rows k m n"],
    clean: Float64[Tensor, " n"],
    how: Resampling,
    *,
    drawn: bool,
) -> Averaged:
    """The mean slope along k directions, and its interval.

    There is no interval where the answers of fewer than `SHIFTS.fewest` problems move. One of a
    slope that two or three problems make holds in .3 to .9 of cases, and one of a slope that no
    problem makes has no width.

    Args:
        by_problem: see `Line`.
        edited: answers.
        clean: without an edit.
        how: the level of the interval.
        drawn: the directions are a sample, and others might have been drawn.
    """
    found = averaged(by_problem, how, drawn=drawn)
    moved = (torch.isfinite(edited) & (edited != clean)).flatten(-3, -2).any(-2)
    enough = moved.sum(-1) >= SHIFTS.fewest
    return Averaged(found.mean, *(end.where(enough, torch.nan) for end in (found.low, found.high)))


def _own_slopes(x: Float64[Tensor, "m n"], ys: Float64[Tensor, "k m n"]) -> Float64[Tensor, "k n"]:
    """Of each problem's answers on those expected, over its sources; NaN where they are one."""
    xs = x.where(torch.isfinite(ys), torch.nan)
    xs, ys = xs - xs.nanmean(1, keepdim=True), ys - ys.nanmean(1, keepdim=True)
    spread = xs.square().nansum(1)
    return torch.where(spread > 0, (xs * ys).nansum(1) / spread, torch.nan)


def _monotonicity(expected: Float64[Tensor, "m n"], edited: Float64[Tensor, "k m n"]) -> float:
    """Kendall's tau of pairs of sources of the same problem, pooled over problems."""
    first, second = torch.triu_indices(len(expected), len(expected), offset=1)
    given = edited[:, first] - edited[:, second]
    asked = (expected[first] - expected[second]).expand_as(given)
    compared = (asked != 0) & torch.isfinite(given)
    return float((asked.sign() * given.sign())[compared].mean())
