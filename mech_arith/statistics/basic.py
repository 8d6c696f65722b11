"""Correlations, explained variance, and accuracy against chance: single numbers."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.stats import binomtest, rankdata
from torch import Tensor


def pearson(x: Float[Tensor, "n k"], y: Float[Tensor, "n v"]) -> Float64[Tensor, "k v"]:
    """Pearson's R of every column of `x` with every column of `y`; NaN where one is constant."""
    (x, of_x), (y, of_y) = centred_columns(x), centred_columns(y)
    norms = torch.outer(of_x, of_y)
    return torch.where(norms > 0, x.mT @ y / norms, torch.nan).clamp(-1, 1)


def ranked(x: Float[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """The rank of each number, from 1; the same numbers share the mean of theirs.

    Pearson's R of ranks is Spearman's.
    """
    return torch.from_numpy(rankdata(x.double().numpy()))


ROUNDING = 1e-14
"""Of numbers in float64: columns that vary by less than this share of their size are constant."""


def centred_columns(
    x: Float[Tensor, "n k"],
) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, " k"]]:
    """Columns less their means, and their lengths; 0 of one that is constant but for rounding."""
    x = x.double()
    size = x.abs().amax(0) if len(x) else x.new_zeros(x.shape[1])
    x = x - x.mean(0)
    lengths = x.norm(dim=0)
    return x, lengths.where(lengths > ROUNDING * size * len(x) ** 0.5, 0.0)


def r_squared(
    predicted: Float[Tensor, "*rows n"], actual: Float[Tensor, "*#rows n"]
) -> Float64[Tensor, "*rows"]:
    """1 - residual / total sum of squares of each row, over what is a number in both; NaN below two
    of them, or where they are all the same.
    """
    predicted, wanted = predicted.double(), actual.double().expand_as(predicted)
    keep = torch.isfinite(predicted) & torch.isfinite(wanted)
    wanted = wanted.where(keep, torch.nan)
    total = (wanted - wanted.nanmean(-1, keepdim=True)).square().nansum(-1)
    residual = (predicted - wanted).square().where(keep, 0.0).sum(-1)
    return torch.where((keep.sum(-1) > 1) & (total > 0), 1 - residual / total, torch.nan)


def majority_floor(answers: Int64[np.ndarray, " n"]) -> float:
    """The accuracy of always giving the most frequent of these right answers; NaN for none."""
    if len(answers) == 0:
        return float("nan")
    _, counts = np.unique(answers, return_counts=True)
    return float(counts.max() / len(answers))


def binomial_above(right: int, n: int, floor: float) -> float:
    """One-sided exact p-value of `right` or more of n answers being right by chance `floor` each.

    The test takes each answer for an independent guess. With `majority_floor` of the same n
    problems it errs on the safe side. No guess made without reading the problem can expect more
    than the floor on them: always the same answer is right at most `floor * n` times, and answers
    drawn afresh for each problem have unequal chances of at most `floor` on average, which spread
    their number less than equal ones do (Hoeffding, 1956). As the frequency of the answers that
    chance made the most frequent, the floor moreover lies above that of the population, on
    average. What the test does not cover is a model that reads the problem and follows a rule of
    thumb, such as repeating an operand: a small p-value says "better than a constant", and no more.

    Raises:
        ValueError: `right` is not in 0..n, n is 0, or `floor` is not in [0, 1].
    """
    return float(binomtest(right, n, floor, alternative="greater").pvalue)
