import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.directions.methods.pca import PCAFitter
from mech_arith.directions.random import random_frame


def rows(n: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(5, 0.5, width)
    return torch.randn(n, width, generator=generator) * scales + 3


def fitted(batches, n_components=4):
    fitter = PCAFitter(n_components)
    for batch in batches:
        fitter.update(batch)
    return fitter.fit()


@pytest.mark.parametrize(("n", "width"), [(60, 12), (12, 60), (20, 20), (21, 20)])
def test_agrees_with_scikit_learn(n, width):
    data = rows(n, width)
    ours = fitted(data.split(7))
    theirs = PCA(4, svd_solver="full").fit(data.double().numpy())
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-10)
    np.testing.assert_allclose(ours.variance, theirs.explained_variance_, rtol=1e-8)
    cosines = ours.directions.numpy() @ theirs.components_.T
    np.testing.assert_allclose(np.abs(cosines), np.eye(4), atol=1e-7)
    ratio = ours.variance / ours.total_variance
    np.testing.assert_allclose(ratio, theirs.explained_variance_ratio_, rtol=1e-8)
    signs = np.sign(np.sum(ours.directions.numpy() * theirs.components_, axis=1))
    np.testing.assert_allclose(
        ours.project(data).numpy() * signs, theirs.transform(data.double().numpy()), atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(n=st.integers(6, 40), width=st.integers(5, 30), size=st.integers(1, 40))
def test_batching_does_not_matter(n, width, size):
    data = rows(n, width)
    whole, batched = fitted([data]), fitted(data.split(size))
    torch.testing.assert_close(whole.mean, batched.mean)
    torch.testing.assert_close(whole.directions, batched.directions, atol=1e-6, rtol=1e-6)


def test_directions_are_orthonormal_and_their_largest_entry_is_positive():
    found = fitted([rows(50, 9)])
    torch.testing.assert_close(
        found.directions @ found.directions.mT, torch.eye(4, dtype=torch.float64)
    )
    largest = found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert (found.variance.diff() <= 0).all()
    torch.testing.assert_close(found.sd.square(), found.variance)


def test_constant_activations_have_no_components():
    assert len(fitted([torch.full((30, 5), 2.5)]).directions) == 0


def test_no_more_components_than_the_activations_vary_in():
    flat = torch.randn(30, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(1, 6)
    assert len(fitted([flat]).directions) == 1


def test_mean_projects_to_zero():
    found = fitted([rows(30, 8)])
    torch.testing.assert_close(found.project(found.mean), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(0, 3), "at least one row"),
        (torch.tensor([[1.0, float("nan"), 0.0]]), "finite"),
        (torch.zeros(2, 4), "width 3, got 4"),
    ],
)
def test_bad_batches(batch, message):
    fitter = PCAFitter(1)
    fitter.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match=message):
        fitter.update(batch)


def test_too_few_problems():
    with pytest.raises(UserError, match=r"at least 10 problems .* got 4"):
        fitted([rows(4, 3)], n_components=10)
    with pytest.raises(UserError, match="n_components >= 1"):
        find_method("pca", 0)


@pytest.mark.parametrize("rank", [1, 3, 50])
def test_random_frames_are_orthonormal_and_seeded(rank):
    first, again, other = (
        random_frame(rank, 50, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first @ first.mT, torch.eye(rank, dtype=torch.float64))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
