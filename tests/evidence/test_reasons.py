"""Where a number of a cell is missing, the reason stands beside it: each reason in a real cell."""

import math
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest

from mech_arith.evidence.summary import missing_summary
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from tests.experiment.test_cell import plan, problems, run
from tests.lms import tiny_lm
from tests.models.test_pretrained import drawn, model_in
from tests.tiny import PlantedModel

FEW = Controls(random=2, span=2, valueless=0, other=False, shuffled=False)
HOW = Resampling(n_resamples=50, n_permutations=30)
SCALE = InterventionPlan(find_edit("scale"), (0.0, 1.0), controls=FEW)
INTERCHANGE = InterventionPlan(
    find_edit("interchange"), (0.5, 1.0), values=("b-c",), controls=FEW, n_sources=2
)
NO_CONTROLS = Controls(random=0, span=0, valueless=0, other=False, shuffled=False)


def run_on(splits, intervention, **changes):
    asked = {"layers": (0,), "n_edited": 12, "how": HOW, "intervention": intervention, **changes}
    return run(PlantedModel(), *splits, plan(**asked))


@cache
def cell(intervention, **changes):
    """The planted model's, at layer 0: component 0 is a, and component 1 is b-c."""
    return run_on(problems(), intervention, **changes)


def evidence(result) -> pd.DataFrame:
    return result.tables["evidence"].set_index("value")


@pytest.mark.parametrize(
    ("intervention", "changes", "value", "why"),
    [
        (None, {}, "a", "nothing was edited"),
        (replace(SCALE, values=("a",)), {}, "b-c", "nothing was edited here for this value"),
        (replace(SCALE, controls=NO_CONTROLS), {}, "a", "no control directions were drawn"),
        (
            replace(SCALE, controls=Controls(0, 2, other=False, shuffled=False, valueless=0)),
            {"n_components": 1, "positions": "b", "point": "resid_pre"},
            "b",
            "no control directions were drawn",  # the span is one direction
        ),
        (replace(SCALE, strengths=(1.0,)), {}, "b-c", "no strength moves the coordinate"),
        (replace(INTERCHANGE, strengths=(0.0,)), {}, "b-c", "no strength moves the coordinate"),
    ],
)
def test_why_there_is_no_drop_beyond_drawn_directions(intervention, changes, value, why):
    result = cell(intervention, **changes)
    row = evidence(result).loc[value]
    assert pd.isna(row["excess_drop"])
    assert row["excess_reason"] == why
    assert row["used"] is None
    assert result.summary["missing"]["excess_drop"][value] == why
    # Of an edit towards values use is told by answers, and by no drop.
    goes_towards = intervention is not None and intervention.edit.target is not None
    untold = row["iia_reason"] if goes_towards else why
    assert row["untold"] == untold
    whole = result.summary["verdicts"][value]["text"]
    assert whole.endswith(untold) == row["held"]


def test_a_cell_without_controls_says_what_was_edited_and_counts_no_contrasts():
    result = cell(replace(SCALE, controls=NO_CONTROLS))
    assert set(evidence(result)["edit"]) == {"scale"}
    assert (result.summary["n_contrasts"], result.summary["n_contrasts_beyond"]) == (0, 0)
    assert result.summary["largest_drop"]["b-c"]["accuracy_drop"] > 0.9


def test_one_component_has_no_span_to_draw_from_where_another_site_has():
    """At the operands' own positions nothing but their number varies."""
    spanned = replace(SCALE, controls=replace(FEW, random=0))
    asked = {"positions": "each", "point": "resid_post", "n_components": 3}
    found = cell(spanned, **asked).tables["evidence"].set_index(["position", "value"])
    assert found.loc[("0", "a"), "excess_reason"] == (
        "no direction could be drawn here to compare it with"
    )
    assert found.loc[("3", "a"), "excess_reason"] == ""
    assert found.loc[("3", "a"), "excess_drop"] == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    ("intervention", "value", "why"),
    [
        (None, "b-c", "nothing was edited"),
        (SCALE, "b-c", "the edit scale takes no value from another problem"),
        (
            replace(INTERCHANGE, strengths=(0.5, 2.0)),
            "b-c",
            "no strength of 1, the whole way to the other value, was asked for",
        ),
        (
            replace(INTERCHANGE, values=("a",)),
            "b-c",
            "the edit goes towards other values, or no problem could have another value here",
        ),
        (
            replace(INTERCHANGE, components=(0,)),
            "b-c",
            "this component was not edited towards the value",
        ),
    ],
)
def test_why_nothing_is_known_of_answers_that_follow_a_value(intervention, value, why):
    result = cell(intervention)
    row = evidence(result).loc[value]
    assert pd.isna(row["iia"])
    assert row["iia_reason"] == why
    assert result.summary["missing"]["iia"][value] == why


def test_where_there_is_a_number_there_is_no_reason():
    result = cell(INTERCHANGE)
    row = evidence(result).loc["b-c"]
    assert row["iia"] + row["excess_drop"] + row["ceiling"] > -math.inf
    assert (row["iia_reason"], row["excess_reason"]) == ("", "")
    assert "b-c" not in result.summary["missing"]["iia"]
    assert "b-c" not in result.summary["missing"]["excess_drop"]
    tables = result.tables
    assert set(tables["counterfactual"]["ceiling_reason"]) == {""}
    assert set(tables["correlations"]["position_reason"]) == {""}
    assert set(tables["correlations"]["position_index"]) == {3}


def test_a_source_that_differs_in_more_than_the_value_has_no_ceiling():
    template = build_template("mine", "(a+b)*a-c")  # a stands outside a+b, too
    base = draw(template, n=100, ranges=dict.fromkeys("abc", (1, 99)), seed=0)
    splits = split(base, fit_share=0.5, seed=0)
    result = run_on(splits, replace(INTERCHANGE, values=("a+b", "c")), tolerance=1e6)
    table = result.tables["counterfactual"]
    beside = table.loc[table["value"] == "a+b"]
    assert set(beside["ceiling_reason"]) == {"a source differs in more than the value"}
    assert beside[["ceiling", "ceiling_low", "ceiling_high"]].isna().all(axis=None)
    whole = table.loc[table["value"] == "c"]
    assert set(whole["ceiling_reason"]) == {""}
    assert whole["ceiling"].notna().all()


def test_why_a_position_has_no_index(tmp_path):
    several = cell(None, positions="operands").tables["correlations"]
    assert set(several["position_reason"]) == {"it is several positions"}
    assert several["position_index"].isna().all()
    problems_, shots = drawn(low=1, high=99, n=40)
    model = model_in(tiny_lm("llama", tmp_path), shots=shots)
    asked = plan(intervention=None, digits=2, n_components=2, positions="b.last")
    found = run(model, *split(problems_, fit_share=0.5, seed=0), asked).tables["correlations"]
    assert set(found["position_reason"]) == {
        "it is another position in some prompts: they have several layouts"
    }
    assert found["position_index"].isna().all()


def test_why_there_is_no_partial_r():
    found = cell(None).tables["correlations"].set_index(["component", "value"])
    assert found.loc[(1, "b-c"), "partial_r_undefined"] == "b-c = b - c"
    assert cell(None).summary["missing"]["partial_r"]["b-c"] == "b-c = b - c"
    splits = problems({"a": (5, 5), "b": (100, 999), "c": (100, 999)})
    constant = run_on(splits, None).tables["correlations"].set_index(["component", "value"])
    assert constant.loc[(0, "a"), "partial_r_undefined"] == "a is constant"
    assert math.isnan(constant.loc[(0, "a"), "partial_r"])


def test_missing_numbers_are_those_of_the_headline_place():
    result = cell(replace(SCALE, values=("a",)))
    assert missing_summary(result.tables["evidence"]) == result.summary["missing"]
    assert "a" not in result.summary["missing"]["excess_drop"]
    assert set(result.summary["missing"]["iia"]) == {"a", "b", "c", "b-c", "a-(b-c)"}


def test_of_one_source_there_are_no_slopes_of_single_problems():
    own = ["wrong_way", "monotonicity", "own_slope_25", "own_slope_50", "own_slope_75"]
    one, two = (
        cell(replace(INTERCHANGE, n_sources=m)).tables["counterfactual"].query("strength == 1")
        for m in (1, 2)
    )
    assert one[own].isna().all(axis=None)
    assert one["slope"].notna().all()
    assert two[own].notna().all(axis=None)
