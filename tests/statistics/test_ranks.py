"""p-values by rank, with ties that rounding must not break."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from mech_arith.statistics import (
    ALPHA,
    draws_needed,
    excess,
    holm,
    least_p,
    rank_p,
    sequential_p,
)
from mech_arith.statistics.intervals import NUMBERS, Resampling


def float64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_by_hand():
    found = rank_p(float64(3.0), float64(1, 2, 3, 4)[None])
    assert float(found) == pytest.approx(3 / 5)
    rows = rank_p(float64(9, 0, math.nan, 1), float64(1, 2, 3, math.nan).expand(4, -1))
    assert rows[[0, 1, 3]].tolist() == pytest.approx([1 / 4, 1, 1])
    assert rows[2].isnan()
    assert rank_p(float64(1.0), torch.zeros(1, 0, dtype=torch.float64)).isnan()
    assert rank_p(float64(1.0), torch.full((1, 2), torch.nan, dtype=torch.float64)).isnan()


def test_sums_of_the_same_numbers_in_another_order_are_a_tie():
    numbers = (0.1, 0.2, 0.3, -0.7, 1 / 3, 2 / 3)
    sums = torch.stack([float64(*order).cumsum(0)[-1] for order in permutations(numbers)])
    assert len(sums.unique()) > 1, "rounding parts none of these"
    for size in (1.0, 1e6):
        assert float(rank_p(sums.max() * size, sums * size, size=size)) == 1


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_p_of_an_excess_is_that_of_integers(size: float):
    """Outcomes of three sources, counted in integers, and their means in any unit."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (300, 11, 13), generator=generator)
    totals = counts.sum(2)
    right = (1 + (totals[:, 1:] >= totals[:, :1]).sum(1)) / 11
    x = counts.double() / 3 * size
    found = excess(x[:, 0], x[:, 1:], Resampling(), of=NUMBERS)
    torch.testing.assert_close(found.p, right.double())


@pytest.mark.parametrize("n_tests", [1, 2, 3, 7, 20, 60, 300])
def test_so_many_draws_are_needed_and_no_fewer(n_tests: int):
    needed = draws_needed(ALPHA, n_tests=n_tests)
    assert least_p(needed, n_tests=n_tests) <= ALPHA + 1e-12
    assert least_p(needed - 1, n_tests=n_tests) > ALPHA
    # The best that can come out: all draws lie below, in the most extreme of the tests.
    best = rank_p(float64(1.0), torch.zeros(1, needed, dtype=torch.float64))
    others = torch.ones(n_tests - 1, dtype=torch.float64)
    corrected = holm(torch.cat([best, others]))[0]
    assert float(corrected) == pytest.approx(least_p(needed, n_tests=n_tests))


def test_the_least_p_by_hand():
    assert least_p(5) == pytest.approx(1 / 6)
    assert least_p(20) == pytest.approx(1 / 21)
    assert least_p(20, n_tests=5) == pytest.approx(5 / 21)
    assert least_p(20, n_tests=50) == 1
    assert math.isnan(least_p(0))
    assert draws_needed(0.05) == 19


def one_by_one(found: float, draws: np.ndarray, stop_after: int) -> tuple[float, int]:
    """Besag and Clifford's rule as they state it, a draw at a time: p, and the draws it took."""
    as_large = 0
    for n, draw in enumerate(draws, start=1):
        as_large += draw >= found
        if as_large == stop_after:
            return stop_after / n, n
    return (as_large + 1) / (len(draws) + 1), len(draws)


@pytest.mark.parametrize("stop_after", [1, 3, 10, 40])
def test_sequential_p_is_that_of_one_draw_after_the_other(stop_after: int):
    random = np.random.default_rng(stop_after)
    draws = random.integers(0, 8, (200, 40)) / 8  # so few numbers that many tie
    found = random.integers(0, 9, 200) / 8
    p, n_draws, decided = sequential_p(
        torch.from_numpy(found), torch.from_numpy(draws), stop_after=stop_after
    )
    right = [one_by_one(*pair, stop_after) for pair in zip(found, draws, strict=True)]
    np.testing.assert_allclose(torch.stack([p, n_draws.double()], dim=1), np.array(right))
    as_large = (draws >= found[:, None]).sum(1)
    assert decided.tolist() == (as_large >= stop_after).tolist()
    # What is not stopped is ranked among all.
    ranked = rank_p(torch.from_numpy(found), torch.from_numpy(draws))
    torch.testing.assert_close(p[~decided], ranked[~decided])


def test_what_comes_behind_the_draw_that_decides_changes_nothing():
    draws = torch.tensor([0, 1, 0, 1, 0, 0], dtype=torch.float64)
    found = float64(1.0)[0]
    assert sequential_p(found, draws[:3], stop_after=2) == (2 / 4, 3, False)
    for n in (4, 5, 6):
        assert sequential_p(found, draws[:n], stop_after=2) == (2 / 4, 4, True)
    # A sum in another order is a tie.
    assert sequential_p(found + 1e-12, draws, stop_after=2).p == 2 / 4


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_in_all_orders_of_a_target_and_its_draws_p_is_small_as_often_as_it_says(stop_after: int):
    """Exact: of all orders of six numbers, of which the first is the target's."""
    orders = torch.tensor(list(permutations(range(6))), dtype=torch.float64)
    p = sequential_p(orders[:, 0], orders[:, 1:], stop_after=stop_after).p
    for level in p.unique():
        assert float((p <= level).double().mean()) == pytest.approx(float(level))


@pytest.mark.parametrize("draws", [[], [0.1, math.nan]])
def test_sequential_p_needs_draws_that_are_numbers(draws: list[float]):
    with pytest.raises(ValueError, match="expected draws that are numbers, got"):
        sequential_p(float64(1.0)[0], float64(*draws), stop_after=1)
