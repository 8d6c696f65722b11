"""Values told apart from their relatives: against regressions done one by one."""

from itertools import permutations

import numpy as np
import pytest
import torch
from statsmodels.stats.outliers_influence import variance_inflation_factor

from mech_arith.common.errors import UserError
from mech_arith.statistics import (
    partial_correlation,
    partial_given_each,
    pearson,
    relation,
    relations,
    shapley_shares,
)

NAMES = ["a", "b", "c", "b-c", "a-(b-c)"]


def numbers(n=80, v=3, seed=0):
    """Values that correlate, and two coordinates that depend on them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, v)) @ rng.normal(size=(v, v)) + 50
    x = np.stack([values @ rng.normal(size=v), values[:, 0] ** 2], axis=1)
    return torch.from_numpy(x + rng.normal(size=x.shape)), torch.from_numpy(values)


def subtraction(n=60):
    a, b, c = np.random.default_rng(1).integers(100, 1000, size=(3, n)).astype(float)
    return torch.from_numpy(np.stack([a, b, c, b - c, a - (b - c)], axis=1))


def left_over(y, others):
    """What a linear regression on the columns `others` leaves of y."""
    columns = np.column_stack([np.ones(len(y)), others])
    return y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]


def test_the_partial_r_is_that_of_what_regressions_leave():
    x, values = numbers()
    for given in ([0, 1, 2], [1], [0, 2], []):
        found = partial_correlation(x, values, given=given)
        for k, v in np.ndindex(2, 3):
            others = values[:, [other for other in given if other != v]].numpy()
            one, other = (left_over(y.numpy(), others) for y in (x[:, k], values[:, v]))
            expected = np.corrcoef(one, other)[0, 1]
            assert float(found[k, v]) == pytest.approx(expected, abs=1e-9)


def test_the_partial_r_by_hand():
    # R of x with y .5, of both with z .5: (.5 - .25) / .75.
    drawn = np.random.default_rng(0).normal(size=(9, 3))
    columns = np.linalg.qr(np.column_stack([np.ones(9), drawn]))[0][:, 1:]
    root = np.linalg.cholesky(np.array([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]]))
    x, y, z = torch.from_numpy((columns @ root.T).T)
    found = partial_correlation(x[:, None], torch.stack([y, z], dim=1), given=[1])
    assert float(found[0, 0]) == pytest.approx(1 / 3)


def test_given_each_other_value_alone():
    x, values = numbers()
    found = partial_given_each(x, values)
    for given in range(3):
        expected = partial_correlation(x, values, given=[given])
        others = [v for v in range(3) if v != given]
        torch.testing.assert_close(found[:, others, given], expected[:, others])
        assert found[:, given, given].isnan().all()


def test_a_value_that_others_make_up_has_no_partial_r():
    values = subtraction()
    x = values[:, [3]] + 10 * torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    assert partial_correlation(x, values, given=range(5)).isnan().all()
    apart = partial_correlation(x, values[:, :3], given=range(3))
    assert apart.isfinite().all()
    # Given b the value b-c is as good as c: the same partial R, of the other sign.
    given_b = partial_correlation(x, values, given=[1])
    assert float(given_b[0, 3]) == pytest.approx(-float(given_b[0, 2]))
    assert not partial_given_each(x, values)[0, 3, [0, 1, 2, 4]].isnan().any()
    twice = torch.cat([values[:, :1], 2 * values[:, :1] + 3], dim=1)
    assert partial_given_each(x, twice).isnan().all()


def test_a_coordinate_that_values_make_up_has_no_partial_r():
    _, values = numbers()
    x = values[:, [0]] - values[:, [1]]
    assert partial_correlation(x, values, given=[0, 1])[0, 2].isnan()


def test_a_coordinate_that_is_one_value_has_nothing_of_another_beside_it():
    _, values = numbers()
    found = partial_given_each(values[:, [0]], values)[0]
    assert found[1, 0] == 0  # given the value that it is
    assert float(found[0, 1]) == pytest.approx(1)


def test_a_constant_has_no_partial_r_and_holds_nothing_fixed():
    x, values = numbers()
    with_constant = torch.cat([values, torch.full((80, 1), 7.0)], dim=1)
    found = partial_correlation(x, with_constant, given=range(4))
    torch.testing.assert_close(found[:, :3], partial_correlation(x, values, given=range(3)))
    assert found[:, 3].isnan().all()
    assert partial_given_each(x, with_constant)[:, :, 3].isnan().all()


def test_relations_are_named():
    values = subtraction()
    assert relations(values, NAMES) == ["b-c = b - c", "a-(b-c) = a - (b-c)"]
    assert relation(values, NAMES, "b-c") == "b-c = b - c"
    assert relation(values, NAMES, "a") == "a = (b-c) + (a-(b-c))"
    assert relation(values[:, :3], NAMES[:3], "b") == ""
    assert relation(values, NAMES, "b-c", among=["a", "b"]) == ""


def test_relations_say_weights_and_constants():
    a, b = torch.randint(1, 100, (2, 40), generator=torch.Generator().manual_seed(0)).double()
    values = torch.stack([a, b, 2 * a - b / 4 + 3, -a, torch.ones(40)], dim=1)
    names = ["a", "b", "much", "minus", "one"]
    assert relations(values, names) == [
        "much = 2*a - 0.25*b + 3",
        "minus = -a",
        "one is constant",
    ]


def test_of_many_values_those_that_can_be_left_out_are():
    rng = np.random.default_rng(0)
    parts = torch.from_numpy(rng.integers(1, 100, size=(50, 6)).astype(float))
    whole = parts[:, [1, 3, 4]].sum(1, keepdim=True)
    names = [*"uvwxyz", "v+x+y"]
    assert relation(torch.cat([parts, whole], dim=1), names, "v+x+y") == "v+x+y = v + x + y"
    assert relations(torch.cat([parts, whole], dim=1), names) == ["v+x+y = v + x + y"]


def test_a_small_part_of_a_large_number_is_not_rounding():
    a, b, c = torch.randint(100, 1000, (3, 60), generator=torch.Generator().manual_seed(0)).double()
    digit = c % 10
    values = torch.stack([a, b, a * b, digit, a * b + digit], dim=1)
    names = ["a", "b", "a*b", "c", "a*b+c"]
    assert relation(values, names, "a*b+c", among=["a", "b", "a*b"]) == ""
    assert relations(values, names) == ["a*b+c = (a*b) + c"]
    x = values[:, [3]] + torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    found = partial_correlation(x, values[:, [2, 4]], given=[0, 1])
    digits = pearson(x, values[:, [3]]).abs()
    np.testing.assert_allclose(found[0].abs(), float(digits), atol=0.2)


def test_products_are_no_relations():
    a, b = torch.randint(1, 100, (2, 40), generator=torch.Generator().manual_seed(0)).double()
    assert relations(torch.stack([a, b, a * b], dim=1), ["a", "b", "a*b"]) == []


def test_what_inflates_a_variance_takes_from_the_partial_r():
    """The share of a value that others leave is one over statsmodels' variance inflation."""
    _, values = numbers()
    designed = np.column_stack([np.ones(80), values.numpy()])
    inflation = variance_inflation_factor(designed, 1)
    left = left_over(values[:, 0].numpy(), values[:, 1:].numpy())
    assert np.var(left) / np.var(values[:, 0].numpy()) == pytest.approx(1 / inflation)
    assert relation(values, ["u", "v", "w"], "u") == ""


def r_squared(x, columns):
    return 1 - np.var(left_over(x, columns)) / np.var(x)


def shapley_by_orders(x, values):
    """What each value adds to R^2, averaged over all orders, by regression after regression."""
    v = values.shape[1]
    orders = list(permutations(range(v)))
    shares = np.zeros(v)
    for order in orders:
        for place, value in enumerate(order):
            before, after = values[:, order[:place]], values[:, order[: place + 1]]
            shares[value] += (r_squared(x, after) - r_squared(x, before)) / len(orders)
    return shares


def test_shapley_shares_are_the_averages_over_all_orders():
    for x, values in (numbers(v=4), (numbers(60)[0], subtraction())):
        found = shapley_shares(x, values)
        for row, k in zip(found, range(2), strict=True):
            expected = shapley_by_orders(x[:, k].numpy(), values.numpy())
            np.testing.assert_allclose(row, expected, atol=1e-9)
            whole = r_squared(x[:, k].numpy(), values.numpy())
            assert float(row.sum()) == pytest.approx(whole, abs=1e-9)
        assert bool((found >= 0).all())


def test_shares_of_uncorrelated_values_are_their_r_squared():
    columns = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(30, 4)))[0])
    columns = columns - columns.mean(0)
    values = torch.linalg.qr(columns[:, :3]).Q
    x = columns[:, 3:] + values @ torch.tensor([[1.0], [2.0], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(shapley_shares(x, values), pearson(x, values).square())


def test_shares_where_something_is_constant():
    x, values = numbers()
    with_constant = torch.cat([values, torch.ones(80, 1)], dim=1)
    found = shapley_shares(torch.cat([x, torch.ones(80, 1)], dim=1), with_constant)
    torch.testing.assert_close(found[:2, :3], shapley_shares(x, values))
    assert float(found[:2, 3].abs().max()) < 1e-12
    assert found[2].isnan().all()


def test_too_many_values_are_refused():
    with pytest.raises(UserError, match=r"^expected at most 12 values .* got 13; choose"):
        shapley_shares(torch.ones(5, 1), torch.ones(5, 13))
