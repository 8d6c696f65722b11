"""Intervals of means: by hand, against statsmodels, and by how often they cover the truth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from mech_arith.statistics import (
    DISTANCES,
    SHIFTS,
    Interval,
    Resampling,
    mean_interval,
    paired_interval,
    share_interval,
)

HOW = Resampling()


def test_of_a_mean_it_is_students():
    x = np.random.default_rng(0).exponential(size=(3, 12))
    found = mean_interval(torch.from_numpy(x), HOW)
    for row, low, high in zip(x, *found, strict=True):
        expected = ttest_1samp(row, 0).confidence_interval(0.95)
        assert (float(low), float(high)) == pytest.approx((expected.low, expected.high))


def test_by_hand():
    low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0]), Resampling(level=0.9))
    reach = student.ppf(0.95, 2) * 1 / math.sqrt(3)
    assert (float(low), float(high)) == pytest.approx((2 - reach, 2 + reach))


def test_a_share_has_agresti_and_coulls_but_for_students_quantile():
    hits = torch.arange(1000) < 930
    found = share_interval(hits, HOW)
    # Two successes and two failures more are z^2 / 2 of each for z = 2.
    expected = proportion_confint(930, 1000, method="agresti_coull")
    np.testing.assert_allclose([float(end) for end in found], expected, atol=2e-4)


def test_a_paired_difference_has_bonett_and_prices_but_for_students_quantile():
    n, gained, lost = 400, 30, 10
    x = torch.zeros(n)
    x[:gained], x[gained : gained + lost] = 1.0, -1.0
    mean = (gained - lost) / (n + 2)
    p12, p21 = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    error = math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    expected = (mean - 1.96 * error, mean + 1.96 * error)
    found = paired_interval(x, HOW)
    np.testing.assert_allclose([float(end) for end in found], expected, atol=2e-4)


def test_outcomes_that_are_all_the_same_leave_room_for_others():
    low, high = share_interval(torch.ones(50), HOW)
    assert 0.85 < low < 0.95
    assert high == 1
    low, high = paired_interval(torch.zeros(50), HOW)
    assert -0.1 < low < 0 < high < 0.1


def test_what_is_not_a_number_is_left_out():
    gaps = torch.tensor([[1.0, math.nan, 2.0, 4.0, math.nan], [math.nan] * 5])
    found = mean_interval(gaps, HOW)
    expected = mean_interval(torch.tensor([1.0, 2.0, 4.0]), HOW)
    for end, known in zip(found, expected, strict=True):
        assert float(end[0]) == pytest.approx(float(known))
        assert end[1].isnan()
    assert share_interval(torch.tensor([math.nan, math.nan]), HOW).low.isnan()


def test_one_number_has_no_interval():
    assert mean_interval(torch.tensor([3.0]), HOW).low.isnan()


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.floats(0.5, 0.999))
def test_it_holds_the_point_and_stays_in_the_range(hits: list[float], level: float):
    low, high = share_interval(torch.tensor(hits), Resampling(level=level))
    assert 0 <= low <= np.mean(hits) + 1e-12
    assert np.mean(hits) - 1e-12 <= high <= 1


def coverage(found, truth):
    """Share of intervals that hold the truth."""
    rounding = 1e-12
    return float(
        ((found.low - rounding <= truth) & (truth <= found.high + rounding)).double().mean()
    )


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_intervals_of_shares_cover(n: int, share: float):
    generator = torch.Generator().manual_seed(n)
    hits = torch.rand(2000, n, generator=generator) < share
    covered = coverage(share_interval(hits, HOW), share)
    assert covered >= 0.935
    assert covered <= 0.98 or share > 0.9  # so near to 1 too few other outcomes are possible


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize(("up", "down"), [(0.3, 0.1), (0.9, 0.0), (0.05, 0.01), (0.0, 0.0)])
def test_intervals_of_drops_cover(n: int, up: float, down: float):
    drawn = torch.rand(2000, n, generator=torch.Generator().manual_seed(n))
    drops = (drawn < up).double() - (drawn > 1 - down).double()
    covered = coverage(paired_interval(drops, HOW), up - down)
    assert covered >= 0.935
    assert covered <= 0.98 or up < 0.1


def test_a_shift_by_hand():
    x = torch.zeros(40, dtype=torch.float64)
    x[:10] = torch.tensor([3.0, -1.0, 1, 1, 1, 1, 1, 1, 1, -5])
    low, high = mean_interval(x, HOW, of=SHIFTS)
    more = torch.cat([x, torch.tensor([5.0, 5.0, -5.0, -5.0])])
    half = student.ppf(0.975, 43) * float(more.std()) / math.sqrt(44)
    assert (float(low), float(high)) == pytest.approx((4 / 44 - half, 4 / 44 + half))
    low, high = mean_interval(x.abs(), HOW, of=DISTANCES)
    more = torch.cat([x.abs(), torch.tensor([5.0, 5.0, 0.0, 0.0])])
    middle = float(more.mean())
    half = student.ppf(0.975, 43) * float(more.std()) / math.sqrt(44)
    assert (float(low), float(high)) == pytest.approx((max(0, middle - half), middle + half))
    x[9] = 0  # nine answers that move say too little of what the others would have done
    assert mean_interval(x, HOW, of=SHIFTS).low.isnan()
    x[9] = torch.nan
    assert mean_interval(x.abs(), HOW, of=DISTANCES).high.isnan()


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize("moving", [0.01, 0.02, 0.05, 0.2, 0.5])
def test_intervals_of_shifts_hold_or_there_is_none(n: int, moving: float):
    """Digits are changed: most answers stay, some move by 1, 10 or 100 times 1 to 9."""
    generator = torch.Generator().manual_seed(n)
    digit = torch.randint(1, 10, (2000, n), generator=generator)
    amounts = 10.0 ** torch.randint(0, 3, (2000, n), generator=generator) * digit
    moved = (torch.rand(2000, n, generator=generator) < moving) * amounts
    back = torch.rand(2000, n, generator=generator) < 0.2
    truth = moving * 37 * 5
    for x, of, mean in (
        (moved, DISTANCES, truth),
        (moved.where(~back, -moved), SHIFTS, 0.6 * truth),
    ):
        found = mean_interval(x, HOW, of=of)
        held = coverage(Interval(found.low.nan_to_num(-1e9), found.high.nan_to_num(1e9)), mean)
        assert held >= 0.93
        if n * moving >= 20:
            assert bool(found.low.isfinite().double().mean() > 0.99)
