"""Intervals of R by a bootstrap over problems, for many columns at once."""

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from mech_arith.statistics.basic import pearson
from mech_arith.statistics.intervals import Interval, Resampling

SAMPLES = 250
"""That are worked on at a time."""
ENTRIES = 4_000_000
"""Numbers that are worked on at a time, at most: 32 MB."""

ROUNDING = 1e-12
"""An R this near to 1 is perfect."""


LEAST = 4
"""Problems: on Fisher's scale the error of fewer is infinite."""


def correlation_interval(
    x: Float[Tensor, "n k"], y: Float[Tensor, "n v"], how: Resampling
) -> Interval:
    """Of R of every column of `x` with every column of `y`; `[k, v]`, NaN where R is undefined.

    tanh(atanh(R) -+ t * s), where s is the standard deviation of atanh(R) over bootstrap samples
    and t of Student's distribution with n - 2 degrees of freedom. Fisher's (1921) scale makes R
    nearly normal; the bootstrap's spread holds for values that are not, but for heavy tails (.91 in
    place of .95 for cubed normals). A perfect R has an interval of no width, R of fewer than four
    problems none.
    """
    r = pearson(x, y)
    counts = _counts(len(x), how)
    at_once = max(1, ENTRIES // (max(SAMPLES, len(x)) * (2 + y.shape[1])))
    spread = torch.cat([_spread(some, y, counts) for some in x.split(at_once, dim=1)])
    reach = how.quantile(torch.tensor(len(x) - 2.0, dtype=torch.float64)) * spread
    low, high = ((r.atanh() + side * reach).tanh() for side in (-1, 1))
    if len(x) < LEAST:
        return Interval(torch.full_like(r, torch.nan), torch.full_like(r, torch.nan))
    perfect = r.abs() > 1 - ROUNDING
    return Interval(torch.where(perfect, r, low), torch.where(perfect, r, high))


def _counts(n: int, how: Resampling) -> UInt8[Tensor, "b n"]:
    """How often each problem is in each bootstrap sample."""
    generator = torch.Generator().manual_seed(how.seed)
    counts = torch.zeros(how.n_resamples, n, dtype=torch.uint8)
    for sample in counts.split(SAMPLES):
        drawn = torch.randint(n, sample.shape, generator=generator)
        sample.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.uint8))
    return counts


def _spread(
    x: Float[Tensor, "n k"], y: Float[Tensor, "n v"], counts: UInt8[Tensor, "b n"]
) -> Float64[Tensor, "k v"]:
    """Standard deviation of atanh(R) over the samples that `counts` describes.

    Samples in which R is perfect or undefined are left out.
    """
    x, y = _standard(x), _standard(y)
    k, v = x.shape[1], y.shape[1]
    sums = torch.cat([x, x.square(), y, y.square(), (x[:, :, None] * y[:, None]).flatten(1)], dim=1)
    at_whole = ((x.mT @ y) / len(x)).clamp(-1, 1).atanh()
    known, total, squares = torch.zeros(3, k, v, dtype=torch.float64)
    for some in counts.split(SAMPLES):
        means = (some.double() @ sums) / len(x)
        of_x, squares_x, of_y, squares_y, products = means.split([k, k, v, v, k * v], dim=1)
        covariance = products.view(len(some), k, v) - of_x[:, :, None] * of_y[:, None]
        scale_x, scale_y = (squares_x - of_x.square()).rsqrt(), (squares_y - of_y.square()).rsqrt()
        # Around the R of all problems, so that no digits are lost in the difference below.
        z = (covariance * scale_x[:, :, None] * scale_y[:, None]).atanh() - at_whole
        finite = z.isfinite()
        z = z.where(finite, 0.0)
        known += finite.sum(0)
        total += z.sum(0)
        squares += z.square().sum(0)
    return ((squares - total.square() / known) / (known - 1)).sqrt()


def _standard(x: Float[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
    """Mean 0 and variance 1, so that no digits are lost in differences of squares."""
    centred = x.double() - x.double().mean(0)
    return centred / centred.square().mean(0).sqrt()
