"""The null of the largest |R| over components: values permuted over problems."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from scipy.special import betainc
from torch import Tensor

from mech_arith.statistics.intervals import Resampling

FEW = 10
"""Permutations that reach the observed R below which their count is too coarse a p-value."""
ENTRIES = 8_000_000
"""Numbers that are worked on at a time, at most: 64 MB."""


def max_correlation_p(
    coordinates: Sequence[Float[Tensor, "n _"]], y: Float[Tensor, "n v"], how: Resampling
) -> Float64[Tensor, "sites v"]:
    """The p-value of the largest |R| over a site's components, for each site and value.

    The values are permuted over the problems, the same way for all sites; p is (1 + permutations
    whose largest |R| is as large) / (1 + permutations), which is exact (Phipson & Smyth, 2010).
    Where fewer than `FEW` reach it, p would be limited by the number of permutations, and no
    correction over many sites and values could leave it significant. There p is the tail of R^2
    (see `tail`), summed over the components (Bonferroni), and at most what `FEW` would give.

    NaN where nothing varies.
    """
    n, v = y.shape
    x, values = _unit_rows(coordinates, n), _unit(y)
    largest = (x @ values).abs().amax(1)
    # What is equal but for rounding counts as reached.
    enough = largest * (1 - 1e-12)
    reached = torch.zeros_like(largest)
    at_once = max(1, ENTRIES // (v * max(n, x.shape[0] * x.shape[1])))
    for orders in _permutations(n, how).split(at_once):
        permuted = values[orders].movedim(0, 1).flatten(1)
        null = (x @ permuted).abs().amax(1).view(len(x), len(orders), v)
        reached += (null >= enough[:, None]).sum(1)
    p = (1 + reached) / (1 + how.n_permutations)
    few = (1 + FEW) / (1 + how.n_permutations)
    far = tail(largest.square(), x, values).sum(1).clamp(max=few)
    return torch.where(largest > 0, torch.where(reached < FEW, far, p), torch.nan)


def _unit_rows(coordinates: Sequence[Float[Tensor, "n _"]], n: int) -> Float64[Tensor, "sites k n"]:
    """Centred coordinates of length 1, as rows; 0 for components that a site does not have."""
    most = max((found.shape[1] for found in coordinates), default=0)
    rows = torch.zeros(len(coordinates), max(1, most), n, dtype=torch.float64)
    for row, found in zip(rows, coordinates, strict=True):
        row[: found.shape[1]] = _unit(found).mT
    return rows


def _unit(x: Float[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
    """Centred columns of length 1, so that R is their product; 0 where a column is constant."""
    centred = x.double() - x.double().mean(0)
    norms = centred.norm(dim=0)
    return torch.where(norms > 0, centred / norms, 0.0)


def _permutations(n: int, how: Resampling) -> Int64[Tensor, "b n"]:
    generator = torch.Generator().manual_seed(how.seed)
    return torch.rand(how.n_permutations, n, generator=generator).argsort(dim=1)


def tail(
    r_squared: Float64[Tensor, "sites v"],
    x: Float64[Tensor, "sites k n"],
    y: Float64[Tensor, "n v"],
) -> Float64[Tensor, "sites k v"]:
    """Share of all permutations in which R^2 of a unit row and a unit column is as large, nearly.

    Over all permutations R^2 has mean 1 / (n - 1), and a second moment that follows from the fourth
    moments of the two columns. The Beta distribution with these two moments is Beta(1/2, n/2 - 1)
    for normal columns, which is Student's test. Where one column has heavy and the other light
    tails it would be narrower; that is not made use of. Source: Pitman (1937).
    """
    n = y.shape[0]
    mean, normal = 1 / (n - 1), 3 / (n**2 - 1)
    second = normal + _weight(n) * _excess_kurtosis(x)[..., None] * _excess_kurtosis(y.mT)
    variance = second.clamp(min=normal) - mean**2
    total = mean * (1 - mean) / variance - 1
    a, b = mean * total, (1 - mean) * total
    left = (1 - r_squared).clamp(min=0)[:, None]
    found = torch.as_tensor(betainc(b.numpy(), a.numpy(), left.numpy()))
    return torch.where(x.any(-1)[..., None], found, 0.0)


def _weight(n: int) -> float:
    return (n - 2) * (n - 3) / (n * (n + 1) * (n - 1) ** 3)


def _excess_kurtosis(unit: Float64[Tensor, "*rows n"]) -> Float64[Tensor, "*rows"]:
    """Fisher's k4 / k2^2 of rows of mean 0 and length 1; 0 below four entries."""
    n = unit.shape[-1]
    if n < 4:
        return torch.zeros(unit.shape[:-1], dtype=torch.float64)
    fourth = unit.pow(4).sum(-1)
    return (n - 1) / ((n - 2) * (n - 3)) * (n * (n + 1) * fourth - 3 * (n - 1))
