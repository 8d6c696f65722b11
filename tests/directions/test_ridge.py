"""Ridge probes against scikit-learn, and what further directions are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from tests.directions.fitting import drawn, fitted
from tests.experiment.test_cell import plan, problems
from tests.experiment.test_cell import run as run_planned
from tests.tiny import PlantedModel

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)


def by_scikit_learn(x, y, folds=5):
    """The unit direction of RidgeCV over folds in turn, and the penalty that it chooses."""
    unit = float((x - x.mean(0)).square().sum()) / x.shape[1]
    cv = PredefinedSplit(np.arange(len(x)) % folds)
    scoring = "neg_mean_squared_error"
    found = RidgeCV([unit * one for one in PENALTIES], cv=cv, scoring=scoring).fit(x, y)
    return torch.from_numpy(found.coef_ / np.linalg.norm(found.coef_)), found.alpha_ / unit


@pytest.mark.parametrize("noise", [0.1, 30.0, 300.0])
@pytest.mark.parametrize(("n", "width"), [(203, 12), (20, 40), (40, 12), (21, 20), (24, 20)])
def test_agrees_with_scikit_learn(n, width, noise):
    x, y = drawn(n, width)
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    ours = fitted("ridge", x, y, size=7, penalties=PENALTIES)
    assert ours.values_of().tolist() == [0, 1, 2]
    for value, direction in enumerate(ours.directions):
        theirs, _ = by_scikit_learn(x, y[:, value])
        assert float((direction - theirs * (theirs @ direction).sign()).abs().max()) < 1e-6
    coordinates = ours.project(x)
    np.testing.assert_allclose(ours.covariance, np.cov(coordinates.numpy().T), atol=1e-8)
    np.testing.assert_allclose(ours.mean, x.mean(0), atol=1e-10)
    assert ours.total_variance == pytest.approx(float(x.var(0).sum()))


def test_the_reference_chooses_several_penalties():
    """Else agreement would say nothing of the choice."""
    x, y = drawn(40, 12)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    chosen = {by_scikit_learn(x, (y + size * noise)[:, 0])[1] for size in (0.1, 30.0, 300.0)}
    assert len(chosen) >= 2


@pytest.mark.parametrize(("n", "width"), [(200, 12), (20, 40)])
def test_further_directions_are_probes_of_what_the_ones_before_leave(n, width):
    x, y = drawn(n, width, n_values=1)
    found = fitted("ridge", x, y, rank=4, penalties=PENALTIES).directions
    torch.testing.assert_close(found @ found.mT, torch.eye(4).double(), atol=1e-12, rtol=0)
    left = x - x.mean(0)
    unit = float(left.square().sum()) / width
    cv = PredefinedSplit(np.arange(n) % 5)
    for direction in found:
        probe = RidgeCV(
            [unit * one for one in PENALTIES], cv=cv, scoring="neg_mean_squared_error"
        ).fit(left, y[:, 0])
        theirs = torch.from_numpy(probe.coef_ / np.linalg.norm(probe.coef_))
        assert abs(float(theirs @ direction)) == pytest.approx(1, abs=1e-10)
        left = left - torch.outer(left @ direction, direction)


def test_where_nothing_is_left_there_are_no_more_directions():
    x, y = drawn(60, 8)
    constant = torch.full((60, 1), 0.1, dtype=torch.float64)
    found = fitted("ridge", x, torch.cat([y[:, :1], constant], dim=1), rank=8)
    assert set(found.values_of().tolist()) == {0}
    alone = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double()
    line = fitted("ridge", (alone * torch.ones(8) + 1).float(), alone, rank=3)
    assert len(line.directions) == 1
    assert len(fitted("ridge", torch.full((60, 8), 2.5), y).directions) == 0
    assert len(fitted("ridge", torch.full((5, 8), 2.5), y[:5]).directions) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalties": []}, r"options.penalties above 0, got \[\]"),
        ({"penalties": [1, 0]}, r"above 0, got \[1.0, 0.0\]"),
        ({"penalties": [float("nan")]}, "above 0"),
        ({"folds": 1}, "options.folds >= 2, got 1"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        find_method("ridge", 1, options)


def test_too_few_problems():
    with pytest.raises(UserError, match="at least 2 problems to fit a probe, got 1"):
        fitted("ridge", *drawn(1, 3))


def test_ranks_that_there_is_no_subspace_of_are_said():
    """The many directions of all values together are no excuse."""
    few = find_method("ridge", 1, {}, ranks=(1, 2, 8))
    asked = replace(plan(layers=(0,), intervention=None), method=few)
    found = run_planned(PlantedModel(), *problems(), asked)
    assert len(set(found.tables["correlations"]["component"])) > 8
    (said,) = [line for line in found.summary["warnings"] if "finds" in line]
    assert said.startswith("in layer 0 ridge finds no subspace of rank 8 for a, b, c, b-c, a-(b-c)")
    assert set(found.tables["subspaces"]["rank"]) == {1, 2}
