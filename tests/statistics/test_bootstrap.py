"""Intervals of R."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from mech_arith.statistics import Resampling, correlation_interval, pearson

HOW = Resampling()


def correlated(rho, *, n, cases, generator, uniform=False):
    """`cases` pairs of columns whose true R is `rho`."""
    if uniform:
        y = (torch.rand(n, cases, generator=generator, dtype=torch.float64) - 0.5) * 12**0.5
    else:
        y = torch.randn(n, cases, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, cases, generator=generator, dtype=torch.float64)
    return rho * y + (1 - rho**2) ** 0.5 * noise, y


def test_each_sample_is_drawn_as_numpy_would_correlate_it(monkeypatch):
    """The spread is that of atanh(R) over the samples, each correlated for itself."""
    from mech_arith.statistics import bootstrap

    generator = torch.Generator().manual_seed(0)
    x, y = correlated(0.6, n=30, cases=2, generator=generator)
    how = Resampling(n_resamples=40, seed=3)
    counts = bootstrap._counts(30, how)
    assert torch.equal(counts.sum(1), torch.full((40,), 30))
    z = np.zeros((40, 2, 2))
    for sample, times in enumerate(counts):
        rows = np.repeat(np.arange(30), times)
        for k, v in np.ndindex(2, 2):
            z[sample, k, v] = np.arctanh(pearsonr(x[rows, k], y[rows, v]).statistic)
    np.testing.assert_allclose(bootstrap._spread(x, y, counts), z.std(0, ddof=1), rtol=1e-9)


def test_with_normal_columns_it_is_near_fishers():
    generator = torch.Generator().manual_seed(1)
    x, y = correlated(0.7, n=1000, cases=1, generator=generator)
    found = correlation_interval(x, y, HOW)
    expected = pearsonr(x[:, 0], y[:, 0]).confidence_interval(0.95)
    assert float(found.low) == pytest.approx(expected.low, abs=0.01)
    assert float(found.high) == pytest.approx(expected.high, abs=0.01)


def test_it_depends_on_nothing_but_the_columns_and_the_seed(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    x, y = correlated(0.3, n=80, cases=7, generator=generator)
    whole = correlation_interval(x * 1e3 + 1e6, y, HOW)
    monkeypatch.setattr("mech_arith.statistics.bootstrap.ENTRIES", 2000)
    parts = correlation_interval(x, y, HOW)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert torch.equal(parts.low, correlation_interval(x, y, HOW).low)
    assert not torch.equal(parts.low, correlation_interval(x, y, Resampling(seed=1)).low)


def test_what_does_not_vary_has_no_interval_and_a_perfect_r_one_of_no_width():
    y = torch.arange(20.0)[:, None]
    found = correlation_interval(torch.cat([torch.ones(20, 1), -y, y / 3], dim=1), y, HOW)
    assert found.low[0].isnan()
    assert found.high[0].isnan()
    for end in found:
        np.testing.assert_allclose(end[1:, 0], [-1, 1])
    assert correlation_interval(y[:4], y[:4], HOW).low.item() == pytest.approx(1)
    assert correlation_interval(y[:3], y[:3], HOW).low.isnan().all()  # too few for an error


def test_without_columns_there_is_no_interval():
    empty, y = torch.zeros(20, 0), torch.arange(20.0)[:, None]
    assert correlation_interval(empty, y, HOW).low.shape == (0, 1)
    assert correlation_interval(y, empty, HOW).high.shape == (1, 0)


def test_the_interval_holds_r():
    generator = torch.Generator().manual_seed(4)
    x, y = correlated(0.99, n=12, cases=30, generator=generator)
    found, r = correlation_interval(x, y, HOW), pearson(x, y)
    assert bool(((found.low <= r) & (r <= found.high)).all())


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.7, 0.999])
def test_it_covers(rho: float, uniform: bool):
    generator = torch.Generator().manual_seed(5)
    x, y = correlated(rho, n=100, cases=1000, generator=generator, uniform=uniform)
    few = Resampling(n_resamples=500)
    covered = 0
    for column in range(0, 1000, 20):
        some = slice(column, column + 20)
        found = correlation_interval(x[:, some], y[:, some], few)
        low, high = (end.diagonal() for end in found)
        covered += int(((low <= rho) & (rho <= high)).sum())
    assert 0.93 <= covered / 1000 <= 0.97
