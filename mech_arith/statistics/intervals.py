"""Confidence intervals of means over problems.

All have one form: estimate -+ t * standard error. The bootstrap's standard error of a mean is known
without drawing a sample (Efron & Tibshirani, 1993, equation 5.12: it is that of the plug-in
variance), so none is drawn. Percentiles of drawn samples cover less: 85% in place of 95% for five
numbers, 91% for a share of .99 of 50 problems.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch
from jaxtyping import Float64, Shaped
from scipy.special import stdtrit
from torch import Tensor

SMALLEST = torch.finfo(torch.float64).tiny
"""What is below this is said as this, for no p-value is 0."""


@dataclass(frozen=True)
class Resampling:
    """How intervals and nulls are computed."""

    level: float = 0.95
    """Of every interval."""
    n_resamples: int = 1000
    """Of the bootstrap over problems."""
    n_permutations: int = 1000
    """Of the null of the largest |R|, and of iia by chance."""
    seed: int = 0

    def quantile(self, freedom: Float64[Tensor, "*rows"]) -> Float64[Tensor, "*rows"]:
        """How many standard errors an interval of Student's t reaches to either side."""
        return torch.as_tensor(stdtrit(freedom.numpy(), (1 + self.level) / 2))


class Interval(NamedTuple):
    """The ends of confidence intervals; NaN where undefined."""

    low: Float64[Tensor, "..."]
    high: Float64[Tensor, "..."]


@dataclass(frozen=True)
class Outcomes:
    """What kind of numbers are averaged."""

    imagined: tuple[float, ...] = ()
    """Outcomes of problems that are added before the interval is computed. Without them, problems
    with all the same outcome would give an interval of no width."""
    imagined_draws: tuple[float, ...] = ()
    """Outcomes of directions that are added where directions were drawn: a few of them say too
    little of how much directions differ."""
    in_largest: bool = False
    """Imagined outcomes are in units of the largest that was seen."""
    fewest: int = 0
    """Problems whose outcome is not 0 below which there is no interval."""
    least: float = -inf
    most: float = inf


SHARES = Outcomes(imagined=(0.0, 0.0, 1.0, 1.0), least=0.0, most=1.0)
"""0 or 1. Source: Agresti & Coull (1998), two successes and two failures more."""
DIFFERENCES = Outcomes(imagined=(-1.0, 1.0), imagined_draws=(0.0, 0.5), least=-1.0, most=1.0)
"""Of two outcomes of 0 or 1 of the same problem. Source: Bonett & Price (2012), one difference of
each sign more. Beside drawn directions, one more that costs nothing and one that costs half of the
answers. With them intervals of an excess over 2, 3, 5 and 20 draws cover .94 or more in simulation,
also where few directions cost anything; without them .6 to .97."""
NUMBERS = Outcomes()
"""Any, of a distribution that is not far from normal."""
SHIFTS = Outcomes(imagined=(1.0, 1.0, -1.0, -1.0), in_largest=True, fewest=10)
"""How far answers move: most not at all, and a few by any amount. No interval of a mean holds
whatever the amounts may be (Bahadur & Savage, 1956), and of one or two problems that move none is
of any use: two more are imagined that move as far as the farthest, to either side, and where fewer
than ten move there is no interval. At most .06 of simulated cases have a false interval: 40 to 1000
problems, 1% to all of them moved, by equal amounts or by powers of ten."""
DISTANCES = Outcomes(imagined=(0.0, 0.0, 1.0, 1.0), in_largest=True, fewest=10, least=0.0)
"""The same to whichever side. At most .08 are false, .12 for 40 problems and lognormal amounts
whose logarithm has a standard deviation of 1.5."""


class Estimate(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of that; all `[*rows]`."""

    mean: Float64[Tensor, "*rows"]
    error: Float64[Tensor, "*rows"]
    freedom: Float64[Tensor, "*rows"]

    def interval(
        self, how: Resampling, of: Outcomes, observed: Float64[Tensor, "*rows"]
    ) -> Interval:
        """Around the mean, and around what was `observed` without imagined problems."""
        reach = how.quantile(self.freedom) * self.error
        low = torch.minimum((self.mean - reach).clamp(of.least, of.most), observed)
        high = torch.maximum((self.mean + reach).clamp(of.least, of.most), observed)
        return Interval(low, high)


def share_interval(hits: Shaped[Tensor, "*rows n"], how: Resampling) -> Interval:
    """Of shares of outcomes that are 0 or 1, such as an accuracy."""
    return mean_interval(hits, how, of=SHARES)


def paired_interval(differences: Shaped[Tensor, "*rows n"], how: Resampling) -> Interval:
    """Of means of differences in [-1, 1] on the same problems, such as a drop in accuracy."""
    return mean_interval(differences, how, of=DIFFERENCES)


def mean_interval(
    x: Shaped[Tensor, "*rows n"], how: Resampling, *, of: Outcomes = NUMBERS
) -> Interval:
    """Of means over problems; entries that are NaN are left out."""
    x = x.double()
    found = one_way(with_imagined(x, of)).interval(how, of, x.nanmean(-1))
    return where_known(found, x, of)


def where_known(found: Interval, x: Float64[Tensor, "*rows n"], of: Outcomes) -> Interval:
    """NaN where fewer problems than needed have an outcome that is not 0."""
    enough = (x.nan_to_num(0.0) != 0).sum(-1) >= of.fewest
    return Interval(*(torch.where(enough, end, torch.nan) for end in found))


def with_imagined(x: Float64[Tensor, "*rows n"], of: Outcomes) -> Float64[Tensor, "*rows n2"]:
    """With the problems that are imagined; without any where there is no other."""
    imagined = torch.tensor(of.imagined, dtype=torch.float64).expand(*x.shape[:-1], -1)
    if of.in_largest and x.shape[-1]:
        imagined = imagined * x.abs().nan_to_num(0.0).amax(-1, keepdim=True)
    known = x.isfinite().any(-1, keepdim=True)
    return torch.cat([x, torch.where(known, imagined, torch.nan)], dim=-1)


def one_way(x: Float64[Tensor, "*rows n"]) -> Estimate:
    """Of the mean over what is known; s^2 / n is its squared error, with n - 1 degrees."""
    known = x.isfinite()
    n = known.sum(-1).double()
    mean = x.nanmean(-1)
    squares = torch.where(known, x - mean[..., None], 0.0).square().sum(-1)
    return Estimate(mean, (squares / (n - 1) / n).sqrt(), torch.where(n > 1, n - 1, torch.nan))
