"""p of paired differences against all flips of signs, and under the null."""

from itertools import product

import numpy as np
import pytest
import torch

from mech_arith.statistics import Resampling
from mech_arith.statistics.paired import paired_p

MANY = Resampling(n_permutations=20_000, seed=1)


def test_p_is_that_of_all_flips_by_hand():
    x = np.array([0.5, 1.0, -0.5, 1.0, 0.25, 1.0])
    sums = [abs(float(np.dot(x, signs))) for signs in product((-1, 1), repeat=len(x))]
    by_hand = np.mean(np.array(sums) >= abs(x.sum()) - 1e-12)
    found = paired_p(torch.from_numpy(x)[None], MANY)
    assert float(found.p[0]) == pytest.approx(by_hand, abs=0.01)
    assert float(found.p_max[0]) == float(found.p[0])  # nothing else was searched


def test_the_sign_and_the_unit_of_a_difference_change_nothing():
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    found, turned = paired_p(x, MANY), paired_p(-7 * x, MANY)
    torch.testing.assert_close(found.p, turned.p)
    torch.testing.assert_close(found.p_max, turned.p_max)


def test_no_difference_is_no_finding_and_a_missing_problem_counts_as_none():
    x = torch.zeros(2, 30, dtype=torch.float64)
    x[1, :20] = 1
    longer = torch.cat([x, torch.full((2, 5), torch.nan, dtype=torch.float64)], dim=1)
    found = paired_p(longer, MANY)
    assert found.p[0] == found.p_max[0] == 1
    assert found.p_max[1] < 0.001


def test_the_smallest_of_many_is_small_as_often_as_it_says():
    generator = torch.Generator().manual_seed(2)
    how = Resampling(n_permutations=199)
    # Ten rows that depend on each other: heads against the mean of the others.
    cases = torch.randint(2, (200, 10, 50), generator=generator).double()
    cases = cases - (cases.sum(1, keepdim=True) - cases) / 9
    small = [float(paired_p(case, how).p_max.min()) <= 0.05 for case in cases]
    assert np.mean(small) <= 0.09
    plain = [float(paired_p(case, how).p.min()) <= 0.05 for case in cases]
    assert np.mean(plain) > 0.2  # what the correction is for
