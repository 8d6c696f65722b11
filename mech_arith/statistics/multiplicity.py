"""p-values of many tests, adjusted so that the whole of them can be judged at one level.

Tests that are NaN were not made: they stay NaN and do not count.
"""

import torch
from jaxtyping import Float
from scipy.stats import false_discovery_control
from torch import Tensor

ALPHA = 0.05
"""Adjusted p up to which a finding counts as one."""


def holm(p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The family-wise error is at most the level at which adjusted p-values are called significant.

    The i-th smallest of m (from 0) times m - i, made monotone. Source: Holm (1979).
    """
    known = p.isfinite()
    ordered, order = p[known].sort()
    m = len(ordered)
    adjusted = (ordered * torch.arange(m, 0, -1)).cummax(0).values.clamp(max=1) if m else ordered
    return _in_place(p, known, order, adjusted)


def benjamini_hochberg(p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The share of false ones among those called significant is at most the level, on average.

    For tests that are independent, or depend positively on each other.

    Source: Benjamini & Hochberg (1995).
    """
    known = p.isfinite()
    flat = p[known]
    adjusted = torch.from_numpy(false_discovery_control(flat.numpy())) if len(flat) else flat
    return _in_place(p, known, torch.arange(len(flat)), adjusted)


def _in_place(
    p: Float[Tensor, "..."],
    known: Tensor,
    order: Tensor,
    adjusted: Float[Tensor, " m"],
) -> Float[Tensor, "..."]:
    """Adjusted p-values, given in `order`, where the known ones were."""
    flat = torch.empty_like(adjusted)
    flat[order] = adjusted
    found = torch.full_like(p, torch.nan)
    found[known] = flat
    return found
