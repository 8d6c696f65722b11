"""Partial least squares against scikit-learn, and the laws that its directions keep."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSRegression

from mech_arith.common.errors import UserError
from mech_arith.directions.methods.pca import PCAFitter
from mech_arith.directions.methods.pls import PLSFitter
from tests.directions.fitting import drawn


def fitted(x, y, *, n_components=3, size=None):
    fitter = PLSFitter(n_components)
    for rows in torch.arange(len(x)).split(size or len(x)):
        fitter.update(x[rows], y[rows])
    return fitter.fit()


def unit(y):
    return ((y - y.mean(0)) / y.std(0)).numpy()


@pytest.mark.parametrize("n_values", [1, 3])
@pytest.mark.parametrize(("n", "width"), [(200, 12), (20, 40), (21, 20), (24, 20)])
def test_agrees_with_scikit_learn(n, width, n_values):
    x, y = drawn(n, width, n_values)
    ours = fitted(x, y, n_components=5, size=7)
    theirs = PLSRegression(5, scale=False, tol=1e-24, max_iter=20000).fit(x.numpy(), unit(y))
    weights = theirs.x_weights_ * np.sign((theirs.x_weights_ * ours.directions.numpy().T).sum(0))
    np.testing.assert_allclose(ours.directions.numpy().T, weights, atol=1e-8)
    np.testing.assert_allclose(ours.mean, x.mean(0), atol=1e-10)
    coordinates = ours.project(x)
    np.testing.assert_allclose(ours.covariance, np.cov(coordinates.numpy().T), atol=1e-8)
    np.testing.assert_allclose(ours.sd, coordinates.std(0), atol=1e-8)
    assert ours.total_variance == pytest.approx(float(x.var(0).sum()))


def test_of_one_value_the_first_direction_is_that_of_the_covariance():
    x, y = drawn(50, 8, n_values=1)
    covariance = (x - x.mean(0)).mT @ (y - y.mean(0))[:, 0]
    first = fitted(x, y).directions[0]
    assert abs(float(first @ covariance / covariance.norm())) == pytest.approx(1, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(6, 40), width=st.integers(4, 30), size=st.integers(1, 40), seed=st.integers(0, 9)
)
def test_directions_are_orthonormal_however_problems_are_batched_and_ordered(n, width, size, seed):
    x, y = drawn(n, width, seed=seed)
    whole = fitted(x, y)
    eye = torch.eye(len(whole.directions), dtype=torch.float64)
    torch.testing.assert_close(whole.directions @ whole.directions.mT, eye, atol=1e-12, rtol=0)
    largest = whole.directions.gather(1, whole.directions.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for other in (fitted(x, y, size=size), fitted(x[order], y[order], size=size)):
        torch.testing.assert_close(other.directions, whole.directions, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n", [40, 400])
def test_a_planted_direction_is_found_that_holds_little_variance(n):
    """Where the first principal component is another one."""
    generator = torch.Generator().manual_seed(1)
    width, numbers = 60, torch.randint(1, 999, (n, 1), generator=generator).double()
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    planted, loud = basis[0], basis[1]
    noise = torch.randn(n, 1, generator=generator).double()
    x = (numbers / 999 * planted + 100 * noise * loud).float() + 2
    x = x + 0.001 * torch.randn(n, width, generator=generator)
    found = fitted(x, numbers, n_components=2)
    pca = PCAFitter(1)
    pca.update(x)
    assert abs(float(pca.fit().directions[0] @ loud)) > 0.999
    # The first direction weighs what is loud by chance; both together hold what is planted.
    within = (found.directions @ planted).norm()
    assert float(within) > 0.999


def test_where_nothing_more_covaries_there_are_no_more_directions():
    _, y = drawn(80, 10, n_values=2)
    planted = torch.linalg.qr(torch.randn(10, 2, generator=torch.Generator().manual_seed(0)))
    x = (y @ planted.Q.mT.double()).float() + 1  # rounded, so that there is noise beside them
    found = fitted(x, y, n_components=5)
    assert len(found.directions) == 2
    overlap = torch.linalg.svdvals(found.directions @ planted.Q.double())
    np.testing.assert_allclose(overlap, 1, atol=1e-6)


def test_values_that_are_constant_count_for_nothing():
    x, y = drawn(50, 8)
    constant = torch.full((50, 1), 0.1, dtype=torch.float64)
    with_constant = fitted(x, torch.cat([y, constant], dim=1), size=7)
    torch.testing.assert_close(with_constant.directions, fitted(x, y).directions)
    for nothing in (constant, torch.zeros(50, 0, dtype=torch.float64)):
        found = fitted(x, nothing)
        assert found.directions.shape == (0, 8)
        assert found.covariance.shape == (0, 0)
    assert len(fitted(torch.full((30, 5), 2.5), y[:30]).directions) == 0


def test_too_few_problems():
    with pytest.raises(UserError, match=r"at least 10 problems .* got 4"):
        fitted(*drawn(4, 3), n_components=10)
