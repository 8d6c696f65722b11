"""The intervention by weights, against the one by activations where the two are the same."""

import pandas as pd
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.effects import intervention_tables
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import CONTROL, TARGET, Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.fold_run import (
    _matched,
    _moments,
    intervene_by_weights,
    one_edit,
    weight_treatments,
)
from mech_arith.interventions.run import InterventionPlan, intervene
from mech_arith.problems import draw, split
from mech_arith.statistics import Resampling
from tests.directions.test_tracing import TEMPLATE, traced
from tests.thinned import thinned
from tests.tiny import tiny_encoder

HOW = Resampling(n_resamples=100, n_permutations=100)
CONTROLS = Controls(random=3, span=1, other=True, shuffled=True)
SHIFT = InterventionPlan(
    find_edit("shift"), (-20.0, 0.0, 20.0), components=(0, 1), controls=CONTROLS
)
SCALE = InterventionPlan(find_edit("scale"), (-3.0, 1.0), components=(0,), controls=CONTROLS)
LAST_LAYER = Site(2, "mlp_out", "first")
"""Of an encoder: only the first position is read out, so that edits of others change nothing."""
READ = (Site(2, "z", "first", 1), Site(2, "mlp_post", "first"))
"""What a matrix of that layer reads: one head, and the neurons."""


@pytest.fixture(scope="module")
def cell():
    model = tiny_encoder()
    problems = draw(TEMPLATE, n=60, ranges=dict.fromkeys("abc", (100, 999)), seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    sites = [LAST_LAYER, Site(0, "attn_out", "3"), *READ]
    traces = traced(model, fit, report, sites, n_components=2, batch_size=64)
    prompts = model.encode(report)
    asked = ReferenceAnswers.of_problems(report)
    baseline = run_baseline(Session(model), prompts, asked)
    # What it gives counts as right: random weights answer nothing.
    asked.right[:] = baseline.answers.numbers
    return model, model.encode(fit), report, baseline, traces


def by_weights(cell, plan, *sites):
    model, prompts_fit, report, baseline, traces = cell
    chosen = {site: traces[site] for site in sites or (LAST_LAYER,)}
    bases = Bases(report, baseline, chosen)
    return intervene_by_weights(Session(model), bases, prompts_fit, plan)


def by_activations(cell, plan, site=LAST_LAYER):
    model, _, report, baseline, traces = cell
    bases = Bases(report, baseline, {site: traces[site]})
    return intervene(Session(model), bases, plan, n_shuffles=HOW.n_permutations)


def tables_of(cell, plan, done):
    model, _, _, baseline, _ = cell
    scorer = Scorer.of_baseline(baseline, tolerance=5.0, written=not model.regresses, how=HOW)
    return intervention_tables(done, plan, scorer)


@pytest.mark.parametrize("site", thinned([LAST_LAYER, *READ], 1))
def test_where_one_position_is_read_out_weights_do_what_activations_do(cell, site):
    found = by_weights(cell, SHIFT, site)
    assert found.difference < 1e-4
    tables = tables_of(cell, SHIFT, found)
    expected = tables_of(cell, SHIFT, by_activations(cell, SHIFT, site))
    assert set(tables) == set(expected)
    for name, table in expected.items():
        ours = tables[name]
        pd.testing.assert_frame_equal(
            ours.drop(columns="change_rms", errors="ignore"),
            table.drop(columns="change_rms", errors="ignore"),
            rtol=1e-3,
            atol=1e-3,
        )
    effects = tables["effects"]
    shift = effects.loc[effects["arm"] == TARGET, "mean_abs_shift"]
    assert shift.max() > 5


@pytest.mark.parametrize("site", thinned([LAST_LAYER, *READ], 1))
def test_a_scaled_target_does_what_the_edit_of_its_activations_does(cell, site):
    ours, theirs = (
        table.loc[table["arm"] == TARGET].drop(columns="change_rms")
        for table in (
            tables_of(cell, SCALE, by_weights(cell, SCALE, site))["effects"],
            tables_of(cell, SCALE, by_activations(cell, SCALE, site))["effects"],
        )
    )
    of_arms = [name for name in ours if name.startswith("excess")]
    pd.testing.assert_frame_equal(
        ours.drop(columns=of_arms), theirs.drop(columns=of_arms), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("centre", [True, False])
def test_controls_move_as_far_as_their_target_over_all_positions(cell, centre):
    model, prompts_fit, *_, traces = cell
    site = Site(0, "attn_out", "3")
    plan = InterventionPlan(
        find_edit("scale"), (-1.0, 2.0), components=(0, 1), controls=CONTROLS, centre=centre
    )
    treatments = weight_treatments({site: traces[site]}, plan)
    assert len(treatments) == 2
    everywhere = Site(0, "attn_out", "all")
    ((_, found),) = capture(Session(model), prompts_fit, [everywhere])
    activation = found[everywhere].double().unflatten(1, (-1, model.d_model))
    for treatment, moments in zip(
        treatments, _moments(Session(model, Batching(7)), prompts_fit, treatments), strict=True
    ):
        folds, rms = _matched(treatment, moments)
        assert len(folds) == 2 * len(treatment.frames)
        for index, change in enumerate(folds):
            far = change.change(activation).square().sum(-1).mean().sqrt()
            assert float(far) == pytest.approx(float(rms[index % 2]), rel=1e-5)


def test_no_change_changes_no_number(cell):
    effects = tables_of(cell, SCALE, by_weights(cell, SCALE))["effects"]
    same = effects.loc[effects["strength"] == 1.0]
    assert set(same["arm"]) >= {TARGET, CONTROL}
    for column in ("accuracy_drop", "mean_abs_shift", "change_rms"):
        assert (same[column] == 0).all()


def test_one_edit_alone_makes_a_model(cell):
    model, *_, baseline, traces = cell
    alone = Controls(random=0, span=0, other=False, shuffled=False)
    plan = InterventionPlan(find_edit("shift"), (20.0,), components=(1,), controls=alone)
    edited = one_edit(model, {LAST_LAYER: traces[LAST_LAYER]}, plan)
    assert edited.edited["model"] == model.name
    assert edited.edited["weights_digest"] == model.digest
    assert (edited.edited["layer"], edited.edited["component"]) == (2, 1)
    answers = run_baseline(Session(edited.model), baseline.prompts, baseline.asked).answers
    effects = tables_of(cell, plan, by_weights(cell, plan))["effects"]
    (shift,) = effects.loc[effects["arm"] == TARGET, "mean_shift"]
    moved = (answers.numbers - baseline.answers.numbers).mean()
    assert float(moved) == pytest.approx(shift, rel=1e-6)
    with pytest.raises(UserError, match=r"with intervention\.save_model, got 6 edits; set interv"):
        one_edit(model, {LAST_LAYER: traces[LAST_LAYER]}, SHIFT)


def test_what_does_not_vary_is_no_control(cell):
    model, prompts_fit, *_, traces = cell
    (treatment, *_) = weight_treatments({LAST_LAYER: traces[LAST_LAYER]}, SCALE)
    moments = _moments(Session(model), prompts_fit, [treatment])[0]
    moments[1] = 0
    with pytest.raises(UserError, match="that vary along the controls at layer 2, got constant"):
        _matched(treatment, moments)
    assert torch.isfinite(moments).all()
