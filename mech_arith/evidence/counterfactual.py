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
    own = torch.stack([_own_slopes(sources.expected, along) for along in edited])
    own = own[torch.isfinite(own)]
    fitted = following_each(edited, clean, sources)
    slope = mean_slope(fitted, edited, clean, how, drawn=drawn)
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
    return next(lines(x, [y], fixed=fixed))


def lines(
    x: Float64[Tensor, "m n"],
    ys: Sequence[Float64[Tensor, "m n"]],
    *,
    fixed: Sequence[Float64[Tensor, " n"]] = (),
) -> Iterator[Line]:
    """`line` of each of many y on one x: what y has no part in is computed once."""
    known_x, seen = torch.isfinite(x), {}
    for y in ys:
        known = known_x & torch.isfinite(y)
        pattern = known.numpy().tobytes()
        if pattern not in seen:
            seen[pattern] = _Given.of(x, fixed, known)
        yield seen[pattern].line(y)


@dataclass(frozen=True)
class _Given:
    """What a line has besides y: x, the numbers that are held fixed, and where all are known."""

    known: Bool[Tensor, "m n"]
    has_pair: Bool[Tensor, " n"]
    """Problems with a pair of numbers."""
    basis: Float64[Tensor, "pairs k"]
    x_left: Float64[Tensor, " pairs"]
    spread: float
    """Sum of squares of `x_left`."""

    @classmethod
    def of(
        cls,
        x: Float64[Tensor, "m n"],
        fixed: Sequence[Float64[Tensor, " n"]],
        known: Bool[Tensor, "m n"],
    ) -> "_Given":
        basis = _basis([number.expand_as(x)[known] for number in (torch.ones_like(x[0]), *fixed)])
        left = _left(x[known], basis)
        return cls(known, known.any(0), basis, left, float(left.square().sum()))

    def line(self, y: Float64[Tensor, "m n"]) -> Line:
        """Of y, by the pairs that are known."""
        n_known, n_fitted = int(self.has_pair.sum()), 1 + self.basis.shape[1]
        if self.spread == 0 or n_known <= n_fitted:
            return Line(torch.full_like(y[0], torch.nan), float("nan"))
        pairs = y[self.known]
        y_left = _left(pairs, self.basis)
        slope = (self.x_left @ y_left) / self.spread
        influence = torch.zeros_like(y)
        rest = y_left - slope * self.x_left
        influence[self.known] = self.x_left * rest * (n_known / self.spread)
        wider = ((n_known - 1) / (n_known - n_fitted)) ** 0.5
        by_problem = slope + wider * influence.sum(0)
        total = y_left.square().sum()
        explained = slope.square() * self.spread / total if total > 0 else torch.zeros_like(total)
        changes = bool((pairs != pairs[0]).any())
        return Line(
            by_problem.where(self.has_pair, torch.nan),
            float(explained) if changes else float("nan"),
        )


def _basis(numbers: Sequence[Float64[Tensor, " pairs"]]) -> Float64[Tensor, "pairs k"]:
    """Orthonormal columns that span all of these numbers but those that follow from others."""
    found = numbers[0].new_zeros(len(numbers[0]), 0)
    for number in numbers:
        left = _left(number, found)
        if (left != 0).any():
            found = torch.cat([found, (left / left.norm())[:, None]], dim=1)
    return found


def _left(
    number: Float64[Tensor, " pairs"], basis: Float64[Tensor, "pairs k"]
) -> Float64[Tensor, " pairs"]:
    """What the basis does not explain; 0 where that is rounding."""
    left = number
    for _ in range(2):  # once more, for what rounding left of the first time
        left = left - basis @ (basis.mT @ left)
    return left if left.norm() > NOTHING_LEFT * number.norm() else torch.zeros_like(left)


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
    return [*lines(sources.expected - right, [*(edited - clean)], fixed=fixed)]


def mean_slope(
    lines: Sequence[Line],
    edited: Float64[Tensor, "k m n"],
    clean: Float64[Tensor, " n"],
    how: Resampling,
    *,
    drawn: bool,
) -> Averaged:
    """The mean slope along k directions, and its interval.

    There is no interval where the answers of fewer than `SHIFTS.fewest` problems move. One of a
    slope that two or three problems make holds in .3 to .9 of cases, and one of a slope that no
    problem makes has no width.
    """
    found = averaged(torch.stack([one.by_problem for one in lines]), how, drawn=drawn)
    moved = torch.isfinite(edited) & (edited != clean)
    if int(moved.any(0).any(0).sum()) >= SHIFTS.fewest:
        return found
    return Averaged(found.mean, *torch.full((2,), torch.nan, dtype=torch.float64))


def _own_slopes(x: Float64[Tensor, "m n"], y: Float64[Tensor, "m n"]) -> Float64[Tensor, " n"]:
    """Of each problem's answers on those expected, over its sources; NaN where they are one."""
    x = x.where(torch.isfinite(y), torch.nan)
    x, y = x - x.nanmean(0), y - y.nanmean(0)
    spread = x.square().nansum(0)
    return torch.where(spread > 0, (x * y).nansum(0) / spread, torch.nan)


def _monotonicity(expected: Float64[Tensor, "m n"], edited: Float64[Tensor, "k m n"]) -> float:
    """Kendall's tau of pairs of sources of the same problem, pooled over problems."""
    first, second = torch.triu_indices(len(expected), len(expected), offset=1)
    given = edited[:, first] - edited[:, second]
    asked = (expected[first] - expected[second]).expand_as(given)
    compared = (asked != 0) & torch.isfinite(given)
    return float((asked.sign() * given.sign())[compared].mean())
