"""What every method that finds directions from sums keeps to, whatever it looks for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_arith.directions.base import EVERY_VALUE, METHODS, DirectionMethod, Subspace, find_method
from mech_arith.directions.methods.from_file import save_frame
from tests.directions.fitting import drawn, fitted, started

WIDTH, RANK = 16, 2
OPTIONS = {"fourier": {"periods": [2, 5, 10]}, "mean_difference": {"max_classes": 40}}
STREAMED = ("fourier", "from_file", "mean_difference", "pca", "pls", "ridge")


@pytest.fixture(scope="module", params=STREAMED)
def method(request, tmp_path_factory):
    if request.param != "from_file":
        return find_method(request.param, RANK, OPTIONS.get(request.param), ranks=(RANK,))
    path = tmp_path_factory.mktemp("frame") / "frame.safetensors"
    save_frame(path, fitted("pca", *drawn(30, WIDTH), rank=3))
    return find_method("from_file", RANK, {"path": str(path)}, ranks=(RANK,))


def numbers(n, seed=0):
    """Activations of unequal spread, and whole numbers that they carry."""
    x, y = drawn(n, WIDTH, seed=seed)
    return x, (y / y.std(0) * 12).round()


def found(method: DirectionMethod, x, y, size=None) -> Subspace:
    fitter = started(method, y)
    for rows in torch.arange(len(x)).split(size or len(x)):
        fitter.update(x[rows], y[rows])
    return fitter.fit()


def test_all_of_them_are_held_to_it():
    package = "mech_arith.directions.methods"
    built_in = {name for name in METHODS.names() if METHODS.module(name).__package__ == package}
    assert built_in - {"das", "neurons"} == set(STREAMED)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(4, 60), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_frames_are_orthonormal_however_problems_are_batched(method, n, size, seed):
    x, y = numbers(n, seed)
    whole, batched = found(method, x, y), found(method, x, y, size)
    torch.testing.assert_close(batched.directions, whole.directions, atol=1e-6, rtol=0)
    torch.testing.assert_close(batched.covariance, whole.covariance, atol=1e-6, rtol=1e-6)
    assert batched.total_variance == pytest.approx(whole.total_variance)
    for value in {EVERY_VALUE, *whole.values_of().tolist()}:
        frame = whole.directions[whole.of(value)]
        eye = torch.eye(len(frame), dtype=torch.float64)
        torch.testing.assert_close(frame @ frame.mT, eye, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        torch.cov(whole.project(x).mT).reshape(whole.covariance.shape),
        whole.covariance,
        atol=1e-6,
        rtol=1e-6,
    )
    torch.testing.assert_close(whole.project(x).mean(0), whole.mean_coordinates, atol=1e-8, rtol=0)


@pytest.mark.parametrize("killed_after", [0, 1, 5])
def test_restored_in_the_middle_it_goes_on_to_the_same_bits(method, killed_after):
    x, y = numbers(60)
    batches = list(zip(x.split(9), y.split(9), strict=True))
    fitter, again = started(method, y), started(method, y)
    for batch in batches[:killed_after]:
        fitter.update(*batch)
    again.restore({name: tensor.clone() for name, tensor in fitter.state().items()})
    for batch in batches[killed_after:]:
        again.update(*batch)
    one, two = again.fit().tensors(), found(method, x, y, 9).tensors()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_it_keeps_does_not_grow_with_the_problems(method):
    x, y = numbers(2000)
    fitter = started(method, y)
    sizes = []
    for rows in torch.arange(len(x)).split(500):
        fitter.update(x[rows], y[rows])
        sizes.append(sum(tensor.numel() for tensor in fitter.state().values()))
    assert sizes[1:] == sizes[:-1]
    if method.name != "mean_difference":  # of many classes, here
        assert sizes[0] < 5 * (WIDTH + 3 * 8) ** 2


def test_what_is_read_back_from_the_store_is_the_same(method):
    x, y = numbers(50)
    one = found(method, x, y)
    two = Subspace.of_tensors(one.tensors())
    assert all(torch.equal(part, two.tensors()[name]) for name, part in one.tensors().items())


def test_constant_activations_and_constant_values(method):
    x, y = numbers(30)
    constant = torch.full_like(y[:, :1], 7.0)
    subspace = found(method, x, torch.cat([constant, y[:, 1:]], dim=1))
    if subspace.of_value is not None:
        assert set(subspace.values_of().tolist()) == {1, 2}
    if method.name != "from_file":
        assert len(found(method, torch.full_like(x, 2.5), y).directions) == 0


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(0, WIDTH), "at least one row"),
        (torch.full((2, WIDTH), float("nan")), "finite"),
        (torch.zeros(2, WIDTH + 1), "width"),
    ],
)
def test_bad_batches(method, batch, message):
    x, y = numbers(30)
    fitter = started(method, y)
    fitter.update(x, y)
    with pytest.raises(ValueError, match=message):
        fitter.update(batch, y[: len(batch)])
