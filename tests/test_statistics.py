import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from mech_arith.statistics import pearson, r_squared


def test_pearson_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)) + 1e4, rng.normal(size=(40, 2))
    ours = pearson(torch.from_numpy(x), torch.from_numpy(y))
    for k, v in np.ndindex(3, 2):
        assert float(ours[k, v]) == pytest.approx(pearsonr(x[:, k], y[:, v]).statistic, abs=1e-9)


def test_pearson_by_hand():
    x = torch.tensor([[1.0], [2.0], [3.0]])
    y = torch.tensor([[1.0, 3.0], [3.0, 2.0], [2.0, 1.0]])
    torch.testing.assert_close(pearson(x, y), torch.tensor([[0.5, -1.0]], dtype=torch.float64))


def test_pearson_of_a_constant_is_undefined():
    assert pearson(torch.ones(5, 1), torch.arange(5.0)[:, None]).isnan().all()


def test_r_squared():
    predicted, actual = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 5.0])
    assert r_squared(predicted, actual) == pytest.approx(r2_score(actual, predicted))
    with_gap = torch.tensor([1.0, 2.0, 4.0, float("nan")])
    assert r_squared(with_gap, torch.tensor([1.0, 3.0, 5.0, 9.0])) == pytest.approx(1 - 2 / 8)
    assert np.isnan(r_squared(torch.tensor([1.0]), torch.tensor([1.0])))
    assert np.isnan(r_squared(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0])))
