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
    one_way,
    with_imagined,
)

ENTRIES = 4_000_000
"""Numbers that are worked on at a time, at most: 32 MB."""


def drawn_interval(
    x: Shaped[Tensor, "*rows m n"], how: Resampling, *, of: Outcomes = NUMBERS
) -> Interval:
    """Of means over m draws and n problems, of which either might have been others.

    The squared error is that of Owen's (2007) pigeonhole bootstrap, which draws both anew, less
    what that counts more than once; see `two_way`. Of one draw, the interval is of its own mean.
    """
    rows = x.shape[:-2]
    ends = [
        two_way(with_imagined(part, of)).interval(how, of, part.flatten(1).nanmean(1))
        for part in _parts(x)
    ]
    return Interval(*(torch.cat(end).reshape(rows) for end in zip(*ends, strict=True)))


class Excess(NamedTuple):
    """How far the target's mean lies above that of its controls; each `[*rows]`."""

    estimate: Float64[Tensor, "*rows"]
    low: Float64[Tensor, "*rows"]
    high: Float64[Tensor, "*rows"]
    p: Float64[Tensor, "*rows"]
    """Two-sided, of the target being one more draw; Student's t, so that far tails are resolved."""
    p_rank: Float64[Tensor, "*rows"]
    """One-sided: the share of draws, the target among them, whose mean is at least the target's."""


def excess(
    target: Shaped[Tensor, "*rows n"],
    controls: Shaped[Tensor, "*rows m n"],
    how: Resampling,
    *,
    of: Outcomes = DIFFERENCES,
) -> Excess:
    """Mean of the target minus the mean over draws of controls, on the same problems.

    Both draws and problems are random (see `two_way`). The interval is of how far the target lies
    above the mean of all directions that might be drawn. That alone says little: directions differ,
    and nearly every one lies above or below their mean (of random directions of random networks,
    half are found to with p below .05). So p asks whether the target would be an unusual draw; see
    `another_draw`. Without a control all is NaN; with one draw the difference, and p, are from that
    draw alone. What is NaN in the target or in a control is left out.

    Args:
        target: an outcome per problem.
        controls: the same of each draw.
        how: the level of the interval.
        of: what target minus control is. Two drops in accuracy from one baseline differ in [-1, 1];
            give `NUMBERS` for a shift of the prediction.
    """
    rows, m = target.shape[:-1], controls.shape[-2]
    if m == 0:
        return Excess(*torch.full((5, *rows), torch.nan, dtype=torch.float64))
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
    two = two_way(with_imagined(differences, of))
    low, high = two.interval(how, of, estimate)
    means, own = controls.nanmean(2), target.nanmean(1)
    at_least = (means >= own[:, None]).sum(1)
    share = (1 + at_least).double() / (means.shape[1] + 1)
    p_rank = torch.where(own.isfinite(), share, torch.nan)
    return Excess(estimate, low, high, another_draw(with_imagined(differences, of)).p(), p_rank)


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


def another_draw(differences: Float64[Tensor, "*rows m n"]) -> Estimate:
    """Of the mean difference between one thing and m draws, if the one were a draw like them.

    Draws on the same problems can be exchanged then, and the mean of m of them and another one
    differ with variance s^2 (1 + 1/m), where s^2 is the variance of the draws' means, with m - 1
    degrees of freedom; but at least as in `two_way`, for problems are a sample too.
    """
    two = two_way(differences)
    m = differences.shape[-2]
    if m == 1:
        return two
    by_draw = one_way(differences.nanmean(-1))
    error = by_draw.error * (m + 1) ** 0.5
    wider = error > two.error
    return Estimate(
        two.mean,
        torch.where(wider, error, two.error),
        torch.where(wider, by_draw.freedom, two.freedom),
    )
