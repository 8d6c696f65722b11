from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from mech_arith.statistics import binomial_above, majority_floor, pearson, r_squared


def test_pearson_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)) + 1e4, rng.normal(size=(40, 2))
    ours = pearson(torch.from_numpy(x), torch.from_numpy(y))
    for k, v in np.ndindex(3, 2):
        assert float(ours[k, v]) == pytest.approx(pearsonr(x[:, k], y[:, v]).statistic, abs=1e-9)


def test_pearson_by_hand():
    x = torch.tensor([[1.0], [2.0], [3.0]])
    y = torch.tensor([[1.0, 3.0], [3.0, 2.0], [2.0, 1.0]])
    torch.testing.assert_close(pearson(x, y), torch.tensor([[0.5, -1.0]], dtype=torch.float64))


def test_pearson_of_a_constant_is_undefined():
    assert pearson(torch.ones(5, 1), torch.arange(5.0)[:, None]).isnan().all()


def test_r_squared():
    predicted, actual = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 5.0])
    assert r_squared(predicted, actual) == pytest.approx(r2_score(actual, predicted))
    with_gap = torch.tensor([1.0, 2.0, 4.0, float("nan")])
    assert r_squared(with_gap, torch.tensor([1.0, 3.0, 5.0, 9.0])) == pytest.approx(1 - 2 / 8)
    assert r_squared(torch.tensor([1.0]), torch.tensor([1.0])).isnan()
    assert r_squared(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0])).isnan()


def test_majority_floor_by_hand():
    assert majority_floor(np.array([3, -1, 3, 0, 3, 7, -1, 2])) == 3 / 8
    assert majority_floor(np.array([5, 5])) == 1.0
    assert majority_floor(np.array([1, 2, 3, 4])) == 0.25
    assert np.isnan(majority_floor(np.array([], dtype=np.int64)))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_no_constant_answer_is_right_more_often_than_the_floor(answers: list[int]):
    best = max(answers.count(answer) for answer in answers)
    assert majority_floor(np.array(answers)) == best / len(answers)


def test_binomial_above_by_hand():
    assert binomial_above(3, 3, 0.5) == pytest.approx(1 / 8)
    assert binomial_above(2, 3, 0.5) == pytest.approx(4 / 8)
    assert binomial_above(2, 4, 0.1) == pytest.approx(6 * 0.0081 + 4 * 0.0009 + 0.0001)
    assert binomial_above(0, 5, 0.3) == 1.0
    assert binomial_above(5, 5, 1.0) == 1.0


@given(st.integers(1, 40), st.data())
def test_binomial_above_sums_the_upper_tail(n: int, data: st.DataObject):
    right, floor = data.draw(st.integers(0, n)), data.draw(st.floats(0.01, 0.99))
    tail = sum(comb(n, k) * floor**k * (1 - floor) ** (n - k) for k in range(right, n + 1))
    assert binomial_above(right, n, floor) == pytest.approx(tail, rel=1e-9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_a_constant_answer_is_never_found_above_the_floor(answers: list[int]):
    floor = majority_floor(np.array(answers))
    for constant in set(answers):
        assert binomial_above(answers.count(constant), len(answers), floor) >= 0.5


def test_guesses_that_do_not_read_the_problem_are_seldom_found_above_the_floor():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        answers, guesses = rng.choice(4, size=(2, 30), p=[0.4, 0.3, 0.2, 0.1])
        right = int((answers == guesses).sum())
        found += binomial_above(right, 30, majority_floor(answers)) < 0.05
    assert found <= 0.05 * 400


@pytest.mark.parametrize(
    ("right", "n", "floor", "message"),
    [
        (-1, 5, 0.5, "^k must"),
        (6, 5, 0.5, "^k .* must"),
        (0, 0, 0.5, "^n must"),
        (1, 5, 1.5, "^p .* must"),
        (1, 5, float("nan"), "^p .* must"),
    ],
)
def test_binomial_above_refuses(right: int, n: int, floor: float, message: str):
    with pytest.raises(ValueError, match=message):
        binomial_above(right, n, floor)
