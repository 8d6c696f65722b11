from dataclasses import replace
from functools import cache
from itertools import combinations

import pandas as pd
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.directions.tracing import value_table
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.draws import unresolved_drops
from mech_arith.evidence.effects import intervention_tables
from mech_arith.evidence.iia import unresolved
from mech_arith.evidence.results import per_value
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.summary import largest_drops
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import (
    Controls,
    Target,
    _generator,
    arms,
    choose_targets,
    valueless_span,
)
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan, intervene, target_changes
from mech_arith.problems import draw, split
from mech_arith.statistics import Resampling, pearson
from tests.directions.test_tracing import TEMPLATE, planted, traced
from tests.tiny import PlantedModel, tiny_decoder

ABC = dict.fromkeys("abc", (100, 999))

SCALE = InterventionPlan(find_edit("scale"), (0.0, 1.0, 2.0))
FEW = Controls(random=3, span=0, other=False, shuffled=False)
INTERCHANGE = InterventionPlan(
    find_edit("interchange"), (0.0, 1.0), values=("a", "b-c"), controls=FEW
)
HOW = Resampling(n_resamples=200, n_permutations=200)


@cache
def planted_effects(plan, layer=0, tolerance=0.5):
    model, _, report, sites, traces = planted()
    baseline = run_baseline(
        Session(model, Batching(50)), model.encode(report), ReferenceAnswers.of_problems(report)
    )
    chosen = {sites[layer]: traces[sites[layer]]}
    session, bases = Session(model, Batching(64)), Bases(report, baseline, chosen)
    done = intervene(session, bases, plan, n_shuffles=HOW.n_permutations)
    scorer = Scorer.of_baseline(baseline, tolerance=tolerance, written=not model.regresses, how=HOW)
    return report, traces[sites[layer]], intervention_tables(done, plan, scorer)


def test_what_is_read_matters_and_what_is_merely_written_does_not():
    _, found, tables = planted_effects(SCALE)
    effects = tables["effects"]
    used, unused = found.best_component("b-c"), found.best_component("a")
    targets = effects[effects["arm"] == "target"].set_index(["component", "strength"])
    assert (targets["baseline_accuracy"] == 1).all()
    for strength in (0.0, 2.0):
        assert targets.loc[(used, strength), "accuracy_drop"] > 0.95
        # The fitted direction of a is two degrees off the planted one, for a and b-c are not quite
        # uncorrelated in 200 problems: what shifts the answer is that angle.
        shift = targets["mean_abs_shift"]
        assert shift[(unused, strength)] < 0.15 * shift[(used, strength)]


def test_a_shift_moves_the_answer_by_just_as_much():
    plan = InterventionPlan(find_edit("shift"), (-1.0, 0.0, 2.0), values=("b-c",))
    _, found, tables = planted_effects(plan)
    effects = tables["effects"]
    k = found.best_component("b-c")
    sd = float(found.subspace.sd[k])
    sign = float(found.r[k, found.values.index("b-c")].sign())
    targets = effects[effects["arm"] == "target"].set_index("strength")["mean_shift"]
    assert targets[-1.0] == pytest.approx(sign * sd, rel=0.01)  # a-(b-c) falls as b-c rises
    assert targets[2.0] == pytest.approx(-2 * sign * sd, rel=0.01)


def test_no_change_changes_no_number():
    _, _, tables = planted_effects(SCALE)
    effects = tables["effects"]
    same = effects[effects["strength"] == 1.0]
    assert (same["accuracy_drop"] == 0).all()
    assert (same["mean_shift"] == 0).all()
    assert (same["change_rms"] == 0).all()


def test_controls_move_as_far_as_their_target():
    _, _, tables = planted_effects(SCALE)
    effects = tables["effects"]
    by_arm = effects.pivot(index=["component", "strength"], columns="arm", values="change_rms")
    assert set(by_arm) == {"target", "control", "span", "other", "shuffled"}
    for arm in by_arm:
        assert (by_arm["target"] == by_arm[arm]).all()
    assert len(effects) == 5 * 3 * effects["component"].nunique()
    directions = effects.set_index("arm")["n_directions"]
    assert set(directions["control"]) == {20}
    assert set(directions["span"]) == {20}


def test_the_uncentred_variant_differs_by_the_means_coordinates():
    *_, sites, traces = planted()
    found = traces[sites[0]]
    target = Target((0, 1), ())
    changes, centred = (
        target_changes(found, target, replace(SCALE, centre=centre), n=7)
        for centre in (False, True)
    )
    r = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)[:, None, None]
    of_mean = found.subspace.directions[[0, 1]] @ found.subspace.mean
    assert (of_mean.abs() > 1).all()
    torch.testing.assert_close(changes - centred, ((r - 1) * of_mean).expand(3, 7, 2))


def test_controls_of_heads_are_others_and_those_of_whole_points_what_they_were():
    target = Target((2,), ())
    first = {
        head: torch.randint(
            2**31, (3,), generator=_generator(7, Site(3, "z", "last", head), target)
        )
        for head in (None, 0, 1)
    }
    assert first[None].tolist() == [2123353881, 1878675372, 1042534784]
    assert len({tuple(drawn.tolist()) for drawn in first.values()}) == 3


def test_targets():
    *_, sites, traces = planted()
    found = traces[sites[0]]
    best = choose_targets(found)
    assert {value for target in best for value in target.chosen_for} == set(found.values)
    everything = choose_targets(found, "all")
    assert [target.component for target in everything] == [
        0,
        1,
    ]
    listed = choose_targets(found, (1,))
    assert [target.component for target in listed] == [1]
    with pytest.raises(UserError, match=r"components in 0..1 at layer 0, got 7"):
        choose_targets(found, (7,))
    with pytest.raises(UserError, match="unknown value 'd'; expected one of: a, b, c, b-c"):
        choose_targets(found, values=("d",))


def unit_rows(found, seed=0, component=0, **options):
    target = Target((component,), ("b-c",))
    return {arm.name: arm for arm in arms(found, target, Controls(**options), seed=seed)}


def test_arms_are_unit_vectors_of_the_kinds_that_they_say():
    *_, sites, traces = planted()
    found = traces[sites[0]]
    component = found.best_component("b-c")
    every = unit_rows(found, component=component)
    fitted = found.subspace.directions.float()
    for arm in every.values():
        assert len(arm.labels) == len(arm.frames)
        torch.testing.assert_close(arm.frames.norm(dim=2), torch.ones(len(arm.frames), 1))
    torch.testing.assert_close(every["target"].frames[0, 0], fitted[component])
    inside = (every["span"].frames[:, 0] @ fitted.mT).norm(dim=1)
    torch.testing.assert_close(inside, torch.ones(20))
    outside = (every["control"].frames[:, 0] @ fitted.mT).norm(dim=1)
    assert (outside < 0.95).all()
    assert component not in {int(label.split()[1][:-1]) for label in every["other"].labels}
    index = found.values.index("b-c")
    torch.testing.assert_close(every["shuffled"].frames[0, 0], found.shuffled[index].float())


def test_valueless_directions_lie_within_the_span_and_carry_no_value_on_the_fit_split():
    model = tiny_decoder()
    fit, report = split(draw(TEMPLATE, n=240, ranges=ABC, seed=0), fit_share=0.5, seed=0)
    site = Site(1, "resid_post", "all")
    found = traced(model, fit, report, [site], n_components=8, batch_size=100)[site]
    arm = unit_rows(found)["valueless"]
    assert arm.frames.shape == (20, 1, found.subspace.directions.shape[1])
    rows = arm.frames[:, 0].double()
    fitted = found.subspace.directions
    torch.testing.assert_close((rows @ fitted.mT).norm(dim=1), torch.ones(20, dtype=torch.float64))
    # Of the eight components three combinations go with a, b and c; the rest with none.
    assert valueless_span(found).shape[0] == 5
    (captured,) = (seen[site] for _, seen in capture(Session(model), model.encode(fit), [site]))
    along = captured.double() @ rows.mT
    assert pearson(along, value_table(fit)).abs().max() < 1e-3
    # Those drawn from the whole span do carry values.
    span = captured.double() @ unit_rows(found)["span"].frames[:, 0].double().mT
    assert pearson(span, value_table(fit)).abs().max() > 0.2


def test_controls_may_be_left_out():
    *_, sites, traces = planted()
    few = unit_rows(traces[sites[0]], random=1, span=0, other=False, shuffled=False, valueless=0)
    assert {name: len(arm.frames) for name, arm in few.items()} == {"target": 1, "control": 1}


def test_controls_differ_between_seeds_and_components_and_sites():
    *_, sites, traces = planted()
    asked = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    directions = [
        unit_rows(traces[sites[layer]], seed=seed, component=component)["control"].frames[0, 0]
        for seed, component, layer in asked
    ]
    for first, second in combinations(directions, 2):
        assert abs(float(first @ second)) < 0.99


def test_draws_are_kept_one_by_one_and_their_mean_is_the_arms():
    _, _, tables = planted_effects(SCALE)
    same = ["component", "arm", "strength"]
    draws = tables["control_draws"]
    assert sorted(draws.loc[draws["arm"] == "control", "draw"].unique()) == list(range(20))
    means = draws.groupby(same)["accuracy_drop"].mean()
    arm = tables["effects"].set_index(same)["accuracy_drop"]
    for place, drop in means.items():
        assert arm[place] == pytest.approx(drop)


def test_the_targets_drop_is_set_against_its_controls():
    _, found, tables = planted_effects(SCALE, tolerance=150.0)
    used, unused = found.best_component("b-c"), found.best_component("a")
    effects = tables["effects"].query("arm == 'target'").set_index(["component", "strength"])
    at = effects.loc[(used, 2.0)]
    assert at["excess_low"] < at["excess_drop"] < at["excess_high"]
    assert at["excess_drop"] > 0.4
    assert at["excess_p"] == pytest.approx(1 / 21)
    contrasts = tables["contrasts"].set_index(["component", "arm"])
    assert contrasts.loc[(used, "control"), "p_max"] == pytest.approx(1 / 21)
    assert contrasts.loc[(used, "control"), "n_strengths"] == 2  # 1 changes nothing
    assert contrasts.loc[(unused, "control"), "excess_drop"] < 0
    drop = contrasts.loc[(used, "control"), "target_drop"]
    assert drop == pytest.approx(
        (effects.loc[(used, 0.0), "accuracy_drop"] + at["accuracy_drop"]) / 2
    )
    assert contrasts["p_max"].notna().groupby("arm").all().to_dict() == {
        "control": True,
        "other": False,
        "shuffled": False,
        "span": True,
    }


def test_where_too_few_directions_are_drawn_it_is_said_that_no_drop_can_count():
    controls = Controls(random=5, span=19, other=False, shuffled=False)
    _, _, tables = planted_effects(replace(SCALE, controls=controls))
    assert unresolved_drops(tables["contrasts"], controls) == [
        "p of a drop beyond 5 random directions is 0.17 at least, and none can count: set "
        "intervention.controls.random to 19 or more"
    ]
    assert unresolved_drops(planted_effects(SCALE)[2]["contrasts"], SCALE.controls) == []


def test_without_controls_nothing_is_said_of_an_excess():
    plan = replace(SCALE, controls=Controls(random=0, span=0, other=False, shuffled=False))
    _, _, tables = planted_effects(plan)
    assert set(tables["effects"]["arm"]) == {"target"}
    assert tables["effects"]["excess_drop"].isna().all()
    assert tables["contrasts"].empty
    assert tables["control_draws"].empty


@pytest.mark.parametrize("name", [pytest.param("set", marks=pytest.mark.slow), "interchange"])
def test_a_coordinate_that_is_read_answers_as_its_value_and_one_that_is_not_does_not(name):
    plan = replace(INTERCHANGE, edit=find_edit(name), n_sources=3)
    # The fitted directions are two degrees off the planted ones: answers err by some 30.
    *_, tables = planted_effects(plan, tolerance=100.0)
    table = tables["counterfactual"].set_index(["value", "strength", "arm"])
    read, written = (table.loc[(value, 1.0, "target")] for value in ("b-c", "a"))
    assert read["iia"] > 0.95 > 0.3 > read["floor"]
    assert read["slope"] == pytest.approx(1, abs=0.1)
    assert read["wrong_way"] < 0.02
    assert read["p"] == pytest.approx(1 / 201)
    assert abs(written["slope"]) < 0.2
    assert written["iia"] < 0.4
    # The whole activation at the last position is what the answer is computed from; but for a,
    # which block 1 reads from its own position.
    assert read["ceiling"] == 1.0
    random = table.loc[("b-c", 1.0, "control")]
    assert random["iia"] < read["iia"] - 0.3
    still = table.loc[("b-c", 0.0, "target")]
    assert still["slope"] == 0
    if name == "interchange":
        named = tables["specificity"]["direction_of"].map(lambda names: "b-c" in names)
        slopes = tables["specificity"].loc[named].set_index("changed")["slope"]
        assert slopes["b-c"] == pytest.approx(1, abs=0.1)
        assert abs(slopes["a"]) < 0.2
    else:
        assert "specificity" not in tables


@pytest.mark.slow
def test_a_listed_component_is_moved_towards_every_value_and_chosen_for_its_own():
    plan = replace(INTERCHANGE, components=(0, 1))
    _, found, tables = planted_effects(plan, tolerance=100.0)
    effects = tables["effects"].query("arm == 'target' and strength == 1.0")
    assert not effects.duplicated(["component", "target_value"]).any()
    for component, chosen_for, value in zip(
        effects["component"], effects["chosen_for"], effects["target_value"], strict=True
    ):
        assert chosen_for == ((value,) if found.best_component(value) == component else ())
    named = set(per_value(effects)["value"])
    assert "b-c" in named
    assert "component 1" in named
    specificity = tables["specificity"]
    assert not specificity.duplicated(["component", "changed"]).any()
    for component, of_values in zip(
        specificity["component"], specificity["direction_of"], strict=True
    ):
        best = {value for value in found.values if found.best_component(value) == component}
        assert set(of_values) == best
    # An edit towards a value counts among its largest drops, whatever its component is best for.
    best = found.best_component("a")
    others = tables["effects"].query(f"component != {best}")
    assert set(largest_drops(others, ["a", "b-c"])) == {"a", "b-c"}


def test_a_value_that_never_varies_is_chosen_for_nothing():
    problems = draw(TEMPLATE, n=60, ranges={"a": (5, 5), "b": (100, 999), "c": (100, 999)}, seed=1)
    model = PlantedModel()
    fit, report = split(problems, fit_share=0.5, seed=0)
    site = Site(0, "resid_post", "last")
    found = traced(model, fit, report, [site], n_components=2, batch_size=60)[site]
    assert found.best_component("a") is None
    assert all("a" not in target.chosen_for for target in choose_targets(found))


def test_too_few_draws_of_chance_for_so_many_tests_are_said():
    table = pd.DataFrame({"arm": ["target"] * 40 + ["control"], "strength": [1.0] * 41})
    assert unresolved(table, 1000) == []
    (said,) = unresolved(table, 199)
    assert "40 tests, is 0.2 at least" in said
    assert "inference.permutations to 799" in said
    assert unresolved(pd.DataFrame(), 1) == []
