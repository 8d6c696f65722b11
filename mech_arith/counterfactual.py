"""Does the model use a coordinate as a value? Problems in which the value alone is another one.

A *source* of a problem is the same problem with the operands of one value taken from another
problem: there the value is v', and all that stands outside it is as it was. If a coordinate is the
value to the model, then giving it the place that v' has makes the model answer the expression
evaluated with the value replaced by v'.

Source: interchange interventions, Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.expressions import Constraint
from mech_arith.metrics import exact, settled
from mech_arith.problems import ProblemSet
from mech_arith.statistics import SHARES, SHIFTS, Averaged, Resampling, averaged, rank_p

TRIES = 50
"""Partners drawn for a problem before all others are looked through."""


@dataclass(frozen=True, eq=False)
class Sources:
    """For each of n problems m others in which one value alone is another."""

    value: str
    base: ProblemSet
    """The problems that have sources: those of which the value can be another."""
    rows: Int64[Tensor, " n"]
    """Of these among the problems that were asked for."""
    problems: tuple[ProblemSet, ...]
    """m sets of n problems."""
    other: Float64[Tensor, "shuffles m n"]
    """What the problems with other sources, drawn in the same way, would be expected to answer."""

    @cached_property
    def wanted(self) -> Float64[Tensor, "m n"]:
        """The value v' in each source."""
        return _stacked([source.values[self.value] for source in self.problems])

    @cached_property
    def expected(self) -> Float64[Tensor, "m n"]:
        """The answers of the base problems with the value replaced by v'."""
        wanted = [source.values[self.value] for source in self.problems]
        return _expected(self.base, self.value, wanted)

    @cached_property
    def usual(self) -> Float64[Tensor, " n"]:
        """The mean of the answers expected of each problem's sources, were they drawn anew."""
        return self.other.mean((0, 1))

    @property
    def replaces_the_value_alone(self) -> bool:
        """The sources' own answers are the expected ones: the value's operands stand nowhere else.

        Otherwise a source differs from its base in more than the value.
        """
        own = _stacked([source.answers for source in self.problems])
        return bool((own == self.expected).all())


def draw_sources(
    problems: ProblemSet,
    value: str,
    *,
    m: int,
    n_shuffles: int,
    seed: int,
    constraints: Sequence[Constraint] = (),
) -> Sources | None:
    """Give each problem m sources, drawn among its fellows; None where no problem has any.

    A partner has another value, and with its operands the problem is defined and within the
    constraints. Problems for which no partner will do are left out.

    Args:
        problems: the base problems.
        value: what sources differ in.
        m: sources of each problem.
        n_shuffles: times that they are drawn anew for the chance floor, whose p is never below
            1 / (n_shuffles + 1).
        seed: of all draws.
        constraints: kept by the sources too.
    """
    random = np.random.default_rng([seed, *value.encode()])
    inside = problems.template.expression.operands_of(value)

    def drawn(rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        return _partners(problems, rows, value, inside, constraints, random)

    everyone = np.arange(len(problems))
    first = drawn(everyone)
    rows = everyone[first >= 0]
    if not len(rows):
        return None
    partners = [first[rows], *(drawn(rows) for _ in range(m - 1))]
    base = problems.take(rows)
    others = [problems.values[value][drawn(rows)] for _ in range(n_shuffles * m)]
    other = _expected(base, value, others).unflatten(0, (n_shuffles, m))
    sources = tuple(_replaced(base, problems, inside, column) for column in partners)
    return Sources(value, base, torch.from_numpy(rows), sources, other)


def _expected(
    base: ProblemSet, value: str, wanted: Sequence[Int64[np.ndarray, " n"]]
) -> Float64[Tensor, "m n"]:
    """The answers with the value replaced by each of the wanted ones."""
    expression = base.template.expression
    return _stacked([expression.replace(value, column, base.operands) for column in wanted])


def _replaced(
    base: ProblemSet,
    problems: ProblemSet,
    inside: Sequence[str],
    partner: Int64[np.ndarray, " n"],
) -> ProblemSet:
    """The base problems with some operands of their partners."""
    operands = {
        name: problems.operands[name][partner] if name in inside else numbers
        for name, numbers in base.operands.items()
    }
    return ProblemSet.of(base.template, operands)


def _partners(
    problems: ProblemSet,
    rows: Int64[np.ndarray, " some"],
    value: str,
    inside: Sequence[str],
    constraints: Sequence[Constraint],
    random: np.random.Generator,
) -> Int64[np.ndarray, " some"]:
    """For some problems another one each whose operands may be taken; -1 where there is none."""
    found = np.full(len(rows), -1)

    def allowed(base: np.ndarray, partner: np.ndarray) -> np.ndarray:
        operands = {
            name: numbers[partner if name in inside else base]
            for name, numbers in problems.operands.items()
        }
        mask = problems.values[value][base] != problems.values[value][partner]
        mask &= problems.template.expression.defined(operands)
        for constraint in constraints:
            mask &= constraint.holds(operands)
        return mask

    for _ in range(TRIES):
        left = np.flatnonzero(found < 0)
        if not len(left):
            return found
        partner = random.integers(len(problems), size=len(left))
        mask = allowed(rows[left], partner)
        found[left[mask]] = partner[mask]
    for place in np.flatnonzero(found < 0):
        everyone = random.permutation(len(problems))
        will_do = everyone[allowed(np.full(len(everyone), rows[place]), everyone)]
        found[place] = will_do[0] if len(will_do) else -1
    return found


@dataclass(frozen=True)
class Agreement:
    """How far answers follow the wanted values. NaN is what is undefined."""

    agreement: float
    """Share of edited answers that are the expected ones."""
    agreement_low: float
    agreement_high: float
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


def agreement(
    edited: Float64[Tensor, "k m n"],
    clean: Float64[Tensor, " n"],
    sources: Sources,
    *,
    tolerance: float,
    how: Resampling,
    drawn: bool = False,
) -> Agreement:
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
        [exact(along, sources.other, tolerance=tolerance).sum((1, 2)) for along in edited]
    ).sum(0)
    own = torch.stack([_own_slopes(sources.expected, along) for along in edited])
    own = own[torch.isfinite(own)]
    lines = [following(along, clean, sources) for along in edited]
    slope = mean_slope(lines, edited, clean, how, drawn=drawn)
    agreed = averaged(hits.double().mean(1), how, drawn=drawn, of=SHARES)
    low, middle, high = _quartiles(own)
    return Agreement(
        agreement=float(hits.double().mean()),
        agreement_low=float(agreed.low),
        agreement_high=float(agreed.high),
        floor=float(by_chance.double().mean() / hits.numel()),
        p=float(rank_p(hits.sum().double(), by_chance.double())),
        slope=float(slope.mean),
        slope_low=float(slope.low),
        slope_high=float(slope.high),
        r2_change=float(np.mean([one.r2 for one in lines])),
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
    known = torch.isfinite(x) & torch.isfinite(y)
    n_known = int(known.any(0).sum())
    basis = _basis([number.expand_as(x)[known] for number in (torch.ones_like(x[0]), *fixed)])
    n_fitted = 1 + basis.shape[1]
    x_left, y_left = _left(x[known], basis), _left(y[known], basis)
    spread = x_left.square().sum()
    if spread == 0 or n_known <= n_fitted:
        return Line(torch.full_like(x[0], torch.nan), float("nan"))
    slope = (x_left @ y_left) / spread
    influence = torch.zeros_like(x)
    influence[known] = x_left * (y_left - slope * x_left) * (n_known / spread)
    wider = ((n_known - 1) / (n_known - n_fitted)) ** 0.5
    by_problem = slope + wider * influence.sum(0)
    total = y_left.square().sum()
    explained = slope.square() * spread / total if total > 0 else torch.zeros_like(total)
    changes = bool((y[known] != y[known][0]).any())
    return Line(
        by_problem.where(known.any(0), torch.nan), float(explained) if changes else float("nan")
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
    right = torch.from_numpy(sources.base.answers).double()
    fixed = (right, sources.usual, clean.where(torch.isfinite(clean), 0.0))
    return line(sources.expected - right, edited - clean, fixed=fixed)


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
    moves = torch.isfinite(edited) & (edited != clean)
    if int(moves.any(0).any(0).sum()) >= SHIFTS.fewest:
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


def _stacked(columns: Sequence[np.ndarray]) -> Float64[Tensor, "m n"]:
    return torch.from_numpy(np.stack(columns)).double()
