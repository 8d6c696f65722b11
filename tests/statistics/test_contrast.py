"""Targets against drawn controls, both of draws and problems being random."""

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from mech_arith.statistics import (
    DIFFERENCES,
    NUMBERS,
    Resampling,
    drawn_interval,
    excess,
    largest_of_all,
)
from mech_arith.statistics.contrast import two_way

HOW = Resampling()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(cases, m, n, *, draws, problems, seed=0):
    """Outcomes with a part of the draw, a part of the problem and noise of 1; the mean is 0."""
    of_draw = draws * normal(cases, m, 1, seed=seed)
    of_problem = problems * normal(cases, 1, n, seed=seed + 1)
    return of_draw + of_problem + normal(cases, m, n, seed=seed + 2)


def test_by_hand():
    x = torch.tensor([[1.0, 2.0, 6.0], [3.0, 0.0, 6.0]], dtype=torch.float64)
    found = two_way(x)
    assert float(found.mean) == 3
    a, b = 0.0, np.var([2, 1, 6], ddof=1) / 3
    # What rows and columns leave: -1 1 0, and its negative; 2 degrees of freedom.
    e = 4 / 2 / 6
    assert a + b - e < b
    assert float(found.error) == pytest.approx(np.sqrt(b))


def test_what_neither_explains_is_counted_once():
    x = torch.tensor([[0.0, 2.0, 5.0], [2.0, 3.0, 9.0]], dtype=torch.float64)
    # Means 7/3 and 14/3 of the draws, 1, 2.5 and 7 of the problems, 3.5 of all.
    a, b = (7 / 3) ** 2 / 2 / 2, (2.5**2 + 1 + 3.5**2) / 2 / 3
    rest = [[1 / 6, 4 / 6, -5 / 6], [-1 / 6, -4 / 6, 5 / 6]]
    e = np.square(rest).sum() / 2 / 6
    found = two_way(x)
    assert float(found.error) == pytest.approx(np.sqrt(a + b - e))
    assert float(found.freedom) == pytest.approx((a + b - e) ** 2 / (a**2 / 1 + b**2 / 2))


def test_the_error_is_that_of_drawing_both_anew():
    """The spread of means over many fresh draws and problems is what the error says."""
    x = drawn(3000, 10, 40, draws=0.3, problems=1.0)
    means = x.flatten(1).mean(1)
    assert float(two_way(x).error.square().mean().sqrt()) == pytest.approx(
        float(means.std()), rel=0.05
    )


def test_it_is_near_the_pigeonhole_bootstraps():
    x = drawn(1, 20, 100, draws=0.5, problems=1.0)[0]
    rng = np.random.default_rng(0)
    means = [
        x[rng.integers(20, size=20)][:, rng.integers(100, size=100)].mean() for _ in range(3000)
    ]
    assert float(two_way(x).error) == pytest.approx(np.std(means), rel=0.08)


def test_of_one_draw_it_is_students_over_problems():
    x = normal(2, 1, 30)
    found = drawn_interval(x, HOW)
    expected = ttest_1samp(x[1, 0], 0).confidence_interval(0.95)
    assert float(found.low[1]) == pytest.approx(expected.low)
    assert float(found.high[1]) == pytest.approx(expected.high)


@pytest.mark.parametrize(("draws", "problems"), [(0.0, 1.0), (0.1, 1.0), (1.0, 1.0), (1.0, 0.0)])
def test_intervals_over_draws_and_problems_cover(draws: float, problems: float):
    found = drawn_interval(drawn(1500, 20, 60, draws=draws, problems=problems), HOW)
    covered = float(((found.low <= 0) & (found.high >= 0)).double().mean())
    assert 0.93 <= covered <= 0.97


def costly(rows: int, m: int, n: int, *, size: float, seed: int = 0):
    """Answers lost along m directions; they differ more, the smaller the size. And the mean."""
    random = np.random.default_rng(seed)
    mean = random.uniform(0.05, 0.35, size=(rows, 1))
    chance = random.beta(size * mean, size * (1 - mean), size=(rows, m))
    lost = random.uniform(size=(rows, m, n)) < chance[..., None]
    return torch.from_numpy(lost).double(), torch.from_numpy(mean[:, 0])


@pytest.mark.parametrize("m", [2, 3, 5, 20])
@pytest.mark.parametrize("size", [0.3, 1.0, 8.0, 1000.0])
def test_intervals_of_few_draws_hold(m: int, size: float):
    """Whether directions cost alike, or most cost nothing and some nearly all."""
    lost, mean = costly(1000, m, 100, size=size)
    generator = torch.Generator().manual_seed(m)
    target = (torch.rand(1000, 100, generator=generator) < 0.6).double()
    found = excess(target, lost, HOW)
    held = (found.low <= 0.6 - mean) & (0.6 - mean <= found.high)
    assert float(held.double().mean()) >= 0.93
    own = drawn_interval(lost, HOW, of=DIFFERENCES)
    assert float(((own.low <= mean) & (mean <= own.high)).double().mean()) >= 0.92


def test_the_excess_by_hand():
    target = torch.tensor([1.0, 1.0, 0.0, 1.0])
    controls = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    found = excess(target, controls, HOW)
    assert float(found.estimate) == pytest.approx(3 / 4 - 5 / 12)
    assert float(found.p) == pytest.approx(2 / 4)  # the second draw is as good
    assert -1 <= found.low <= found.estimate <= found.high <= 1


def skewed(rows, m, n, *, seed=0):
    """Drops of directions most of which cost little, and some much; of single problems."""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(rows, m, 1, generator=generator) ** 6
    return (torch.rand(rows, m, n, generator=generator) < cost).double()


def test_where_nothing_differs_p_is_as_small_as_it_says():
    for x in (drawn(2000, 21, 50, draws=0.2, problems=1.0), skewed(2000, 21, 50)):
        # A target drawn like its controls is seldom told from them, whatever their distribution.
        like = excess(x[:, 0], x[:, 1:], HOW, of=NUMBERS)
        assert float((like.p <= 0.05).double().mean()) == pytest.approx(1 / 21, abs=0.015)


def test_p_of_a_search_is_as_small_as_it_says():
    for x in (drawn(4000, 21, 50, draws=0.2, problems=1.0), skewed(4000, 21, 50)):
        means = x.mean(2).reshape(400, 10, 21)  # 400 searches among 10 targets each
        p = torch.stack([largest_of_all(found[:, 0], found[:, 1:]) for found in means])
        found = float((p.amin(1) <= 0.05).double().mean())
        assert found <= 1 / 21 + 0.03
        assert found > 0.01


def test_the_largest_of_all_by_hand():
    draws = torch.tensor([[0.0, 0.0, 0.0, 0.1], [0.5, 0.1, 0.2, 0.3]], dtype=torch.float64)
    p = largest_of_all(torch.tensor([0.9, 0.2], dtype=torch.float64), draws)
    # Of the first row the target lies at z = 1.99; no draw comes near, in either row.
    assert float(p[0]) == pytest.approx(1 / 5)
    # Of the second it lies below the mean: the first, third and fourth draws lie higher somewhere,
    # and so does the second, which has the target's own z in no row.
    z = (0.2 - 0.26) / float(torch.tensor([0.2, 0.5, 0.1, 0.2, 0.3]).double().std(correction=0))
    assert z < 0
    assert float(p[1]) >= 4 / 5
    nothing = largest_of_all(torch.zeros(3).double(), torch.zeros(3, 20).double())
    assert nothing.tolist() == [1.0, 1.0, 1.0]
    assert largest_of_all(torch.zeros(2).double(), torch.zeros(2, 0).double()).isnan().all()


def test_all_problems_fall_and_still_there_is_doubt():
    sure = excess(torch.ones(50), torch.zeros(20, 50), HOW)
    assert sure.low < 1 == sure.high
    assert float(sure.p) == pytest.approx(1 / 21)


def test_no_difference_at_all():
    same = excess(torch.zeros(50), torch.zeros(20, 50), HOW)
    assert (float(same.estimate), float(same.p)) == (0, 1)
    assert same.low < 0 < same.high
    assert float(excess(torch.zeros(5), torch.zeros(3, 5), HOW, of=NUMBERS).p) == 1


def test_without_controls_nothing_is_known_and_with_one_its_draw_is():
    found = excess(torch.ones(2, 9), torch.ones(2, 0, 9), HOW)
    assert all(part.isnan().all() and part.shape == (2,) for part in found)
    target, control = normal(30), normal(30, seed=1)
    one = excess(target, control[None], HOW, of=NUMBERS)
    assert float(one.p) == (0.5 if float((target - control).mean()) > 0 else 1.0)
    half = ttest_1samp(target - control, 0).confidence_interval()
    assert (float(one.low), float(one.high)) == pytest.approx((half.low, half.high))


def test_what_is_not_a_number_is_left_out_and_rows_stand_for_themselves(monkeypatch):
    target, controls = normal(4, 3, 12), normal(4, 3, 5, 12, seed=1)
    whole = excess(target, controls, HOW, of=NUMBERS)
    monkeypatch.setattr("mech_arith.statistics.contrast.ENTRIES", 130)
    parts = excess(target, controls, HOW, of=NUMBERS)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    longer = torch.cat([controls, torch.full((4, 3, 5, 2), torch.nan)], dim=-1)
    gaps = excess(torch.cat([target, torch.ones(4, 3, 2)], dim=-1), longer, HOW, of=NUMBERS)
    torch.testing.assert_close(gaps.low, whole.low)
    torch.testing.assert_close(gaps.p, whole.p)
