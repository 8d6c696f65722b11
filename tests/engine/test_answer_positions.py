"""Edits and tracing where the answer is written, against whole hooked passes and by hand."""

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine import guard
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.edits import SiteEdits, SiteGrid, SiteVectors
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.passes import ResumedTails
from mech_arith.engine.run import ReferenceAnswers, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.base import POINTS
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import random_edits, tiny_decoder

PROBLEMS = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
ASKED = ReferenceAnswers.of_problems(PROBLEMS)
POSITIONS = ("answer.0", "answer.1", "answer.3", "answer", "all+answer")
FIELDS = ("numbers", "log_prob", "logit_difference", "tokens")
DECODER = tiny_decoder(seed=3)
PROMPTS = encode_for(DECODER, PROBLEMS, ["answer"])


def baseline_of(model, prompts=PROMPTS):
    return run_baseline(Session(model), prompts, ASKED)


def ruled(site, *, slope, n_edits=3, size=4.0, seed=1, model=DECODER):
    """Random edits with a rule."""
    plain = random_edits(model, PROMPTS, site, size=size, n_edits=n_edits, seed=seed)
    slopes = torch.full((n_edits,), slope, dtype=torch.float64)
    return SiteEdits(site, plain.directions, plain.changes, slopes)


def by_full_passes(model, baseline, asked):
    model.replays = False
    try:
        return edited_answers(Session(model), baseline, asked)
    finally:
        model.replays = True


def assert_same(ours, theirs, *, atol=1e-5):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(ours, field), getattr(theirs, field), atol=atol, rtol=1e-5, equal_nan=True
        )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("point", ["resid_pre", "attn_out", "resid_post"])
def test_answers_are_those_of_full_passes_while_several_tokens_are_written(point, position):
    """Random weights write anything: rows part from the right answer at every token."""
    baseline = baseline_of(DECODER)
    for layer in (0, 2):
        asked = ruled(Site(layer, point, position), slope=0.25)
        ours = edited_answers(Session(DECODER, Batching(9)), baseline, asked)
        assert_same(ours, by_full_passes(DECODER, baseline, asked))
        unedited = baseline.written[:, :5].expand(3, -1, -1)
        if position != "answer.0" or layer == 0:
            assert (ours.tokens != unedited).any()
