"""How sure the correlations of a run are, and how far they are a value's own: all sites at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.statistics.bootstrap import correlation_interval
from mech_arith.statistics.intervals import Resampling
from mech_arith.statistics.multiplicity import benjamini_hochberg, holm
from mech_arith.statistics.permutation import max_correlation_p
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
    p_max: Float64[Tensor, " v"]
    """Of the largest |R| over the components, against values permuted over problems."""
    p_holm: Float64[Tensor, " v"]
    """The same, corrected for all sites and values of the run: family-wise."""
    p_bh: Float64[Tensor, " v"]
    """And for the rate of false discoveries."""
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
) -> list[Inference]:
    """Inference at every site, from the coordinates of the same problems at each."""
    if not coordinates:
        return []
    sizes = [found.shape[1] for found in coordinates]
    x = torch.cat([found.double() for found in coordinates], dim=1)
    p = max_correlation_p(coordinates, values, how)
    every = range(values.shape[1])
    given_each = partial_given_each(x, values)
    # A value without any other keeps its NaN; `argmin` needs a number.
    given = given_each.abs().nan_to_num(torch.inf).argmin(2)
    least = given_each.gather(2, given[:, :, None])[:, :, 0]
    by_component = (
        *correlation_interval(x, values, how),
        partial_correlation(x, values, given=every),
        least,
        torch.where(least.isnan(), -1, given),
        shapley_shares(x, values)
        if len(every) <= MOST_VALUES
        else torch.full_like(least, torch.nan),
    )
    relations = tuple(relation(values, names, name) for name in names)
    return [
        Inference(
            r_low=low,
            r_high=high,
            p_max=p_max,
            p_holm=p_holm,
            p_bh=p_bh,
            partial_r=partial,
            relations=relations,
            least_partial_r=least_partial,
            least_partial_given=least_given,
            shapley=shares,
        )
        for p_max, p_holm, p_bh, low, high, partial, least_partial, least_given, shares in zip(
            p,
            holm(p),
            benjamini_hochberg(p),
            *(numbers.split(sizes) for numbers in by_component),
            strict=True,
        )
    ]
