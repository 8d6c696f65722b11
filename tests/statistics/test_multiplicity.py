"""Adjusted p-values."""

import gc
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from mech_arith.statistics import benjamini_hochberg, holm

METHODS = [(holm, "holm"), (benjamini_hochberg, "fdr_bh")]


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> None:
    """statsmodels collects garbage at every call: leave out what stands already."""
    gc.collect()
    gc.freeze()


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_they_are_statsmodels(ours, theirs, p: list[float]):
    expected = multipletests(p, method=theirs)[1]
    np.testing.assert_allclose(ours(torch.tensor(p, dtype=torch.float64)), expected, atol=1e-15)


def test_by_hand():
    p = torch.tensor([[0.01, 0.04], [0.03, 0.005]], dtype=torch.float64)
    # Ordered .005 .01 .03 .04: times 4, 3, 2, 1, never falling; and times 4, 2, 4/3, 1.
    torch.testing.assert_close(
        holm(p), torch.tensor([[0.03, 0.06], [0.06, 0.02]], dtype=torch.float64)
    )
    torch.testing.assert_close(
        benjamini_hochberg(p), torch.tensor([[0.02, 0.04], [0.04, 0.02]], dtype=torch.float64)
    )


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_tests_that_were_not_made_do_not_count(adjust):
    p = torch.tensor([math.nan, 0.02, math.nan, 0.01], dtype=torch.float64)
    found = adjust(p)
    torch.testing.assert_close(found[[1, 3]], adjust(p[[1, 3]]))
    assert found[[0, 2]].isnan().all()
    assert adjust(torch.full((2, 2), math.nan)).isnan().all()
    assert adjust(torch.zeros(0, 5)).shape == (0, 5)
