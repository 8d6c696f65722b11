"""Means over draws and problems, both of them random, and a target against drawn controls."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from mech_arith.statistics.intervals import (
    DIFFERENCES,
    NUMBERS,
    Estimate,
    Interval,
    Outcomes,
    Resampling,
    mean_interval,
    one_way,
    where_known,
    with_imagined,
)
from mech_arith.statistics.ranks import rank_p

ENTRIES = 4_000_000
"""Numbers that are worked on at a time, at most: 32 MB."""


def drawn_interval(
    x: Shaped[Tensor, "*rows m n"], how: Resampling, *, of: Outcomes = NUMBERS
) -> Interval:
    """Intervals of means over m draws and n problems, both drawn at random.

    The squared error is that of Owen's (2007) pigeonhole bootstrap, which draws both anew, less
    what that counts more than once; see `two_way`. Of one draw, the interval is of its own mean.
    """
    rows = x.shape[:-2]
    ends = [_drawn_interval(part, how, of) for part in _parts(x)]
    return Interval(*(torch.cat(end).reshape(rows) for end in zip(*ends, strict=True)))


def _drawn_interval(x: Float64[Tensor, "rows m n"], how: Resampling, of: Outcomes) -> Interval:
    draws = torch.tensor(of.imagined_draws, dtype=torch.float64)
    more = (
        draws[:, None].expand(len(x), -1, x.shape[2]).where(x.isfinite().any(1)[:, None], torch.nan)
    )
    found = two_way(with_imagined(_with_draws(x, more), of))
    ends = found.interval(how, of, x.flatten(1).nanmean(1))
    return where_known(ends, x.abs().nan_to_num(0.0).amax(1), of)


def _with_draws(
    x: Float64[Tensor, "rows m n"], more: Float64[Tensor, "rows d n"]
) -> Float64[Tensor, "rows m2 n"]:
    """With draws that are imagined; of a single draw nothing but itself is asked."""
    return torch.cat([x, more], dim=1) if x.shape[1] > 1 else x


class Averaged(NamedTuple):
    """Means over directions and problems, and their intervals; each `[*rows]`."""

    mean: Float64[Tensor, "*rows"]
    low: Float64[Tensor, "*rows"]
    high: Float64[Tensor, "*rows"]


def averaged(
    x: Shaped[Tensor, "*rows k n"], how: Resampling, *, drawn: bool, of: Outcomes = NUMBERS
) -> Averaged:
    """Over k directions and n problems; what is NaN is left out.

    Args:
        x: an outcome per direction and problem.
        how: the level of the interval.
        drawn: the directions are a sample: others might have been drawn, and the interval knows it.
        of: what outcomes are.
    """
    if drawn:
        return Averaged(x.flatten(-2).nanmean(-1), *drawn_interval(x, how, of=of))
    of_problems = x.nanmean(-2)
    return Averaged(of_problems.nanmean(-1), *mean_interval(of_problems, how, of=of))


class Excess(NamedTuple):
    """How far the target's mean lies above that of its controls; each `[*rows]`."""

    estimate: Float64[Tensor, "*rows"]
    low: Float64[Tensor, "*rows"]
    high: Float64[Tensor, "*rows"]
    p: Float64[Tensor, "*rows"]
    """One-sided: the share of draws, the target among them, whose mean is at least the target's."""


def excess(
    target: Shaped[Tensor, "*rows n"],
    controls: Shaped[Tensor, "*rows m n"],
    how: Resampling,
    *,
    of: Outcomes = DIFFERENCES,
) -> Excess:
    """Mean of the target minus the mean over draws of controls, on the same problems.

    Both draws and problems are random (see `two_way`), and two draws more are imagined, so that the
    interval holds of few draws too, and is wide. The interval is of how far the target lies
    above the mean of all directions that might be drawn. That alone says little: directions differ,
    and nearly every one lies above or below their mean (of random directions in random networks,
    half do so beyond their interval). So p asks whether the target could be one more draw: exact
    whatever the draws' distribution, and never below 1 / (m + 1). Without a control all is NaN;
    with one draw the interval is of the difference from that draw alone. What is NaN in the target
    or in a control is left out.

    Args:
        target: an outcome per problem.
        controls: the same of each draw.
        how: the level of the interval.
        of: what target minus control is. Two drops in accuracy from one baseline differ in [-1, 1];
            give `NUMBERS` for a shift of the prediction.
    """
    rows, m = target.shape[:-1], controls.shape[-2]
    if m == 0:
        return Excess(*torch.full((4, *rows), torch.nan, dtype=torch.float64))
    found = [
        _excess(one.double(), drawn, how, of)
        for one, drawn in zip(
            target.reshape(-1, target.shape[-1]).split(_at_once(controls)),
            _parts(controls),
            strict=True,
        )
    ]
    return Excess(*(torch.cat(column).reshape(rows) for column in zip(*found, strict=True)))


def _excess(
    target: Float64[Tensor, "rows n"],
    controls: Float64[Tensor, "rows m n"],
    how: Resampling,
    of: Outcomes,
) -> Excess:
    differences = target[:, None] - controls
    estimate = differences.flatten(1).nanmean(1)
    more = target[:, None] - torch.tensor(of.imagined_draws, dtype=torch.float64)[:, None]
    two = two_way(with_imagined(_with_draws(differences, more), of))
    low, high = two.interval(how, of, estimate)
    size = torch.maximum(_largest(target), _largest(controls.flatten(1)))
    p = rank_p(torch.zeros_like(estimate), -differences.nanmean(2), size=size)
    return Excess(estimate, low, high, p)


def _largest(x: Float64[Tensor, "rows n"]) -> Float64[Tensor, " rows"]:
    """Size of the largest number of each row."""
    return x.abs().nan_to_num(0.0).amax(1)


def _at_once(x: Shaped[Tensor, "*rows m n"]) -> int:
    """Rows that are worked on at a time."""
    return max(1, ENTRIES // max(1, x.shape[-2] * x.shape[-1]))


def _parts(x: Shaped[Tensor, "*rows m n"]) -> Iterator[Float64[Tensor, "some m n"]]:
    for part in x.reshape(-1, *x.shape[-2:]).split(_at_once(x)):
        yield part.double()


def two_way(x: Float64[Tensor, "*rows m n"]) -> Estimate:
    """Of the mean over draws and problems, both of them random; entries that are NaN are left out.

    With A the variance of the draws' means over m, B that of the problems' means over n, and E the
    variance of what neither explains over m * n, the squared error is A + B - E, since A and B each
    contain E; but at least A, and at least B. Degrees of freedom: Satterthwaite (1946).
    """
    by_draw, by_problem = one_way(x.nanmean(-1)), one_way(x.nanmean(-2))
    if x.shape[-2] == 1:
        return by_problem
    mean = x.flatten(-2).nanmean(-1)
    a, b = by_draw.error.square(), by_problem.error.square()
    rest = x - x.nanmean(-1, keepdim=True) - x.nanmean(-2, keepdim=True) + mean[..., None, None]
    e = rest.square().flatten(-2).nanmean(-1) / (by_draw.freedom * by_problem.freedom)
    squared = torch.maximum(a + b - e, torch.maximum(a, b))
    spread = a.square() / by_draw.freedom + b.square() / by_problem.freedom
    freedom = torch.where(spread > 0, squared.square() / spread, by_problem.freedom)
    return Estimate(mean, squared.sqrt(), freedom)


def largest_of_all(
    targets: Float64[Tensor, " t"], controls: Float64[Tensor, "t m"]
) -> Float64[Tensor, " t"]:
    """P-values of targets against draws, each corrected for the search among all t of them.

    Every mean is measured from the mean of its m draws and its target, in their standard deviation;
    p is the share of draws, the targets among them, whose largest mean over all t lies as high.
    Under the null that every target is one more draw, the chance of any p up to alpha is at most
    alpha, whatever the draws' distribution and however they depend. NaN without draws.

    Source: Westfall & Young (1993), the single-step maximum.
    """
    if not controls.numel():
        return torch.full_like(targets, torch.nan)
    every = torch.cat([targets[:, None], controls], dim=1)
    spread = every.std(1, correction=0, keepdim=True)
    centred = every - every.mean(1, keepdim=True)
    z = torch.where(spread > 1e-12, centred / spread, 0.0)
    return rank_p(z[:, 0], z[:, 1:].amax(0).expand_as(controls))
