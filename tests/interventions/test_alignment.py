"""All steps of a hypothesis together: where each is taken to be, and what the answers say."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits, trace
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.alignments import ANY, alignment_summary, alignment_table
from mech_arith.evidence.columns import conformed
from mech_arith.interventions.alignment import (
    APART,
    best_places_of,
    interchange_together,
    untested,
)
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan, intervene
from mech_arith.models.planted.digits import DIGITS, DigitModel, DigitPlant
from mech_arith.problems import split
from mech_arith.problems.joint import draw_joint
from mech_arith.statistics import Resampling

HOW = Resampling(n_permutations=20, n_resamples=50)
PLAN = InterventionPlan(
    find_edit("interchange"),
    (1.0,),
    n_sources=2,
    controls=Controls(0, 0, 0, other=False, shuffled=False),
    seed=1,
)


@pytest.fixture(scope="module")
def known():
    """A plant that adds digit by digit, traced wherever it writes a step."""
    plant = DigitPlant.drawn(0, DIGITS)
    model = DigitModel(plant)
    fit, report = split(plant.problems(700), fit_share=0.8, seed=0)
    steps = [step for of_one in plant.steps.values() for step in of_one]
    sites = dict.fromkeys(Site(step.layer, "resid_post", str(step.position)) for step in steps)
    right = torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, model.encode(fit), model.encode(report), right)
    found = trace(Session(model), splits, list(sites), find_method("pca", 6), HOW)
    edited = report.take(np.arange(40))
    asked = ReferenceAnswers.of_problems(edited)
    baseline = run_baseline(Session(model), model.encode(edited), asked)
    bases = Bases(edited, baseline, found)
    return plant, Session(model), bases, intervene(Session(model), bases, PLAN, n_shuffles=1)


def test_each_step_is_where_it_is_written(known) -> None:
    plant, _, bases, _ = known
    written = {step.value: step for step in plant.steps[DIGITS]}
    places = best_places_of(bases.traces, tuple(written), 1, {})
    assert places is not None
    assert list(places) == list(written)
    for step, (site, _) in places.items():
        assert (site.layer, site.position) == (written[step].layer, str(written[step].position))


def test_no_two_steps_have_one_place(known) -> None:
    _, _, bases, _ = known
    (site, one), *_ = bases.traces.items()
    values = one.values[:2]
    same = replace(
        one,
        readings=tuple(
            replace(reading, by_value=(reading.by_value[0],) * len(one.values))
            for reading in one.readings
        ),
    )
    assert best_places_of({site: same}, values, 1, {}) is None
    other = replace(site, layer=site.layer + 1)
    weaker = replace(reading := same.readings[0].by_value[0], r_fit=0.1)
    assert reading is not None
    below = replace(
        same,
        readings=tuple(
            replace(each, by_value=(weaker,) * len(one.values)) for each in same.readings
        ),
    )
    places = best_places_of({other: below, site: same}, values, 1, {})
    assert places is not None
    assert {there for there, _ in places.values()} == {site, other}
    assert 0 < APART < 1


def test_a_step_is_set_where_answers_follow_it(known) -> None:
    """And not where it is only read best: `followed` comes first, |R| where it says nothing."""
    plant, _, bases, _ = known
    steps = tuple(step.value for step in plant.steps[DIGITS])
    best = best_places_of(bases.traces, steps, 1, {})
    assert best is not None
    step = steps[0]
    place = next(
        (site, reading.components)
        for site, one in bases.traces.items()
        for reading in [one.readings[0].by_value[one.values.index(step)]]
        if reading is not None and site not in {there for there, _ in best.values()}
    )
    chosen = best_places_of(bases.traces, steps, 1, {(step, place): 0.5})
    assert chosen is not None
    assert chosen[step] == place != best[step]


def test_answers_are_those_of_all_steps_that_are_set(known) -> None:
    plant, session, bases, done = known
    found = list(
        interchange_together(session, bases, PLAN, done, tolerance=session.model.tolerance)
    )
    by_name = {one.hypothesis.name: one for one in found}
    assert set(by_name) == {"digits", "tree"}
    right, wrong = by_name[plant.hypothesis], by_name["tree"]
    expected = torch.from_numpy(right.sources.expected())
    assert (right.numbers - expected).abs().le(0.5).double().mean() > 0.9
    expected = torch.from_numpy(wrong.sources.expected())
    assert (wrong.numbers - expected).abs().le(0.5).double().mean() < 0.1
    table = alignment_table(found, tolerance=0.5, how=HOW, seed=1)
    conformed("alignments", table.assign(via="activations"))
    whole = table.loc[table["steps_set"] == ANY].set_index("hypothesis")
    assert whole["supported"].to_dict() == {"digits": True, "tree": False}
    parts = table.loc[(table["hypothesis"] == "digits") & (table["steps_set"] != ANY)]
    assert list(parts["steps_set"]) == [2]  # the tens override the carry
    assert parts["supported"].isna().all()
    assert whole.loc["digits", "n_pairs"] == 2 * 20
    assert parts["n_telling"].sum() == whole.loc["digits", "n_telling"]
    said = alignment_summary({"alignments": table})
    assert said["digits"]["text"].startswith("supported, several of 3 steps together (rank 1)")
    assert said["tree"]["text"].startswith("not beyond chance, its step alone")
    assert re.search(r"as expected in (\.\d\d|1\.00) \[", said["digits"]["text"])
    assert "0." not in said["digits"]["text"].replace("1.00", "")


def test_a_hypothesis_of_one_step_is_left_to_its_interchange(known) -> None:
    _, session, bases, done = known
    problems = bases.problems
    template = replace(problems.template, computed_by=None)
    plain = replace(bases, problems=type(problems).of(template, problems.operands))
    assert len(plain.problems.hypothesis.used_steps) == 1
    assert not list(interchange_together(session, plain, PLAN, done, tolerance=0.5))
    assert alignment_summary({"alignments": pd.DataFrame()}) == {}
    assert untested(plain.problems, []) == []
    (said,) = untested(problems, [])
    assert "digits is not tested as a whole" in said


def test_answers_that_follow_no_source_are_not_supported_by_their_carries(known) -> None:
    """An edit that flips the carry whatever it is told is as expected as often by chance."""
    _, session, bases, done = known
    random, times = np.random.default_rng(0), []
    found = list(interchange_together(session, bases, PLAN, done, tolerance=0.5))
    (one,) = (each for each in found if each.hypothesis.name == "digits")
    for seed in range(6):
        sources = draw_joint(
            bases.problems, one.hypothesis, ("ones", "ones_carry"), m=2, tolerance=0.5, seed=seed
        )
        base = torch.from_numpy(sources.problems.answers[sources.rows]).double()
        flips = torch.from_numpy(random.choice([-10.0, 10.0, 500.0], size=len(base)))
        table = alignment_table(
            [replace(one, sources=sources, numbers=base + flips)], tolerance=0.5, how=HOW, seed=seed
        )
        times.append(bool(table.loc[table["steps_set"] == ANY, "supported"].item()))
    assert sum(times) <= 1


def test_floor_is_what_sources_of_others_would_want(known) -> None:
    """Answers that are not moved at all are as expected in none, whatever the floor."""
    _, session, bases, done = known
    found = [
        replace(one, numbers=bases.baseline.answers.numbers[:20].repeat(2))
        for one in interchange_together(session, bases, PLAN, done, tolerance=0.5)
    ]
    table = alignment_table(found, tolerance=0.5, how=HOW, seed=1)
    assert (table["telling"] == 0).all()
    assert not table["supported"].any()
    assert (table.loc[table["steps_set"] == ANY, "p_holm"] == 1).all()
