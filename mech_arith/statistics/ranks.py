"""p-values by rank: a number among numbers that were drawn as it might have been."""

from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
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


class SequentialP(NamedTuple):
    """P-values by draws that are made one after the other; each `[*rows]`."""

    p: Float64[Tensor, "*rows"]
    n_draws: Int64[Tensor, "*rows"]
    """Draws that p is of: those up to the one that decided it, or all."""
    decided: Bool[Tensor, "*rows"]
    """Further draws would not change p."""


def sequential_p(
    found: Float64[Tensor, "*rows"], draws: Float64[Tensor, "*rows m"], *, stop_after: int
) -> SequentialP:
    """P of a number among draws that stop once `stop_after` of them are as large.

    Where the `stop_after`-th comes as the l-th draw, p is `stop_after` / l, and what is drawn
    behind it does not count. Where fewer of m draws are as large, p is (1 + as large) / (1 + m), as
    that of `rank_p`: m is the most that might have been drawn, or p is not yet decided. Where the
    found number could be one more draw, the chance of any p up to alpha is at most alpha: p is at
    most h / l where fewer than h of the first l - 1 draws are as large. A tie counts as large.

    Source: Besag & Clifford (1991), Sequential Monte Carlo p-values, Biometrika 78.

    Args:
        found: what is compared, of size 1 at most: smaller differences than `ALIKE` are none.
        draws: with what, in the order in which they were drawn.
        stop_after: draws as large at which nothing more is drawn, 1 or more.

    Raises:
        ValueError: no draw, or one that is no number.
    """
    m = draws.shape[-1]
    if m == 0 or draws.isnan().any() or found.isnan().any():
        raise ValueError(f"expected draws that are numbers, got {m} with NaN; leave NaN out")
    as_large = (draws >= (found - ALIKE)[..., None]).cumsum(-1)
    decided = as_large[..., -1] >= stop_after
    last = 1 + (as_large < stop_after).sum(-1)
    at_end = (1 + as_large[..., -1]).double() / (1 + m)
    return SequentialP(
        torch.where(decided, stop_after / last.double(), at_end),
        torch.where(decided, last, m),
        decided,
    )


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
