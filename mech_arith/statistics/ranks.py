"""p-values by rank: a number among numbers that were drawn as it might have been."""

from math import ceil

import torch
from jaxtyping import Float64
from torch import Tensor

ALIKE = 1e-9
"""Numbers of size 1 that differ by less are the same: sums of the same numbers in another order do.
Drops of two directions differ by 1e-6 or more, if at all."""


def rank_p(
    found: Float64[Tensor, "*rows"],
    draws: Float64[Tensor, "*rows m"],
    *,
    size: float | Float64[Tensor, "*rows"] = 1.0,
) -> Float64[Tensor, "*rows"]:
    """Share of draws, the found number among them, that are as large; NaN without a draw.

    Exact where the found number could be one more draw, whatever they are distributed like
    (Phipson & Smyth, 2010). Draws that are the same but for rounding count as large, so that a tie
    never makes p smaller. Draws that are NaN are left out.

    Args:
        found: what is compared.
        draws: with what.
        size: of the numbers that both were summed from: rounding is in proportion to it.
    """
    reach = (found - ALIKE * size)[..., None]
    as_large, known = (draws >= reach).sum(-1), (~draws.isnan()).sum(-1)
    p = (1 + as_large).double() / (1 + known)
    return torch.where((known > 0) & ~found.isnan(), p, torch.nan)


def least_p(n_draws: int, *, n_tests: int = 1) -> float:
    """The smallest p that so many draws can give, NaN for none.

    Args:
        n_draws: that each number is ranked among.
        n_tests: over which p is corrected by Holm. The maximum over tests (`largest_of_all`) needs
            no more draws than one test: leave it at 1.
    """
    return min(1.0, n_tests / (1 + n_draws)) if n_draws else float("nan")


def draws_needed(alpha: float, *, n_tests: int = 1) -> int:
    """The fewest draws with which `least_p` is at most alpha."""
    return ceil(n_tests / alpha - ALIKE) - 1
