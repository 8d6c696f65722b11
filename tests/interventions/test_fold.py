"""Edits folded into weights, against the same edits made on activations at every position."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.random import random_frame
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.edits.base import Edit, find_edit
from mech_arith.interventions.fold import (
    check_editable,
    check_foldable,
    check_single,
    difference,
    fold,
    fold_of,
)
from mech_arith.models.editable import matrix
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.lms import smollm2, tiny_lm  # noqa: F401
from tests.models.test_pretrained import ASKED, PROBLEMS, model_in
from tests.thinned import thinned
from tests.tiny import PlantedModel, tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

ARITHMETIC = draw(
    build_template("nested", "a-(b-c)"), n=6, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
TRIED = (
    ("attn_out", "scale", -1.5),
    ("mlp_out", "scale", 0.0),
    ("mlp_out", "shift", 2.0),
    ("z", "ablate", 0.5),
    ("mlp_post", "scale", -1.5),
    ("mlp_post", "shift", 2.0),
)
LANGUAGE_MODELS = ("llama", "gpt2", "gpt_neox", "opt", "granite")
ARITHMETIC_KINDS = {
    "decoder": tiny_decoder,
    "encoder": tiny_encoder,
    "pre_norm_encoder": tiny_pre_norm_encoder,
}
KINDS = (*ARITHMETIC_KINDS, *LANGUAGE_MODELS)
FEW = pytest.mark.parametrize("case", ["encoder", "llama", "gpt2"], indirect=True)


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """A model of each kind, prompts and what is asked."""
    if request.param in LANGUAGE_MODELS:
        model = model_in(tiny_lm(request.param, tmp_path_factory.mktemp(request.param)))
        return model, model.encode(PROBLEMS), ASKED
    model = ARITHMETIC_KINDS[request.param]()
    return model, model.encode(ARITHMETIC), ReferenceAnswers.of_problems(ARITHMETIC)


SD = torch.tensor([0.7, 0.4, 1.1], dtype=torch.float64)


def change_at(
    model, layer, point, edit="scale", strength=-1.5, *, rank=1, seed=0, head=None, centre=True
):
    """An edit within a random subspace, about a random mean, or about the origin."""
    generator = torch.Generator().manual_seed(seed)
    width = Site(layer, point, "last", head).width(model)
    frame = random_frame(rank, width, generator=generator)
    mean = torch.randn(width, generator=generator, dtype=torch.float64)
    rule, mean = find_edit(edit), mean if centre else 0 * mean
    return fold_of((layer, point), frame, mean, rule, strength, sd=SD[:rank], head=head)


def twin(model, change):
    """The model with the same edit made on its activations, at every position of every pass."""
    other = model.sharing()
    other.replays, other.digest = False, "1" * 64
    place = {(change.layer, change.point): change.of_activation}
    other.full_pass = lambda tokens, taps, last=1: model.full_pass(
        tokens, {**place, **taps}, last=last
    )
    return other


def answers_of(model, prompts, asked):
    return run_baseline(Session(model), prompts, asked).answers


def assert_close(ours, theirs):
    for field, values in vars(ours).items():
        torch.testing.assert_close(
            values, getattr(theirs, field), rtol=1e-4, atol=1e-4, equal_nan=True
        )


@pytest.mark.parametrize(
    ("case", "point", "edit", "strength"),
    thinned(
        [(kind, *tried) for kind in KINDS for tried in TRIED],
        [(kind, *TRIED[number % len(TRIED)]) for number, kind in enumerate(KINDS)],
    ),
    indirect=["case"],
)
def test_folded_weights_answer_as_the_edit_of_activations_does(case, point, edit, strength):
    model, prompts, asked = case
    change = change_at(model, 1, point, edit, strength)
    folded = fold(model, change)
    ours = answers_of(folded, prompts, asked)
    assert_close(ours, answers_of(twin(model, change), prompts, asked))
    clean = answers_of(model, prompts, asked)
    moved = ours.numbers - clean.numbers if model.regresses else ours.log_prob - clean.log_prob
    assert moved.abs().max() > 1e-2
    assert difference(model, folded, change, prompts) < 1e-4


@pytest.mark.parametrize(("edit", "strength"), thinned([("scale", -1.5), ("shift", 2.0)], 1))
def test_an_edit_of_one_head_is_folded_into_its_columns(case, edit, strength):
    model, prompts, asked = case
    change = change_at(model, 1, "z", edit, strength, head=1)
    folded = fold(model, change)
    old, new = (matrix(one.projection(1, "z"))[0] for one in (model, folded))
    width = change.frame.shape[1]
    same = (
        torch.equal(old[:, :width], new[:, :width]),
        torch.equal(old[:, 2 * width :], new[:, 2 * width :]),
    )
    assert same == (True, True)
    ours = answers_of(folded, prompts, asked)
    assert_close(ours, answers_of(twin(model, change), prompts, asked))
    clean = answers_of(model, prompts, asked)
    moved = ours.numbers - clean.numbers if model.regresses else ours.log_prob - clean.log_prob
    assert moved.abs().max() > 1e-3
    assert difference(model, folded, change, prompts) < 1e-4


@FEW
@pytest.mark.parametrize(("point", "edit", "strength"), thinned(TRIED, 2))
def test_folded_weights_of_rank_3_answer_as_the_edit_of_activations_does(
    case, point, edit, strength
):
    model, prompts, asked = case
    change = change_at(model, 1, point, edit, strength, rank=3)
    ours = answers_of(fold(model, change), prompts, asked)
    assert_close(ours, answers_of(twin(model, change), prompts, asked))
    assert difference(model, fold(model, change), change, prompts) < 1e-4
    one = fold(model, change_at(model, 1, point, edit, strength))
    assert one.digest != fold(model, change).digest


def test_the_model_stays_as_it_was_and_shares_all_that_is_not_changed(case):
    model, prompts, asked = case
    before = answers_of(model, prompts, asked)
    change = change_at(model, 0, "mlp_out", "shift", 2.0)
    folded = fold(model, change)
    for field, values in answers_of(model, prompts, asked).tensors().items():
        assert torch.equal(values.nan_to_num(7.0), getattr(before, field).nan_to_num(7.0))
    ours, theirs = (
        {p.data_ptr() for p in getattr(s, "network", getattr(s, "bridge", None)).parameters()}
        for s in (folded, model)
    )
    assert len(ours - theirs) <= 2  # the matrix and the bias
    assert folded.digest != model.digest
    assert fold(folded, change).digest not in (folded.digest, model.digest)


@FEW
def test_no_change_leaves_the_weights_bit_for_bit(case):
    model, *_ = case
    for edit, nothing in (("scale", 1.0), ("shift", 0.0), ("ablate", 0.0)):
        change = change_at(model, 1, "attn_out", edit, nothing)
        assert change.is_nothing
        old, new = (matrix(s.projection(1, "attn_out")) for s in (model, fold(model, change)))
        assert torch.equal(old[0], new[0])
        assert (old[1] is None) == (new[1] is None)
        assert old[1] is None or torch.equal(old[1], new[1])


def test_a_line_by_hand():
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    sd = torch.tensor([2.0], dtype=torch.float64)
    mean = torch.tensor([5.0, 0.0], dtype=torch.float64)  # coordinate 3
    scaled = fold_of((0, "mlp_out"), direction, mean, find_edit("scale"), 3.0, sd=sd)
    assert (scaled.gain, scaled.offset) == (pytest.approx(2.0), pytest.approx(-6.0))
    # Coordinate 10 is 7 from the mean: it goes to 21 from the mean, 14 further.
    activation = torch.tensor([[10.0, 5.0]], dtype=torch.float64)
    assert float(scaled.change(activation)) == pytest.approx(14.0)
    moved = scaled.of_activation(activation) - activation
    torch.testing.assert_close(moved, 14.0 * direction)
    origin = fold_of((0, "z"), direction, 0 * mean, find_edit("scale"), 3.0, sd=sd)
    assert (origin.gain, origin.offset) == (2.0, 0.0)
    shifted = fold_of((0, "z"), direction, mean, find_edit("shift"), -1.5, sd=sd)
    assert (shifted.gain, shifted.offset) == (0.0, -3.0)
    ablated = fold_of((0, "z"), direction, mean, find_edit("ablate"), 0.5, sd=sd)
    assert (ablated.gain, ablated.offset) == (-0.5, pytest.approx(1.5))


@FEW
def test_two_edits_fold_one_after_the_other(case):
    model, prompts, asked = case
    first, second = change_at(model, 0, "mlp_out"), change_at(model, 1, "attn_out", seed=1)
    both = fold(fold(model, first), second)
    assert_close(
        answers_of(both, prompts, asked),
        answers_of(twin(fold(model, first), second), prompts, asked),
    )


@pytest.mark.parametrize("edit", ["set", "interchange"])
def test_an_edit_with_a_dose_of_its_own_per_problem_is_refused(edit):
    with pytest.raises(UserError, match=f"got '{edit}', which moves each problem by a dose of its"):
        check_foldable(find_edit(edit), "mlp_out")


@dataclass(frozen=True)
class Claimed(Edit):
    """Says that it is affine, and is not."""

    rule: Callable[[Tensor, float, float], Tensor]
    unit = ""
    no_change = 0.0
    is_affine = True

    def moved(self, coordinate, strength, *, sd, wanted):
        return self.rule(coordinate, strength, sd)


CLIP = Claimed("clip", lambda c, bound, _sd: c.clamp(max=bound))


@pytest.mark.parametrize(
    ("edit", "strength", "sd"),
    [
        (CLIP, 5.0, 1.0),  # 8 becomes 5: the line through 0 and 1 would leave it at 8
        (CLIP, 5.0, 100.0),
        (CLIP, 0.5, 1.0),
        (Claimed("bend", lambda c, s, sd: c + s * (c / sd).abs()), 0.1, 0.7),
        (Claimed("square", lambda c, s, _sd: c + s * c**2), 0.01, 0.7),
    ],
)
def test_an_edit_that_is_no_line_is_refused(edit, strength, sd):
    frame, mean = torch.tensor([[1.0, 0.0]]), torch.zeros(2)
    with pytest.raises(UserError, match="expected an edit that is one line in the coordinate with"):
        fold_of(
            (0, "mlp_out"), frame, mean, edit, strength, sd=torch.tensor([sd], dtype=torch.float64)
        )
    with pytest.raises(UserError, match=f"got '{edit.name}', which moves .* by .*, where the line"):
        check_foldable(edit, "mlp_out", [strength])


@pytest.mark.parametrize("edit", ["scale", "shift", "ablate"])
@pytest.mark.parametrize("strength", [-1000.0, -1.0, 0.0, 0.3, 1.0, 1e6])
@pytest.mark.parametrize("sd", [1e-6, 0.7, 1e5])
def test_the_shipped_edits_are_lines(edit, strength, sd):
    sds = torch.tensor([sd], dtype=torch.float64)
    found = fold_of(
        (0, "z"), torch.tensor([[1.0, 0.0]]), torch.zeros(2), find_edit(edit), strength, sd=sds
    )
    moved = find_edit(edit).change(2.0 * sds, strength, sd=sds)
    assert float(found.gain * 2 * sd + found.offset) == pytest.approx(float(moved), rel=1e-6)


@pytest.mark.parametrize("point", ["resid_pre", "resid_mid", "resid_post"])
def test_the_residual_stream_is_refused(point):
    with pytest.raises(UserError, match=f"got '{point}': the residual stream is a sum"):
        check_foldable(find_edit("scale"), point)


def test_what_else_cannot_be_folded_is_said(tmp_path):
    prompts = tiny_decoder().encode(ARITHMETIC)
    check_single(["last", "3"], prompts)
    with pytest.raises(UserError, match=r"single position .* got 'all' of \d+ positions: weights"):
        check_single(["all"], prompts)
    with pytest.raises(UserError, match=r"matrices to edit, got planted; choose intervention\.via"):
        check_editable(PlantedModel())
    normed = model_in(tiny_lm("gemma2", tmp_path / "gemma2"))
    for point in ("attn_out", "mlp_out"):
        with pytest.raises(UserError, match=f"writes {point} of hf_dir, but a norm stands between"):
            fold(normed, change_at(normed, 0, point))
    experts = model_in(tiny_lm("mixtral", tmp_path / "mixtral"))
    with pytest.raises(UserError, match="mlp_out of hf_dir, but several experts write it"):
        fold(experts, change_at(experts, 0, "mlp_out"))


def test_behind_a_norm_the_heads_outputs_fold_all_the_same(tmp_path):
    model = model_in(tiny_lm("gemma2", tmp_path))
    change = change_at(model, 1, "z", "shift", 2.0)
    prompts = model.encode(PROBLEMS)
    assert_close(
        answers_of(fold(model, change), prompts, ASKED),
        answers_of(twin(model, change), prompts, ASKED),
    )


@FEW
def test_weights_that_do_something_else_are_not_believed(case):
    model, prompts, _ = case
    change = change_at(model, 1, "mlp_out", "shift", 2.0)
    less = replace(change, offset=0.9 * change.offset)
    with pytest.raises(
        UserError, match=r"weights of .* that do what the edit of mlp_out at layer 1"
    ):
        difference(model, fold(model, less), change, prompts)
