import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from mech_arith.problems.balancing import balance, choose, decorrelating_logits


def nothing(total: int) -> np.ndarray:
    return np.empty((total, 0))


def means(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Among the chosen, as expected."""
    return expit(logits) @ features / expit(logits).sum()


# Balancing


def test_two_rows_worked_out_by_hand() -> None:
    """One of two rows with -1 and 3: their mean is 0 where the first is three times as likely."""
    found = balance(np.array([[-1.0], [3.0]]), nothing(2), 1)
    np.testing.assert_allclose(expit(found.logits), [0.75, 0.25], rtol=1e-6)


def test_three_rows_worked_out_by_hand() -> None:
    """Two of three rows with -1, 0 and 1 and a mean of 0: all are as likely, 2/3 each, and a mean
    of at most -1/4 takes odds with p3 - p1 = -1/2 and p1 + p2 + p3 = 2 whose logits lie on a line.
    """
    rows = np.array([[-1.0], [0.0], [1.0]])
    even = balance(rows, nothing(3), 2)
    np.testing.assert_allclose(expit(even.logits), [2 / 3] * 3, rtol=1e-6)
    slack = balance(nothing(3), rows - 0.25, 2)
    np.testing.assert_allclose(expit(slack.logits), [2 / 3] * 3, rtol=1e-6)
    assert slack.coefficients[1] == pytest.approx(0, abs=1e-6)
    tight = balance(nothing(3), rows + 0.25, 2)
    p = expit(tight.logits)
    assert p.sum() == pytest.approx(2, abs=1e-6)
    assert p[2] - p[0] == pytest.approx(-0.5, abs=1e-6)
    assert tight.logits[0] - tight.logits[1] == pytest.approx(tight.logits[1] - tight.logits[2])
    assert tight.coefficients[1] > 0.1


def test_what_is_impossible_is_approached() -> None:
    """Of the numbers 1 and 2 none has a mean of 0: the smaller is taken almost surely."""
    found = balance(np.array([[1.0], [2.0]]), nothing(2), 1)
    assert expit(found.logits)[0] > 0.999


@given(
    features=arrays(np.float64, (40, 2), elements=st.floats(-2, 2)),
    n=st.integers(2, 30),
    rest=st.integers(1, 2**32),
)
def test_odds_sum_to_n_and_meet_conditions_that_can_be_met(
    features: np.ndarray, n: int, rest: int
) -> None:
    """They can be met by odds from .2 to .8 times some level, which are taken for the target."""
    odds = np.random.default_rng(rest).uniform(0.2, 0.8, size=40)
    odds *= min(n / odds.sum(), 1 / odds.max())
    n = max(2, int(odds.sum()))
    odds *= n / odds.sum()
    odds = np.minimum(odds, 1)
    features = features - odds @ features / odds.sum()
    equal, at_most = features[:, :1], features[:, 1:]
    logits = balance(equal, at_most, n).logits
    assert expit(logits).sum() == pytest.approx(n, rel=1e-3)
    assert means(equal, logits)[0] == pytest.approx(0, abs=2e-3)
    assert means(at_most, logits)[0] <= 2e-3


@given(seed=st.integers(0, 2**32), n=st.integers(20, 150))
def test_no_other_odds_that_meet_the_condition_have_more_entropy(seed: int, n: int) -> None:
    """Odds stay a solution's sum and mean when they move across both; the entropy only falls."""
    random = np.random.default_rng(seed)
    feature = random.normal(size=300) + 0.3
    found = expit(balance(feature[:, None], nothing(300), n).logits)
    move = random.normal(size=300)
    across = np.column_stack([np.ones(300), feature])
    move -= across @ np.linalg.lstsq(across, move, rcond=None)[0]
    room = np.minimum(found, 1 - found) / np.abs(move)
    moved = found + 0.5 * room.min() * move

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum())

    assert entropy(found) >= entropy(moved) - 1e-9


# Holding correlations down


def weighted_correlations(x: np.ndarray, others: np.ndarray, logits: np.ndarray) -> np.ndarray:
    weights = expit(logits)
    covariance = np.cov(np.column_stack([x, others]).T, aweights=weights)
    sd = np.sqrt(np.diag(covariance))
    return (covariance / np.outer(sd, sd))[0, 1:]


@pytest.mark.parametrize("bound", [0.05, 0.12, 0.3])
@pytest.mark.parametrize("given_as", ["sum", "product", "quotient", "summand"])
def test_correlations_are_held_within_the_bound(given_as: str, bound: float) -> None:
    a, b = np.random.default_rng(0).integers(1, 100, size=(2, 5000)).astype(float)
    value, *others = {
        "sum": (a + b, a, b),
        "product": (a * b, a, b),
        "quotient": (a // b, a, b),
        "summand": (a, b, a + b),
    }[given_as]
    logits = decorrelating_logits(value, np.column_stack(others), 200, bound=bound)
    found = weighted_correlations(value, np.column_stack(others), logits)
    assert np.abs(found).max() <= bound + 0.005
    assert expit(logits).sum() == pytest.approx(200, rel=1e-3)


def test_where_the_bound_holds_already_all_are_as_likely() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1000))
    logits = decorrelating_logits(a, b[:, None], 100, bound=0.2)
    # Only the mean is held where it is.
    np.testing.assert_allclose(expit(logits), 0.1, rtol=1e-3)


def test_scale_and_shift_do_not_matter() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 500))
    first = decorrelating_logits(a + b, b[:, None], 50, bound=0.1)
    second = decorrelating_logits(1e6 * (a + b) - 7, 3 - 1e-3 * b[:, None], 50, bound=0.1)
    np.testing.assert_allclose(expit(first), expit(second), rtol=0.01, atol=1e-5)


def test_without_a_choice_there_is_nothing_to_balance() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    assert (decorrelating_logits(a + b, b[:, None], 10, bound=0.1) == 0).all()


# Choosing


def test_rows_are_distinct_and_chosen_as_often_as_their_odds_say() -> None:
    p = np.repeat([0.1, 0.3, 0.8], [200, 100, 100])
    logits = np.log(p / (1 - p))
    random = np.random.default_rng(0)
    counts = np.zeros(400)
    for _ in range(500):
        rows = choose(logits, 130, random)
        assert len(np.unique(rows)) == 130
        counts[rows] += 1
    for level in (0.1, 0.3, 0.8):
        # Five standard errors of a share of 50000 draws and more: below .012.
        assert counts[p == level].mean() / 500 == pytest.approx(level, abs=0.012)


def test_all_rows_can_be_chosen() -> None:
    assert choose(np.zeros(5), 5, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
