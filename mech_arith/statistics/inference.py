"""How sure the correlations of a run are, and how far they are a value's own: all sites at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mech_arith.statistics.basic import pearson
from mech_arith.statistics.bootstrap import ROUNDING, correlation_interval
from mech_arith.statistics.intervals import Resampling
from mech_arith.statistics.multiplicity import benjamini_hochberg, holm
from mech_arith.statistics.permutation import correlation_p
from mech_arith.statistics.relatives import (
    MOST_VALUES,
    partial_correlation,
    partial_given_each,
    relation,
    shapley_shares,
)


@dataclass(frozen=True)
class Inference:
    """What there is to say of one site's k components and v values beside their R."""

    r_low: Float64[Tensor, "k v"]
    """Ends of the interval of R."""
    r_high: Float64[Tensor, "k v"]
    p: Float64[Tensor, "k v"]
    """Of each R, against values permuted over problems; corrected for nothing."""
    p_holm: Float64[Tensor, "k v"]
    """Of the component chosen for the value, corrected for all sites and values of the run:
    family-wise. NaN for the other components, which are not tested."""
    p_bh: Float64[Tensor, "k v"]
    """The same, corrected for the rate of false discoveries."""
    p_site: Float64[Tensor, " v"]
    """Of the largest |R| over the site's components, whichever it is on these problems."""
    p_site_holm: Float64[Tensor, " v"]
    """The same, corrected for all sites and values of the run: family-wise."""
    partial_r: Float64[Tensor, "k v"]
    """R when all other values are held fixed; NaN where the value is a combination of them."""
    relations: tuple[str, ...]
    """That combination, in words, for each value; '' for none."""
    least_partial_r: Float64[Tensor, "k v"]
    """The smallest in size of the partial Rs when one other value is held fixed; NaN for none."""
    least_partial_given: Int64[Tensor, "k v"]
    """Which value that is; -1 for none."""
    shapley: Float64[Tensor, "k v"]
    """Share of the coordinate's variance that the value explains; NaN beyond `MOST_VALUES`."""


def infer(
    coordinates: Sequence[Float[Tensor, "n _"]],
    values: Float[Tensor, "n v"],
    names: Sequence[str],
    how: Resampling,
    *,
    chosen: Sequence[Int64[Tensor, " v"]],
) -> list[Inference]:
    """Inference at every site, from the coordinates of the same problems at each.

    Args:
        coordinates: of each site's components.
        values: of every problem.
        names: of the values.
        how: intervals and nulls are computed.
        chosen: for each site the component that other problems have chosen for each value; -1 for
            none. These components alone are tested, so that a p belongs to the R beside it.
    """
    if not coordinates:
        return []
    sizes = [found.shape[1] for found in coordinates]
    x = torch.cat([found.double() for found in coordinates], dim=1)
    p = correlation_p(coordinates, values, how)
    tested = _of_chosen(p.own, torch.stack(list(chosen)))
    p_holm, p_bh = _corrected(p.own, tested)
    p_site_holm = holm(p.site)
    relations = tuple(relation(values, names, name) for name in names)
    by_component = zip(
        *(numbers.split(sizes) for numbers in _by_component(x, values, how)), strict=True
    )
    return [
        Inference(
            r_low=low,
            r_high=high,
            p=p.own[site, : sizes[site]],
            p_holm=p_holm[site, : sizes[site]],
            p_bh=p_bh[site, : sizes[site]],
            p_site=p.site[site],
            p_site_holm=p_site_holm[site],
            partial_r=partial,
            relations=relations,
            least_partial_r=least,
            least_partial_given=given,
            shapley=shares,
        )
        for site, (low, high, partial, least, given, shares) in enumerate(by_component)
    ]


def _by_component(
    x: Float64[Tensor, "n k"], values: Float[Tensor, "n v"], how: Resampling
) -> tuple[Tensor, ...]:
    """What does not depend on other components, `[k, v]` each: the ends of R's interval, partial R,
    the least partial R and which value is held fixed there, and Shapley shares.
    """
    every = range(values.shape[1])
    given_each = partial_given_each(x, values)
    # Of a value that goes with another one perfectly nothing is left where that one is held fixed.
    alike = (pearson(values, values).abs() > 1 - ROUNDING).fill_diagonal_(False)
    given_each = torch.where(alike, 0.0, given_each)
    # A value without any other keeps its NaN; `argmin` needs a number.
    given = given_each.abs().nan_to_num(torch.inf).argmin(2)
    least = given_each.gather(2, given[:, :, None])[:, :, 0]
    few = len(every) <= MOST_VALUES
    return (
        *correlation_interval(x, values, how),
        partial_correlation(x, values, given=every),
        least,
        torch.where(least.isnan(), -1, given),
        shapley_shares(x, values) if few else torch.full_like(least, torch.nan),
    )


def _of_chosen(
    p: Float64[Tensor, "sites k v"], chosen: Int64[Tensor, "sites v"]
) -> Bool[Tensor, "sites k v"]:
    """Where the chosen components stand."""
    return torch.arange(p.shape[1])[:, None] == chosen[:, None]


def _corrected(
    p: Float64[Tensor, "sites k v"], tested: Bool[Tensor, "sites k v"]
) -> tuple[Float64[Tensor, "sites k v"], Float64[Tensor, "sites k v"]]:
    """Family-wise, and for the rate of false discoveries; NaN where nothing is tested."""
    asked = p.where(tested, torch.nan)
    return holm(asked), benjamini_hochberg(asked)
