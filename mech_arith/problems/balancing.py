"""Odds that hold a value's correlations down and otherwise leave a draw as random as can be.

Entropy balancing (Hainmueller, 2012) of a draw without replacement: n of N rows are to be chosen
with probabilities p of sum n, as near to equal as conditions on the means of some features allow.
With nearness as entropy, the sum of -p log p - (1-p) log(1-p), the log-odds are linear in the
features, and the few coefficients solve a convex problem, the dual.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit

STIFF = 1000.0
"""The largest coefficient of a condition: where not all can be met, what a violation costs."""

MAX_ROUNDS = 60
_SETTLED = 1e-3
_SHRINKS = 0.7
_COLLAPSED = 1e-12


class Balanced(NamedTuple):
    """The solution of one balancing."""

    logits: Float64[np.ndarray, " N"]
    """Log-odds of choosing each row."""

    coefficients: Float64[np.ndarray, " c"]
    """Of the constant, of each feature with mean 0 and of each with a mean of at most 0."""


def balance(
    zero: Float64[np.ndarray, "N e"],
    at_most_zero: Float64[np.ndarray, "N k"],
    n: int,
    *,
    start: Float64[np.ndarray, " c"] | None = None,
) -> Balanced:
    """The odds of largest entropy that are expected to choose n of N rows, n < N.

    Among the chosen every feature of `zero` has mean 0 and every one of `at_most_zero` a mean of at
    most 0; where that is impossible, they come as near to it as `STIFF` presses them. Features
    should be of the order of 1. `start` are the coefficients of a similar problem.
    """
    total, free, signed = len(zero), zero.shape[1], at_most_zero.shape[1]
    features = np.column_stack([np.ones(total), zero, -at_most_zero])
    even = np.append(np.log(n / (total - n)), np.zeros(free + signed))

    def dual(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ coefficients
        slope = features.T @ expit(logits) / n
        slope[0] -= 1
        return np.logaddexp(0, logits).sum() / n - coefficients[0], slope

    solved = minimize(
        dual,
        even if start is None else start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] + [(-STIFF, STIFF)] * free + [(0, STIFF)] * signed,
        options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30},
    )
    return Balanced(features @ solved.x, solved.x)


def decorrelating_logits(
    value: Float64[np.ndarray, " N"],
    others: Float64[np.ndarray, "N k"],
    n: int,
    *,
    bound: float,
) -> Float64[np.ndarray, " N"]:
    """Log-odds under which the value's correlation with each of the others is within `bound`.

    None of them may be constant. Where the mean of `value` is held, the covariance with another is
    linear in the probabilities, and the product of the two standard deviations is concave: so
    |cov| <= bound * sd * sd is a convex condition, and one choice of odds has the largest entropy.
    It is found by turns. The product is the least of (s * var + other's var / s) / 2 over s > 0,
    and for a given s that is a condition on means; s then follows from the odds. Where tails are
    heavy, whole steps would swing to and fro, and are halved until they settle.
    """
    if n >= len(value):
        return np.zeros(len(value))  # all rows are chosen
    value, others = (x - x.mean(0) for x in (value, others))
    value, others = value / value.std(), others / others.std(0)
    ratio, mean = np.ones(others.shape[1]), np.zeros(others.shape[1])
    found, rate, last = Balanced(np.zeros(len(value)), np.empty(0)), 1.0, np.inf
    for turn in range(MAX_ROUNDS):
        centred = others - mean
        product = value[:, None] * centred
        allowed = bound / 2 * (ratio * value[:, None] ** 2 + centred**2 / ratio)
        found = balance(
            value[:, None],
            np.column_stack([product - allowed, -product - allowed]),
            n,
            start=found.coefficients if turn else None,
        )
        weights = expit(found.logits)
        weights /= weights.sum()
        shift = weights @ others - mean
        variance, spread = weights @ value**2, weights @ (centred - shift) ** 2
        if min(variance, spread.min()) < _COLLAPSED:
            break
        step = np.sqrt(spread / variance) / ratio
        change = max(np.abs(np.log(step)).max(), np.abs(shift).max())
        if change < _SETTLED:
            break
        if change > _SHRINKS * last:
            rate /= 2
        ratio, mean, last = ratio * step**rate, mean + rate * shift, change
    return found.logits


def choose(
    logits: Float64[np.ndarray, " N"], n: int, random: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Indices, ascending, of n distinct rows drawn with about these odds.

    Pareto sampling (Rosen, 1997): the n largest of log-odds plus logistic noise. Log-odds that are
    off by a rounding error change the choice only where two rows are as near at the border.
    """
    keys = logits + random.logistic(size=len(logits))
    return np.sort(np.argpartition(-keys, n - 1)[:n])
