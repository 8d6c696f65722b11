"""Controls that are drawn until p is decided, in a model whose truth is known."""

from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.engine.batching import Batching
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.evidence.draws import draw_lines, draw_summary, unresolved_drops
from mech_arith.evidence.effects import drops_of, intervention_tables
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import (
    CONTROL,
    DRAWN,
    SPAN,
    Controls,
    Target,
    arms,
    draw_bounds,
    further,
    orthonormal,
)
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan, intervene
from tests.directions.test_tracing import HOW, planted
from tests.statistics.test_ranks import one_by_one

MOST, STOP_AFTER = 70, 5
FIXED = Controls(random=MOST, span=0, valueless=0, other=False, shuffled=False)
UNTIL = replace(FIXED, span=MOST, stop_after=STOP_AFTER)
SCALE = InterventionPlan(find_edit("scale"), (0.0, 1.0, 2.0), controls=FIXED)
TARGET_KEY = ["component", "strength"]


@cache
def setting():
    """The problems of a layer, and what edits of them cost."""
    model, _, report, sites, traces = planted()
    report = report.take(np.arange(60))
    asked = ReferenceAnswers.of_problems(report)
    baseline = run_baseline(Session(model), model.encode(report), asked)
    bases = Bases(report, baseline, {sites[0]: traces[sites[0]]})
    # So wide that a direction costs some answers and not all.
    scorer = Scorer.of_baseline(baseline, tolerance=60.0, written=not model.regresses, how=HOW)
    return model, bases, scorer


def done(controls, *, edit=SCALE, drops=None, checkpoint=None):
    model, bases, scorer = setting()
    session = Session(model, Batching(64))
    if checkpoint is not None:
        session = replace(session, checkpoint=checkpoint)
    plan = replace(edit, controls=controls)
    found = intervene(session, bases, plan, n_shuffles=20, drops=drops or drops_of(scorer))
    return found, intervention_tables(found, plan, scorer)


@cache
def tables(controls):
    return done(controls)[1]


def targets(effects):
    return effects[effects["arm"] == "target"].set_index(TARGET_KEY)


def test_each_p_is_that_of_the_fixed_draws_up_to_the_one_that_decides_it():
    """The same directions one by one, of a cell that draws all of them."""
    draws = tables(FIXED)["control_draws"]
    by_strength = {
        key: some.sort_values("draw")["accuracy_drop"].to_numpy()
        for key, some in draws.groupby(TARGET_KEY)
    }
    found, moving = targets(tables(UNTIL)["effects"]), (0.0, 2.0)
    taken = []
    for key, row in found.iterrows():
        right = one_by_one(row["accuracy_drop"] - 1e-9, by_strength[key], STOP_AFTER)
        assert (row["excess_p"], row["excess_n_draws"]) == pytest.approx(right)
        taken.append(right[1])
    contrasts = tables(UNTIL)["contrasts"]
    for row in contrasts[contrasts["arm"] == CONTROL].to_dict(orient="records"):
        mean = np.mean([by_strength[row["component"], strength] for strength in moving], axis=0)
        right = one_by_one(row["target_drop"] - 1e-9, mean, STOP_AFTER)
        assert (row["p"], row["n_draws"]) == pytest.approx(right)
        taken.append(right[1])
    # What costs more than every direction takes all of them, and what costs nothing a handful.
    assert max(taken) == MOST
    assert min(taken) == STOP_AFTER


def test_means_are_over_the_first_draws_whatever_p_takes():
    twenty = tables(replace(FIXED, random=20, span=20))
    for name, columns in (
        ("effects", ["excess_drop", "excess_low", "excess_high", "accuracy_drop", "n_directions"]),
        ("contrasts", ["arm_drop", "excess_drop", "low", "high", "n_directions"]),
        ("control_draws", ["draw", "accuracy_drop"]),
    ):
        pd.testing.assert_frame_equal(tables(UNTIL)[name][columns], twenty[name][columns])


def test_p_is_corrected_by_holm_for_its_targets():
    contrasts = tables(UNTIL)["contrasts"]
    for arm in (CONTROL, SPAN):
        rows = contrasts[contrasts["arm"] == arm]
        n = len(rows)
        assert n > 1
        assert rows["p_max"].min() == pytest.approx(n * rows["p"].min())
        assert set(rows["p_least"]) == {n / (1 + MOST)}
    # Of a kind of which no more than the first are drawn, nothing is other than without stopping.
    few = tables(replace(UNTIL, span=20))["contrasts"]
    same = ["p", "p_max", "p_least", "n_draws"]
    fixed = tables(replace(FIXED, random=20, span=20))["contrasts"]
    pd.testing.assert_frame_equal(
        few.loc[few["arm"] == SPAN, same], fixed.loc[fixed["arm"] == SPAN, same]
    )


def test_draws_are_the_same_however_many_are_taken():
    *_, sites, traces = planted()
    found, target = traces[sites[0]], Target((0,), ("a",))

    def of_kind(arm, controls):
        return {one.name: one.frames for one in arms(found, target, controls, seed=3)}[arm]

    for arm in (CONTROL, SPAN):
        more = further(found, target, arm, seed=3)
        parts = [list(islice(more, 4)), list(islice(more, 3))]
        again = list(islice(further(found, target, arm, seed=3), 7))
        for one, other in zip([*parts[0], *parts[1]], again, strict=True):
            assert torch.equal(one, other)
        first = of_kind(arm, UNTIL)
        assert torch.equal(first, of_kind(arm, replace(UNTIL, stop_after=None, random=20, span=20)))
        every = torch.cat([first, orthonormal(torch.stack(again))])
        assert len(torch.unique(every, dim=0)) == len(every)
    random = [
        *of_kind(CONTROL, UNTIL),
        *orthonormal(torch.stack(list(islice(further(found, target, CONTROL, seed=3), MOST - 20)))),
    ]
    assert torch.equal(torch.stack(random), of_kind(CONTROL, FIXED))


def test_an_attempt_that_was_killed_goes_on_with_its_rounds(tmp_path):
    *_, scorer = setting()
    calls = []

    def killed(answers, rows):
        calls.append(len(answers.numbers))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return drops_of(scorer)(answers, rows)

    def checkpoint():
        return Checkpoint(Store(tmp_path), cell="cell", every_s=0.0)

    with pytest.raises(KeyboardInterrupt):
        done(UNTIL, drops=killed, checkpoint=checkpoint())
    assert {"draws_1", "draws_2"} <= {path.name for path in tmp_path.iterdir()}
    again = checkpoint()
    _, found = done(UNTIL, checkpoint=again)
    # The first edits of two targets, beside two kinds each; and whatever was run in the rounds.
    assert again.found >= 2 + len(calls) - 2 * 3
    pd.testing.assert_frame_equal(found["contrasts"], tables(UNTIL)["contrasts"])


def test_an_edit_towards_values_and_several_directions_stop_as_well():
    edit = InterventionPlan(find_edit("interchange"), (1.0,), values=("b-c",), n_sources=2)
    found, made = done(replace(UNTIL, span=0), edit=edit)
    (one,) = found.results
    row = made["contrasts"].iloc[0]
    assert row["n_draws"] == one.draws[CONTROL].of_mean.n_draws
    assert set(made["counterfactual"]["n_directions"]) == {1, 20}


def test_where_draws_cannot_resolve_so_many_targets_it_is_said():
    few = replace(UNTIL, random=30, span=20)
    contrasts = done(few)[1]["contrasts"]
    n = int((contrasts["arm"] == CONTROL).sum())
    assert n == 2
    assert unresolved_drops(contrasts, few) == [
        "p of a drop beyond at most 30 random directions, corrected for 2 targets (Holm), is 0.065 "
        "at least, and none can count: set intervention.controls.random to 39 or more, or to 20, "
        "which are drawn at once and corrected by the maximum over targets"
    ]
    assert unresolved_drops(tables(UNTIL)["contrasts"], UNTIL) == []


def test_how_many_were_drawn_is_said():
    summary = draw_summary(tables(UNTIL)["contrasts"], UNTIL)
    assert set(summary) == {"random", "span"}
    assert summary["random"]["most_draws"] == MOST
    assert summary["random"]["n_targets"] == 2
    first, _ = draw_lines({"draws": summary})
    assert first == (
        f"random directions, drawn until p is decided: {summary['random']['median_draws']:g} of at "
        f"most 70 (median of 2 targets); {summary['random']['n_with_most']} took all"
    )
    assert draw_summary(tables(FIXED)["contrasts"], FIXED) == {}
    assert list(draw_lines({})) == []


def test_the_fewest_and_the_most_draws_of_a_target():
    assert draw_bounds(Controls()) == (60, 60)
    assert draw_bounds(Controls(random=999, span=5, stop_after=10)) == (45, 1024)
    assert Controls(random=999, span=5, stop_after=10).most == {CONTROL: 999}
    assert set(Controls(99, 99, 99, stop_after=10).most) == set(DRAWN)
