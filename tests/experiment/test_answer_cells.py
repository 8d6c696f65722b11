"""Whole cells that trace and edit where the answer is written."""

import numpy as np
import pytest

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.experiment.cell import CellPlan, run_cell
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.locality import LocalityPlan
from mech_arith.interventions.run import InterventionPlan, check_sources
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.problems import draw, split
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in
from tests.tiny import tiny_encoder

TEMPLATE = build_template("nested", "a-(b-c)")
ABC = dict.fromkeys("abc", (100, 999))
FEW = Controls(random=2, span=2, valueless=2)
TOKENS = ["sign", "10^0", "10^1", "10^2", "10^3"]


def plan(edit="interchange", strengths=(1.0,), **changes):
    asked = {
        "layers": (0, 3),
        "point": "resid_post",
        "positions": "answer",
        "position_map": False,
        "method": find_method("pca", 3),
        "intervention": InterventionPlan(find_edit(edit), strengths, controls=FEW),
        "n_edited": 20,
        "locality": None,
        "tolerance": None,
        "digits": 3,
        "how": Resampling(n_resamples=100, n_permutations=100),
    }
    return CellPlan(**{**asked, **changes})


def problems(n=100, template=TEMPLATE, ranges=ABC):
    return split(draw(template, n=n, ranges=ranges, seed=0), fit_share=0.5, seed=0)


@pytest.fixture(scope="module")
def decoder():
    return load_arithmetic("arith_decoder")


@pytest.fixture(scope="module")
def cell(decoder):
    return run_cell(Session(decoder, Batching(64)), *problems(), plan(position_map=True))


@pytest.mark.slow
def test_the_whole_activation_of_the_answer_carries_every_value(cell):
    """At the last layer all that is read is the source's; below, the prompt is read once more."""
    evidence = cell.tables["evidence"]
    last = evidence.loc[evidence["layer"] == 3].set_index("value")
    assert set(last.index) == set(TEMPLATE.expression.values)
    assert (last["ceiling"] == 1).all()
    first = evidence.loc[evidence["layer"] == 0]
    assert (first["ceiling"] < 0.5).all()
    assert cell.summary["engine_difference"] < 1e-3


@pytest.mark.slow
def test_prompt_and_answer_carry_every_value_in_every_layer(decoder):
    asked = plan(positions="all+answer", layers=(0, 2))
    found = run_cell(Session(decoder, Batching(64)), *problems(), asked)
    assert (found.tables["evidence"]["ceiling"] >= 0.95).all()


def test_each_token_has_its_floor_and_its_ceiling(cell):
    tokens = cell.tables["answer_tokens"]
    assert list(dict.fromkeys(tokens["token_name"])) == TOKENS
    place = ["layer", "value", "arm", "strength"]
    assert not tokens.duplicated([*place, "token", "component"]).any()
    whole = cell.tables["counterfactual"]
    assert len(tokens) == 5 * len(whole)
    target = tokens.loc[(tokens["arm"] == "target") & (tokens["layer"] == 3)]
    assert (target["ceiling"] == 1).all()
    assert (target["ceiling_low"] < 1).all()
    assert target["floor"].between(0, 1).all()
    # A whole answer is right where all of its tokens are.
    least = tokens.groupby([*place, "component"])["iia"].min()
    rest = whole.set_index([*place, "component"])["iia"]
    assert (rest <= least[rest.index] + 1e-9).all()
    for value, said in cell.summary["answer_tokens"].items():
        assert set(TOKENS) < set(said), value
        assert 0 <= said["sign"]["floor"] <= 1


def test_the_map_of_single_positions_goes_on_into_the_answer(cell):
    table = cell.tables["correlations"].drop_duplicates("position").set_index("position")
    assert list(table.index) == ["answer", *(str(index) for index in range(18))]
    assert table.loc["14":"17", "token"].tolist() == TOKENS[:4]
    assert table.loc["answer", "position_reason"] == "it is several positions"


@pytest.mark.slow
def test_the_units_are_carried_where_they_are_read(decoder):
    """At answer.1 all of the units' digit comes from the source, and nothing of the others."""
    asked = plan(positions="answer.1", layers=(3,))
    found = run_cell(Session(decoder, Batching(64)), *problems(), asked)
    tokens = found.tables["answer_tokens"]
    target = tokens.loc[tokens["arm"] == "target"]
    changed = target.groupby("token_name")["ceiling_changed"].mean()
    assert changed["10^0"] == 1
    assert (changed.drop("10^0") < 0.1).all()


@pytest.mark.parametrize(
    ("edit", "strengths"), [("scale", (0.0, 1.0)), ("shift", (2.0,)), ("ablate", (1.0,))]
)
@pytest.mark.slow
def test_edits_that_go_nowhere_in_particular(decoder, edit, strengths):
    asked = plan(edit, strengths, positions="answer.3", layers=(2,))
    found = run_cell(Session(decoder, Batching(64)), *problems(), asked)
    effects = found.tables["effects"]
    assert (effects["status"] == "ok").all()
    assert "answer_tokens" not in found.tables
    assert found.summary["answer_tokens"] == {}
    if edit == "scale":  # 1 is no change
        same = effects.loc[effects["strength"] == 1]
        assert (same["accuracy_drop"] == 0).all()
        assert (same["mean_abs_shift"] == 0).all()


@pytest.mark.slow
def test_the_locality_test_runs_where_the_answer_is_written(decoder):
    finely = LocalityPlan(5, 6, 1.2, 3, ABC)
    asked = plan(positions="answer", layers=(3,), intervention=None, locality=finely)
    found = run_cell(Session(decoder, Batching(64)), *problems(), asked)
    assert len(found.tables["locality"])


class Expensive(Exception):
    """What must not be reached."""


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ("answer.9", r"of 5 tokens, got 'answer\.9'; choose answer\.0 to answer\.4"),
        ("answer.-1", r"unknown position of the answer 'answer\.-1'; expected one of: answer,"),
        ("answer.x", r"unknown position of the answer 'answer\.x'"),
        (
            "answers",
            r"position 'answers'; expected one of: each, .* answer, answer\.each, answer\.0",
        ),
    ],
)
def test_positions_that_no_answer_has_are_refused_before_anything_is_run(
    decoder, monkeypatch, positions, said
):
    def run(*_, **__):
        raise Expensive

    for name in ("embed", "full_pass", "run_block"):
        monkeypatch.setattr(decoder, name, run)
    with pytest.raises(UserError, match=said):
        run_cell(Session(decoder), *problems(), plan(positions=positions))


@pytest.mark.parametrize("positions", ["answer", "answer.0", "all+answer", "answer.x"])
def test_a_model_that_regresses_is_refused_before_anything_is_run(monkeypatch, positions):
    model = tiny_encoder()

    def run(*_, **__):
        raise Expensive

    for name in ("embed", "full_pass", "run_block"):
        monkeypatch.setattr(model, name, run)
    with pytest.raises(UserError, match=r"that writes its answer for positions .*, got tiny_enc"):
        run_cell(Session(model), *problems(), plan(positions=positions))


def test_sources_with_shorter_answers_are_refused(tmp_path):
    """Ten and more less up to nine is of two digits, and with another subtrahend of one."""
    model = model_in(tiny_lm("llama", tmp_path))
    template = build_template("d", "a-b")
    least = parse_constraint("a-b >= 10")
    drawn = draw(template, n=40, ranges={"a": (12, 99), "b": (1, 60)}, seed=0, constraints=(least,))
    assert {len(model.reader.tokens(answer)) for answer in drawn.answers.tolist()} == {2}
    sites = [Site(1, "resid_post", "answer.1")]
    asked = InterventionPlan(find_edit("interchange"), (1.0,))
    with pytest.raises(
        UserError,
        match=r"of 1 to [23] tokens, got 'answer\.1'; choose answer\.0 \(of the problems and their "
        r"sources for [ab]\)",
    ):
        check_sources(model, drawn, asked, sites)
    check_sources(model, drawn, asked, [Site(1, "resid_post", "answer.0")])
    within = InterventionPlan(find_edit("interchange"), (1.0,), constraints=(least,))
    check_sources(model, drawn, within, sites)
    check_sources(model, drawn, InterventionPlan(find_edit("scale"), (0.0,)), sites)
    assert np.isfinite(drawn.answers).all()
