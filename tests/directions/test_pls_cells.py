"""Whole cells along directions of partial least squares: edits, controls, weights, locality."""

import numpy as np
import pytest

from mech_arith.engine.sites import Site
from mech_arith.evidence.results import load_run
from tests.directions.test_tracing import traced
from tests.experiment.test_cell import plan, problems
from tests.experiment.test_cell import run as run_planned
from tests.running import SMALL, main
from tests.tiny import PlantedModel

FINE = (
    "tracing.position_map=false",
    "tracing.n_components=6",  # so that some directions carry no value
    "intervention.controls.valueless=1",
    "locality={enabled:true,n_problems:10,coordinate_points:6,value_points:4}",
)


@pytest.mark.slow
def test_a_sweep_over_methods(monkeypatch, tmp_path):
    asked = ("tracing=pca,pls", "intervention=scale", "model=arith_encoder", "layers=[2]", *FINE)
    assert main(monkeypatch, tmp_path, *SMALL, *asked, sweep=True) == 0
    pca, pls = (load_run(path.parent) for path in sorted(tmp_path.glob("run/**/summary.json")))
    assert [run.summary["cell"]["tracing"] for run in (pca, pls)] == ["pca", "pls"]
    for run in (pca, pls):
        tables = run.tables
        assert {"target", "control", "span", "valueless"} <= set(tables["effects"]["arm"])
        unchanged = tables["effects"].query("strength == 1")
        assert (unchanged["accuracy_drop"] == 0).all()
        assert (tables["off_distribution"].query("strength == 1")["mahalanobis"] == 1).all()
        assert len(tables["locality"]) > 0
        moved = tables["effects"].groupby(["component", "strength"])["change_rms"]
        np.testing.assert_allclose(moved.min(), moved.max(), rtol=1e-6)
    explained = [run.tables["correlations"]["explained_variance_fit"] for run in (pca, pls)]
    assert explained[0].max() > explained[1].max()  # no direction holds more than the first of pca


@pytest.mark.slow
def test_edits_along_its_directions_fold_into_weights(monkeypatch, tmp_path):
    asked = ("tracing=pls", "tracing.positions=last", "tracing.point=mlp_out", "layers=[2]")
    by_weights = ("intervention=shift", "intervention.via=weights", "model=arith_encoder")
    assert main(monkeypatch, tmp_path, *SMALL, *asked, *by_weights) == 0
    run = load_run(tmp_path / "run")
    assert run.summary["weights_difference"] < 1e-4
    assert set(run.tables["effects"]["via"]) == {"weights"}


def test_a_planted_value_is_found_and_fewer_directions_than_asked_are_said():
    asked = plan(n_components=8, method="pls", layers=(0,), intervention=None)
    found = run_planned(PlantedModel(), *problems(), asked)
    assert found.summary["best"]["b-c"]["abs_r"] > 0.85
    (said,) = [line for line in found.summary["warnings"] if "finds" in line]
    assert said.startswith("in layer 0 pls finds ")
    assert "of 8 directions at position last: nothing beyond rounding is left" in said
    n_found = found.tables["correlations"]["component"].nunique()
    assert f"finds {n_found} of 8" in said
    assert np.isfinite(found.tables["correlations"]["r"]).all()


def test_all_directions_together_hold_what_is_planted():
    model, fit, report = PlantedModel(), *problems(n=400)
    site = Site(0, "resid_post", "last")
    asked = {"n_components": 2, "batch_size": 50, "method": "pls"}
    found = traced(model, fit, report, [site], **asked)[site]
    for planted in (model.used, model.unused):  # the directions of b-c and of a
        assert float((found.subspace.directions @ planted.double()).norm()) > 0.999
