"""The null of the largest |R| over components."""

from importlib import import_module
from itertools import permutations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, pearsonr

from mech_arith.statistics import Resampling, correlation_p, holm, pearson
from mech_arith.statistics import permutation as module

HOW = Resampling(n_permutations=200)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_permutation_is_counted_as_scipy_would_correlate_it():
    sites, y = [normal(30, 3, seed=1), normal(30, 2, seed=2)], normal(30, 2, seed=3)
    found = correlation_p(sites, y, HOW)
    orders = module._permutations(30, HOW)
    assert bool((orders.sort(1).values == torch.arange(30)).all())
    for (s, v), p in np.ndenumerate(found.site.numpy()):
        observed = pearson(sites[s], y[:, v : v + 1]).abs()[:, 0]
        null = torch.stack([pearson(sites[s], y[o, v : v + 1]).abs()[:, 0] for o in orders])
        reached = int((null.amax(1) >= observed.max()).sum())
        assert reached >= module.FEW  # else chosen otherwise, below
        assert p == pytest.approx((1 + reached) / 201)
        for k, own in enumerate(found.own[s, : sites[s].shape[1], v].tolist()):
            reached = int((null[:, k] >= observed[k]).sum())
            assert reached >= module.FEW
            assert own == pytest.approx((1 + reached) / 201)


def test_chunks_and_the_number_of_sites_do_not_matter(monkeypatch):
    sites, y = [normal(30, 3, seed=s) for s in range(4)], normal(30, 2, seed=9)
    whole = correlation_p(sites, y, HOW).site
    monkeypatch.setattr(module, "ENTRIES", 1000)
    assert torch.equal(correlation_p(sites, y, HOW).site, whole)
    assert torch.equal(correlation_p(sites[1:2], y, HOW).site, whole[1:2])
    assert not torch.equal(correlation_p(sites, y, Resampling(seed=1)).site, whole)


def test_the_moments_are_those_over_all_permutations():
    x, y = normal(1, 7).exp(), normal(7, 1, seed=1).exp()
    x, y = module._unit(x.mT).mT, module._unit(y)
    every = torch.tensor(list(permutations(range(7))))
    r = y[:, 0][every] @ x[0]
    third = float(module._skewness(x) * module._skewness(y.mT)) * 5 / (7 * 36)
    assert float(r.pow(3).mean()) == pytest.approx(third)
    weight = 5 * 4 / (7 * 8 * 6**3)
    kurtosis = float(module._excess_kurtosis(x) * module._excess_kurtosis(y.mT))
    assert float(r.pow(4).mean()) == pytest.approx(3 / 48 + weight * kurtosis)


def test_without_skewness_or_heavy_tails_the_tail_is_students():
    x, y = normal(60, 1), torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    x = torch.cat([x, -x])  # symmetric, so that R is
    y = torch.cat([y, y])
    r = torch.tensor([[[0.4**2]]], dtype=torch.float64)
    found = float(module.tail(r, module._unit(x).mT[None], module._unit(y)))
    expected = 2 * module.t.sf(0.4 * np.sqrt(118 / (1 - 0.16)), 118)
    assert found == pytest.approx(expected, rel=0.02)


COLUMNS = {
    "uniform": lambda n: torch.linspace(0, 1, n, dtype=torch.float64),
    "skewed": lambda n: -torch.linspace(0.001, 1, n, dtype=torch.float64).log(),
    "rare": lambda n: (torch.arange(n) < n / 20).double(),
}


@pytest.mark.parametrize(
    ("one", "other"), [("uniform", "uniform"), ("skewed", "skewed"), ("rare", "skewed")]
)
def test_the_tail_is_that_of_many_permutations(one: str, other: str):
    n, many = 100, 200_000
    x, y = module._unit(COLUMNS[one](n)[:, None]).mT, module._unit(COLUMNS[other](n)[:, None])
    generator = torch.Generator().manual_seed(0)
    r = torch.cat(
        [
            y[:, 0][torch.rand(10_000, n, generator=generator).argsort(1)] @ x[0]
            for _ in range(many // 10_000)
        ]
    )
    largest = r.square().sort(descending=True).values
    for share in (1e-2, 1e-3, 1e-4):
        found = float(module.tail(largest[int(share * many)][None, None, None], x[None], y))
        assert 0.7 * share < found < 4 * share


def test_a_strong_r_is_not_limited_by_the_number_of_permutations():
    y = normal(200, 1)
    site = torch.cat([normal(200, 9, seed=1), y + 0.5 * normal(200, 1, seed=2)], dim=1)
    p = float(correlation_p([site], y, HOW).site)
    single = pearsonr(site[:, 9], y[:, 0]).pvalue
    assert single < p < 1e-20
    # Bonferroni's bound over ten components, each nearly normal.
    assert p == pytest.approx(10 * single, rel=10)
    assert float(correlation_p([y], y, HOW).site) > 0


def test_where_few_permutations_reach_it_p_is_at_most_what_few_would_give():
    sites, y = [normal(50, 5, seed=s) for s in range(300)], normal(50, 1, seed=999)
    p = correlation_p(sites, y, HOW).site
    limit = (1 + module.FEW) / 201
    assert bool((p < limit).any())
    counted = p[p > limit] * 201
    torch.testing.assert_close(counted, counted.round())


def test_what_does_not_vary_has_no_p():
    sites = [torch.ones(20, 2), normal(20, 2), torch.zeros(20, 0)]
    y = torch.cat([torch.ones(20, 1), normal(20, 1, seed=1)], dim=1)
    p = correlation_p(sites, y, HOW).site
    assert p.isnan().tolist() == [[True, True], [True, False], [True, True]]
    with_constant = torch.cat([sites[1], torch.ones(20, 3)], dim=1)
    assert torch.equal(correlation_p([with_constant], y, HOW).site[0, 1], p[1, 1])
    assert correlation_p([], y, HOW).site.shape == (0, 2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_so_few_problems_prove_nothing(n: int):
    y = torch.arange(float(n))[:, None]
    p = float(correlation_p([2 * y], y, HOW).site)
    assert p >= 2 / comb(n, n // 2) / n * 0.5


def test_p_is_uniform_and_the_family_wise_error_is_kept():
    """Over 5 related values of 8 sites, 200 times."""
    found, families, n = [], 0, 60
    for seed in range(200):
        a, b, c = normal(3, n, seed=seed)
        values = torch.stack([a, b, c, b - c, a - (b - c)], dim=1)
        sites = list(normal(8, n, 4, seed=1000 + seed))
        p = correlation_p(sites, values, Resampling(n_permutations=200, seed=seed)).site
        found.append(p)
        families += bool((holm(p) <= 0.05).any())
    p = torch.stack(found)
    for level in (0.05, 0.2, 0.5):
        assert float((p <= level).double().mean()) == pytest.approx(level, rel=0.15)
    assert families <= binom.ppf(0.999, 200, 0.05)


def test_the_p_of_a_weak_component_is_its_own_and_not_that_of_a_strong_one_beside_it():
    y = normal(200, 1)
    site = torch.cat([normal(200, 1, seed=1), y + normal(200, 1, seed=2)], dim=1)
    found = correlation_p([site], y, HOW)
    weak, strong = found.own[0, :, 0].tolist()
    assert float(found.site) < 1e-10
    assert strong < 1e-10
    assert weak == pytest.approx(float(pearsonr(site[:, 0], y[:, 0]).pvalue), abs=0.1)
    assert weak > 0.2


def test_the_p_of_one_component_is_uniform_under_the_null():
    found = torch.stack(
        [
            correlation_p([normal(60, 3, seed=seed)], normal(60, 2, seed=5000 + seed), HOW).own[0]
            for seed in range(300)
        ]
    )
    for level in (0.05, 0.2, 0.5):
        assert float((found <= level).double().mean()) == pytest.approx(level, rel=0.15)


def test_the_benchmark_times_every_part(monkeypatch, capsys):
    scripts = Path(__file__).parents[2] / "scripts" / "benchmarks"
    monkeypatch.syspath_prepend(str(scripts))
    seconds = import_module("inference").seconds
    found = seconds(layers=2, components=3, problems=20, permutations=100)
    assert all(wall >= 0 and cpu >= 0 for wall, cpu in found.values())
    assert capsys.readouterr().out.count("s of CPU") == len(found) == 4
