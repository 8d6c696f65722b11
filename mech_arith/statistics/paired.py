"""Differences between two things on the same problems: p by flipping or by counting their signs."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from scipy.stats import binomtest
from torch import Tensor

from mech_arith.statistics.intervals import Resampling
from mech_arith.statistics.ranks import rank_p


class PairedP(NamedTuple):
    """P-values of mean differences, two-sided; each `[*rows]`."""

    p: Float64[Tensor, " tests"]
    p_max: Float64[Tensor, " tests"]
    """Corrected for the search among all tests."""


def paired_p(differences: Float[Tensor, "tests n"], how: Resampling) -> PairedP:
    """Of the mean difference of each row: could either sign be as likely, problem by problem?

    The signs are flipped at random, the same way in all rows, so that rows may depend on each
    other in any way. A row is measured by its sum over the root of its sum of squares, which no
    flip changes; `p_max` ranks it among the largest of all rows. What is NaN counts as no
    difference, and so does a row of zeros: its p is 1.

    Source: Fisher (1935), the randomisation test; Westfall & Young (1993), the maximum.
    """
    x = differences.double().nan_to_num(0.0)
    lengths = x.norm(dim=1, keepdim=True)
    x = torch.where(lengths > 0, x / lengths, 0.0)
    generator = torch.Generator().manual_seed(how.seed)
    flips = torch.randint(2, (how.n_permutations, x.shape[1]), generator=generator).double()
    null = (x @ (2 * flips - 1).mT).abs()
    found = x.sum(1).abs()
    largest = null.amax(0).expand_as(null) if len(null) else null
    return PairedP(rank_p(found, null), rank_p(found, largest))


def sign_p(differences: Float64[Tensor, " n"]) -> float:
    """Two-sided p of as many problems on one side, were either side as likely; NaN without any."""
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    if not torch.isfinite(differences).any():
        return float("nan")
    return float(binomtest(above, above + below).pvalue) if above + below else 1.0
