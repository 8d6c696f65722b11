import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.common.store import Store
from mech_arith.engine.batching import Batching
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.evidence.locality import _by_chance, _match, locality_tables
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.locality import LocalityPlan, _slope, _step, locality
from mech_arith.interventions.locality.functions import _polynomial
from mech_arith.problems import draw
from mech_arith.problems.expressions import parse
from mech_arith.problems.templates import build_template
from tests.directions.test_tracing import planted

PLAN = LocalityPlan(
    n_problems=30,
    coordinate_points=20,
    coordinate_span=1.2,
    value_points=9,
    ranges=dict.fromkeys("abc", (100, 999)),
)


def test_the_two_functions_agree_where_the_coordinate_is_the_value():
    model, _, report, sites, traces = planted()
    baseline = run_baseline(
        Session(model, Batching(50)), model.encode(report), ReferenceAnswers.of_problems(report)
    )
    traces = {sites[0]: traces[sites[0]]}
    bases = Bases(report, baseline, traces, digits=3)
    tables = locality_tables(locality(Session(model, Batching(100)), bases, PLAN))
    rows = tables["locality"].set_index(["value", "moved_by"])
    # the component is b-c: f_a follows it whichever operand moves it
    for moved_by in ("b", "c"):
        assert rows.loc[("b-c", moved_by), "r2"] > 0.99
        assert rows.loc[("b-c", moved_by), "covered"] > 0.8
    # what holds a is written but never read: no hypothetical a follows from the answers
    assert rows.loc[("a", "a"), "covered"] < 0.2
    # the answer's best component here is that of b-c, which does not follow a
    assert not rows.loc[("a-(b-c)", "a"), "r2"] > 0.5
    curves = tables["locality_curves"]
    distance = curves[(curves["value"] == "b-c") & (curves["kind"] == "distance")]
    assert len(distance) >= 5
    assert (distance["y"] < 0.05 * float(traces[sites[0]].coordinates.std())).all()
    assert {"f_p", "f_a"} <= set(curves["kind"])
    # no place is drawn at which the operand would leave its range
    first = {name: int(numbers[0]) for name, numbers in report.operands.items()}
    drawn = curves[(curves["value"] == "b-c") & (curves["kind"] == "f_a")]
    by_b, by_c = (drawn.loc[drawn["moved_by"] == operand, "x"] for operand in "bc")
    assert (by_b + first["c"]).between(100, 999).all()
    assert (first["b"] - by_c).between(100, 999).all()
    assert 2 <= len(by_b) < PLAN.value_points


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("a-(b-c)", "b", -1),
        ("a-(b-c)", "b-c", -1),
        ("a-(b-c)", "a-(b-c)", 1),
        ("(a+b)*2-c", "a+b", 2),
        ("a//b", "a", None),
        ("a*b-c", "b", "a"),
    ],
)
def test_slopes(expression, value, expected):
    problems = draw(
        build_template("t", expression),
        n=20,
        ranges=dict.fromkeys(parse(expression).operands, (10, 99)),
        seed=0,
    )
    slope = _slope(parse(expression).hypothesis, value, problems)
    if expected is None:
        assert slope is None
    elif expected == "a":
        assert slope is not None
        assert slope.tolist() == problems.operands["a"].tolist()
    else:
        assert slope is not None
        assert set(slope.tolist()) == {expected}


def test_polynomial_is_exact_for_a_quartic_and_unknown_without_points():
    x = torch.linspace(100, 900, 20, dtype=torch.float64)
    scaled = (x - 500) / 400
    y = 3 - 2 * scaled + scaled**4
    rows = torch.stack([x, torch.full_like(x, 500.0), torch.full_like(x, torch.nan)])
    rows[0, 3] = torch.nan
    at = torch.tensor([150.0, 610.0], dtype=torch.float64)
    found = _polynomial(rows, y, at)
    expected = np.polynomial.Polynomial([3, -2, 0, 0, 1])(((at - 500) / 400).numpy())
    np.testing.assert_allclose(found[0], expected, atol=1e-8)
    assert found[1:].isnan().all()


@pytest.mark.parametrize(
    ("expression", "value", "operand", "expected"),
    [
        ("a-(b-c)", "b-c", "b", 1),
        ("a-(b-c)", "b-c", "c", -1),
        ("a+a-b", "a+a", "a", 0),
        ("(a+b)-(a-c)", "a+b", "a", 0),
        ("(a+b)-(a-c)", "a+b", "b", 1),
        ("a*b-c", "a*b", "a", 0),
    ],
)
def test_steps(expression, value, operand, expected):
    problems = draw(
        build_template("t", expression),
        n=20,
        ranges=dict.fromkeys(parse(expression).operands, (10, 99)),
        seed=0,
    )
    assert _step(parse(expression).hypothesis, value, operand, problems) == expected


def test_a_match_by_chance_has_the_places_of_the_value_in_any_order():
    places = torch.linspace(-1, 1, 9, dtype=torch.float64)
    lines = torch.stack([2 * places + start for start in (-0.1, 0.0, 0.1)])
    everywhere = torch.ones(3, 9, dtype=torch.bool)
    found, chance = _match(lines, lines, everywhere), _by_chance(lines, lines, everywhere)
    assert (found.r, found.r2) == (pytest.approx(1), pytest.approx(1))
    assert abs(chance.r) < 0.1
    assert chance.r2 < 0
    assert chance.share_above(found.r) == pytest.approx(1 / 201)
    assert chance.share_above(-1.0) == 1
    nowhere = _match(lines, lines, ~everywhere)
    assert math.isnan(nowhere.r)
    assert math.isnan(chance.share_above(nowhere.r))
    # Where most orders leave nothing to compare, nothing is said.
    few = everywhere.clone()
    few[:, 1:] = False
    few[:, 0] = torch.tensor([True, True, True])
    assert math.isnan(_by_chance(lines, lines, few).share_above(0.5))


@pytest.mark.slow
def test_what_another_cell_has_run_is_read_back_and_nothing_else(tmp_path):
    model, _, report, sites, traces = planted()
    baseline = run_baseline(
        Session(model, Batching(50)), model.encode(report), ReferenceAnswers.of_problems(report)
    )

    def run(site, plan, store):
        bases = Bases(report, baseline, {site: traces[sites[0]]}, digits=3)
        return locality_tables(locality(Session(model, Batching(100), store), bases, plan))

    named = replace(sites[0], position="last")
    for site, plan, missing in (
        (sites[0], PLAN, True),
        (sites[0], PLAN, False),
        (named, PLAN, None),
        (sites[0], replace(PLAN, coordinate_points=21), True),
        (sites[0], replace(PLAN, n_problems=29), True),
        (sites[0], replace(PLAN, ranges=dict.fromkeys("abc", (200, 900))), True),
    ):
        store = Store(tmp_path)
        stored, fresh = run(site, plan, store), run(site, plan, Store(None))
        for name, table in fresh.items():
            pd.testing.assert_frame_equal(table, stored[name], check_exact=True)
        assert missing is None or (store.misses > 0) == missing
