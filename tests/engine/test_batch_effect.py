"""What is said of models in half precision whose answers depend on the batch."""

from dataclasses import replace
from math import isnan

import pytest
import torch

from mech_arith.common.store import Store
from mech_arith.engine.batch_effect import (
    EDITS,
    PROBLEMS,
    BatchEffect,
    measure_batch_effect,
    near_tie_warnings,
    near_ties,
)
from mech_arith.engine.batching import Batching
from mech_arith.engine.run import ReferenceAnswers
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm
from tests.models.test_pretrained import ASKED, model_in
from tests.models.test_pretrained import PROBLEMS as SUMS
from tests.tiny import PlantedModel, tiny_decoder

NESTED = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=2
)
LAST = [Site(1, "mlp_out", "last"), Site(2, "resid_post", "last")]


def measured(model, problems=NESTED, sites=LAST, *, rows=16, store=None):
    session = Session(model, Batching(rows), store or Store(None))
    asked = ReferenceAnswers.of_problems(problems)
    return measure_batch_effect(session, model.encode(problems), asked, sites)


class Uneven(PlantedModel):
    """Where several rows are run at a time, answers above 500 come out one too large."""

    dtype = torch.bfloat16

    def __init__(self):
        super().__init__()
        self.passes = 0

    def read_out(self, resid):
        self.passes += 1
        numbers = super().read_out(resid)
        return numbers + (numbers > 500) * (len(resid) > 1)


def test_answers_that_differ_are_counted():
    """An edit in layer 1 puts another problem's answer in place: that one is above 500 or not."""
    found = measured(Uneven())
    answers = torch.from_numpy(NESTED.answers)
    own = int((answers[:PROBLEMS] > 500).sum())
    put = [answers.roll(-1 - edit)[:PROBLEMS] > 500 for edit in range(EDITS)]
    counts = (own, int(torch.stack(put).sum()))
    assert (found.changed, found.changed_edited) == counts
    assert (found.rows, found.n, found.n_edited) == (16, PROBLEMS, PROBLEMS * EDITS)
    assert found.dtype == "bfloat16"
    assert found.activations < 1e-6
    assert isnan(found.log_prob)
    assert isnan(found.logit_difference)
    assert own
    assert found.changed_edited not in (0, own)
    assert found.warning == (
        "answers depend on batch_size: in bfloat16 16 rows at a time and single rows differ in "
        f"{own} of 4 answers and in {found.changed_edited} of 8 edited ones, in activations by up "
        f"to {100 * found.activations:.2g}%; set dtype=float32, or take shares of answers as no "
        "more exact than that"
    )


def test_what_was_measured_is_not_measured_again(tmp_path):
    first, second = Uneven(), Uneven()
    found = measured(first, store=Store(tmp_path))
    again = measured(second, store=Store(tmp_path))
    assert str(again) == str(found)
    assert first.passes
    assert second.passes == 0


def test_float32_pays_nothing():
    model = Uneven()
    model.dtype = torch.float32
    assert measured(model) is None
    assert model.passes == 0


def nearly_tied():
    """A model that writes, whose two likeliest tokens are all but equally likely.

    Which of them is the larger one depends on the batch.
    """
    model = tiny_decoder()
    own = model.read_out

    def read_out(resid):
        logits = own(resid)
        top, second = logits.topk(2, dim=-1).indices.split(1, dim=-1)
        first = top if len(resid) == 1 else second
        largest = logits.amax(-1, keepdim=True)
        return logits.scatter(-1, second, largest).scatter(-1, first, largest + 0.01)

    model.read_out, model.dtype = read_out, torch.float16
    return model


def test_nearly_tied_of_a_model_that_writes_are_found():
    found = measured(nearly_tied())
    assert found.changed + found.changed_edited > 0
    assert found.log_prob > 0
    assert found.warning.startswith("answers depend on batch_size: in float16 16 rows at a time")
    assert f"log-probabilities by up to {found.log_prob:.2g}, in logit diff" in found.warning


@pytest.mark.parametrize("replays", [True, False])
def test_a_language_model_in_bfloat16(tmp_path, replays):
    model = model_in(tiny_lm("llama", tmp_path), dtype="bfloat16")
    model.replays = replays
    sites = [Site(1, "z", "last", 2), Site(1, "z", "b.last", 2), Site(2, "resid_post", "last")]
    prompts = model.encode(SUMS)
    found = measure_batch_effect(Session(model, Batching(7)), prompts, ASKED, sites)
    assert (found.dtype, found.n, found.n_edited) == ("bfloat16", PROBLEMS, PROBLEMS * EDITS)
    assert 0 <= found.log_prob < 0.5
    assert 0 <= found.activations < 0.05
    # What is compared is the fewer of two runs: nothing is left behind in the session.
    assert not found.is_exact or str(found).endswith("give the same bits")


def test_bits_that_are_the_same_are_said_to_be():
    same = BatchEffect("float16", 64, 4, 8, 0, 0, 0.0, float("nan"), 0.0)
    assert same.is_exact
    assert str(same) == "in float16 64 rows at a time and single rows give the same bits"
    assert same.warning is None
    near = replace(same, log_prob=0.03)
    assert not near.is_exact
    assert near.warning is None
    assert "in 0 of 4 answers and in 0 of 8 edited ones, in log-prob" in str(near)


def test_answers_that_are_as_near_to_another_as_the_batch_moves_them_are_counted() -> None:
    effect = {"dtype": "float16", "logit_difference": 0.1}
    baseline = torch.tensor([0.09, -0.05, 0.2, 3.0, torch.nan])
    found = near_ties(effect, baseline.double(), torch.tensor([0.05, 2.0, 3.0, 4.0]).double())
    assert found == {**effect, "near": 0.5, "near_edited": 0.25}
    (said,) = near_tie_warnings(found)
    assert said.startswith("50% of the answers and 25% of the edited answers have a logit")
    assert near_ties({**effect, "logit_difference": torch.nan}, baseline.double(), None) == {
        "dtype": "float16",
        "logit_difference": pytest.approx(torch.nan, nan_ok=True),
        "near": None,
        "near_edited": None,
    }
    exact = near_ties({**effect, "logit_difference": 0.0}, baseline.double(), None)
    assert (exact["near"], exact["near_edited"]) == (0.0, None)
    assert near_tie_warnings(exact) == []
