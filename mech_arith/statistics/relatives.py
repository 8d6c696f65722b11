"""A value told apart from its relatives: partial correlations, and the explained share by value.

All follow from the correlations of values and coordinates, so that one call does for all sites.
Values are often linear combinations of one another: where that leaves a number undefined it is NaN,
and `relation` names the combination.
"""

from collections.abc import Sequence
from itertools import combinations
from math import factorial

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mech_arith.errors import UserError
from mech_arith.statistics.basic import pearson

NOTHING = 1e-9
"""A share of a value's variance that is rounding."""
MOST_VALUES = 12
"""For the decomposition, which takes all 2^v subsets of values."""


def partial_correlation(
    x: Float[Tensor, "n k"], values: Float[Tensor, "n v"], *, given: Sequence[int]
) -> Float64[Tensor, "k v"]:
    """R of every coordinate with every value when the values `given` are held fixed.

    R of what is left of both after linear regression on the values `given`, the value itself apart.
    NaN where nothing is left of either: the value, or the coordinate, is a linear combination.
    """
    between, with_x = _correlations(x, values)
    columns = []
    for value in range(values.shape[1]):
        others = [other for other in given if other != value]
        columns.append(_partial(between, with_x, value, others))
    return torch.stack(columns, dim=1) if columns else with_x


def partial_given_each(
    x: Float[Tensor, "n k"], values: Float[Tensor, "n v"]
) -> Float64[Tensor, "k v v"]:
    """R of every coordinate with every value when one other value is held fixed, for each other.

    NaN for the value itself, and for a pair that is perfectly correlated.
    """
    between, with_x = _correlations(x, values)
    own, other = with_x[:, :, None], with_x[:, None, :]
    found = _ratio(own - other * between, 1 - other.square(), 1 - between.square())
    return found.masked_fill(torch.eye(len(between), dtype=torch.bool), torch.nan)


def _correlations(
    x: Float[Tensor, "n k"], values: Float[Tensor, "n v"]
) -> tuple[Float64[Tensor, "v v"], Float64[Tensor, "k v"]]:
    """Of the values with each other, and of the coordinates with the values."""
    return pearson(values, values), pearson(x, values)


def _partial(
    between: Float64[Tensor, "v v"], with_x: Float64[Tensor, "k v"], value: int, given: list[int]
) -> Float64[Tensor, " k"]:
    given = [other for other in given if not between[other, other].isnan()]
    inverse = torch.linalg.pinv(between[given][:, given], rtol=NOTHING, hermitian=True)
    on_value, on_x = between[given, value], with_x[:, given]
    product = with_x[:, value] - on_x @ inverse @ on_value
    left_of_x = 1 - ((on_x @ inverse) * on_x).sum(1)
    return _ratio(product, left_of_x, 1 - on_value @ inverse @ on_value)


def _ratio(
    product: Float64[Tensor, "..."], left_x: Float64[Tensor, "..."], left_y: Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """A partial R; NaN where no variance is left."""
    defined = (left_x > NOTHING) & (left_y > NOTHING)
    norms = (left_x.clamp(min=NOTHING) * left_y.clamp(min=NOTHING)).sqrt()
    return torch.where(defined, product / norms, torch.nan).clamp(-1, 1)


def relation(
    values: Float[Tensor, "n v"], names: Sequence[str], of: str, among: Sequence[str] | None = None
) -> str:
    """The linear combination of fewest values that one value is, as in `b-c = b - c`; '' for none.

    Of several as small the one of the earliest values: those that it is made of come before it.

    Args:
        values: of every problem.
        names: of the columns.
        of: the value in question.
        among: the values that it may be combined of; all others by default.
    """
    table = dict(zip(names, values.double().mT, strict=True))
    varying = [
        name
        for name in (names if among is None else among)
        if name != of and bool((table[name] != table[name][0]).any())
    ]
    if bool((table[of] == table[of][0]).all()):
        return f"{of} is constant"
    for size in range(1, len(varying) + 1):
        for some in sorted(combinations(range(len(varying)), size), key=lambda them: them[::-1]):
            chosen = [varying[i] for i in some]
            weights = _weights(table[of], torch.stack([table[name] for name in chosen], dim=1))
            if weights is not None:
                return f"{of} = {_said(weights, chosen)}"
    return ""


def relations(values: Float[Tensor, "n v"], names: Sequence[str]) -> list[str]:
    """Every value that is a linear combination of values before it, as in `b-c = b - c`."""
    found = [relation(values, names, name, among=names[:place]) for place, name in enumerate(names)]
    return [text for text in found if text]


def _weights(y: Float64[Tensor, " n"], x: Float64[Tensor, "n s"]) -> Float64[Tensor, " s1"] | None:
    """Constant and weights by which `x` gives `y` in every problem; None if none do."""
    scale = x.std(0)
    columns = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), (x - x.mean(0)) / scale], 1)
    found = torch.linalg.lstsq(columns, y[:, None], driver="gelsd").solution[:, 0]
    left = (y - columns @ found).square().mean() / y.var(correction=0)
    if left > NOTHING:
        return None
    weights = found[1:] / scale
    return torch.cat([(found[0] - weights @ x.mean(0))[None], weights])


def _said(weights: Float64[Tensor, " s1"], names: Sequence[str]) -> str:
    """'b - c', '2*a + (b-c) + 3'."""
    constant, *factors = weights.tolist()
    terms = [
        (factor, ("" if f"{abs(factor):.3g}" == "1" else f"{abs(factor):.3g}*") + _bracketed(name))
        for factor, name in zip(factors, names, strict=True)
    ]
    if abs(constant) > 1e-6:
        terms.append((constant, f"{abs(constant):.3g}"))
    first, *rest = ((("-" if factor < 0 else "+"), text) for factor, text in terms)
    start = first[1] if first[0] == "+" else f"-{first[1]}"
    return " ".join([start, *(f"{sign} {text}" for sign, text in rest)])


def _bracketed(name: str) -> str:
    return name if name.isidentifier() else f"({name})"


def shapley_shares(x: Float[Tensor, "n k"], values: Float[Tensor, "n v"]) -> Float64[Tensor, "k v"]:
    """Share of each coordinate's variance that each value explains; they add up to R^2 of all.

    The Shapley value of R^2 of the linear regression on a set of values: what a value adds to R^2,
    averaged over all orders in which the values may come in. Never negative, and defined whatever
    the relations among the values, which then share. A value that is constant explains 0.
    Source: Lindeman, Merenda & Gold (1980), p. 119; Kruskal (1987).

    Raises:
        UserError: more than `MOST_VALUES` values.
    """
    v = values.shape[1]
    if v > MOST_VALUES:
        raise UserError(
            f"expected at most {MOST_VALUES} values to share the explained variance, got {v}; "
            "choose a shorter expression"
        )
    between, with_x = _correlations(x, values)
    constant = with_x.isnan().all(1)
    between, with_x = between.nan_to_num(0), with_x.nan_to_num(0)
    subsets = _subsets(v)
    # R^2 on a subset is r @ inverse @ r with r the coordinate's correlations: so is the share.
    forms = torch.einsum("vs,sij->vij", _shapley_weights(subsets), _inverses(between, subsets))
    shares = torch.einsum("ki,vij,kj->kv", with_x, forms, with_x).clamp(min=0)
    return shares.masked_fill(constant[:, None], torch.nan)


def _subsets(v: int) -> Bool[Tensor, "subsets v"]:
    """All of them, by the bits of their number."""
    return (torch.arange(2**v)[:, None] >> torch.arange(v)) & 1 == 1


def _inverses(
    between: Float64[Tensor, "v v"], subsets: Bool[Tensor, "subsets v"]
) -> Float64[Tensor, "subsets v v"]:
    """Pseudo-inverse of each subset's correlations; 0 outside the subset."""
    masked = between * (subsets[:, :, None] & subsets[:, None])
    return torch.linalg.pinv(masked, rtol=NOTHING, hermitian=True)


def _shapley_weights(subsets: Bool[Tensor, "subsets v"]) -> Float64[Tensor, "v subsets"]:
    """Of R^2 of each subset in each value's share: |S|! (v - |S| - 1)! / v! where it comes in."""
    v = subsets.shape[1]
    weights = torch.zeros(v, len(subsets), dtype=torch.float64)
    for number, subset in enumerate(subsets.tolist()):
        size = sum(subset)
        for value in range(v):
            if subset[value]:
                weights[value, number] = factorial(size - 1) * factorial(v - size) / factorial(v)
            else:
                weights[value, number] = -factorial(size) * factorial(v - size - 1) / factorial(v)
    return weights
