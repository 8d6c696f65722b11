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

from mech_arith.common.errors import UserError
from mech_arith.statistics.basic import pearson

NOTHING = 1e-12
"""A share of a value's variance that is rounding."""
NEGLIGIBLE = 1e-9
"""A constant this small beside the numbers is rounding."""
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

    NaN for the value itself, and for a pair that is perfectly correlated. 0 where the other value
    leaves nothing of the coordinate, which is then that value's alone.
    """
    between, with_x = _correlations(x, values)
    own, other = with_x[:, :, None], with_x[:, None, :]
    left_x, left_y = 1 - other.square(), (1 - between.square()).expand_as(own * other)
    found = _ratio(own - other * between, left_x, left_y)
    found = torch.where((left_x <= NOTHING) & (left_y > NOTHING), 0.0, found)
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
    """The linear combination of other values that one value is, as in `b-c = b - c`; '' for none.

    Of one or two values if there is such a combination, else one that can do without none of its
    values; of several the one of the earliest values, since those that it is made of come before.

    Args:
        values: of every problem.
        names: of the columns.
        of: the value in question.
        among: the values that it may be combined of; all others by default.
    """
    between = pearson(values, values)
    this = names.index(of)
    if bool(between[this, this].isnan()):
        return f"{of} is constant"
    others = [i for i, name in enumerate(names) if name in (names if among is None else among)]
    chosen = _smallest(
        between, this, [i for i in others if i != this and not bool(between[i, i].isnan())]
    )
    if not chosen:
        return ""
    return f"{of} = {_combination(values[:, this], values[:, chosen], [names[i] for i in chosen])}"


def _smallest(between: Float64[Tensor, "v v"], this: int, others: list[int]) -> list[int]:
    """The few of the other values that make up this one; none if they do not."""
    if not others or not _make_up(between, this, [others])[0]:
        return []
    for size in (1, 2):
        sets = sorted(combinations(others, size), key=lambda some: some[::-1])
        for some, do in zip(sets, _make_up(between, this, sets) if sets else [], strict=True):
            if do:
                return list(some)
    for other in reversed(others):
        without = [one for one in others if one != other]
        if _make_up(between, this, [without])[0]:
            others = without
    return others


def _make_up(
    between: Float64[Tensor, "v v"], this: int, sets: Sequence[Sequence[int]]
) -> list[bool]:
    """Whether each set of values, all of one size, leaves nothing of this one."""
    places = torch.tensor(sets, dtype=torch.int64)
    within, on_this = between[places[:, :, None], places[:, None]], between[places, this]
    inverse = torch.linalg.pinv(within, rtol=NOTHING, hermitian=True)
    explained = torch.einsum("si,sij,sj->s", on_this, inverse, on_this)
    return (1 - explained < NOTHING).tolist()


def relations(values: Float[Tensor, "n v"], names: Sequence[str]) -> list[str]:
    """Every value that is a linear combination of values before it, as in `b-c = b - c`."""
    found = [relation(values, names, name, among=names[:place]) for place, name in enumerate(names)]
    return [text for text in found if text]


def _combination(y: Float[Tensor, " n"], x: Float[Tensor, "n s"], names: Sequence[str]) -> str:
    """The linear combination of the columns of `x` that `y` is: 'b - c', '2*a + (b-c) + 3'."""
    x, y = x.double(), y.double()
    centred = x - x.mean(0)
    weights = torch.linalg.lstsq(centred, (y - y.mean())[:, None], driver="gelsd").solution[:, 0]
    constant = float(y.mean() - weights @ x.mean(0))
    terms = [
        (factor, ("" if f"{abs(factor):.3g}" == "1" else f"{abs(factor):.3g}*") + _bracketed(name))
        for factor, name in zip(weights.tolist(), names, strict=True)
    ]
    if abs(constant) > NEGLIGIBLE * float(y.abs().max()):
        terms.append((constant, f"{abs(constant):.3g}"))
    (factor, first), *rest = terms
    start = f"-{first}" if factor < 0 else first
    return " ".join([start, *(f"{'-' if factor < 0 else '+'} {text}" for factor, text in rest)])


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
