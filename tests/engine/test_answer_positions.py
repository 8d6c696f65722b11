"""Edits and tracing where the answer is written, against whole hooked passes and by hand."""

from dataclasses import replace

import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.edits import SiteEdits, SiteGrid, SiteVectors
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.passes import Change, Resumed
from mech_arith.engine.rules import Rule
from mech_arith.engine.run import ReferenceAnswers, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.attention import KeysValues
from mech_arith.models.base import POINTS
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.thinned import thinned
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
    return SiteEdits(site, plain.frames, plain.changes, slopes)


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


@pytest.mark.parametrize("position", thinned(POSITIONS, ["answer.3", "all+answer"]))
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


def test_the_shipped_decoder_writes_as_by_full_passes():
    model = load_arithmetic("arith_decoder")
    prompts = encode_for(model, PROBLEMS, ["answer"])
    baseline = run_baseline(Session(model), prompts, ASKED)
    for layer, point, position in ((0, "attn_out", "answer.2"), (2, "resid_post", "all+answer")):
        asked = random_edits(
            model, prompts, Site(layer, point, position), size=200.0, n_edits=2, seed=1
        )
        asked = replace(asked, slopes=torch.tensor([0.0, 0.5], dtype=torch.float64))
        ours = edited_answers(Session(model, Batching(9)), baseline, asked)
        assert_same(ours, by_full_passes(model, baseline, asked))
        assert (ours.tokens != baseline.written[:, :5]).any(-1).double().mean() > 0.1


def by_hand(model, layout, row, site, edit):
    """Greedy writing by whole passes, in which a hook makes the edit as the documentation says.

    `edit(activation, right, column)` is the new activation at one of the site's positions.
    """
    indices = layout.positions(site.position)
    prompt, answer = layout.tokens[row], layout.answer[row]
    right = []
    model.full_pass(
        torch.cat([prompt, answer])[None],
        {(site.layer, site.point): lambda found: right.append(found[0]) or found},
    )

    def tap(found):
        edited = found.clone()
        for column, index in enumerate(indices):
            if index < found.shape[1]:
                edited[0, index] = edit(found[0, index], right[0][index], column)
        return edited

    written = prompt[None]
    for _ in range(model.reader.length):
        read = model.full_pass(written, {(site.layer, site.point): tap})
        written = torch.cat([written, read[:, -1].argmax(-1)[:, None]], dim=1)
    return written[0, len(prompt) :]


@pytest.mark.parametrize("slope", thinned([0.0, 0.25, 1.0, -0.5], [0.0, 0.25]))
@pytest.mark.parametrize(
    ("position", "point"), [("answer.2", "mlp_out"), ("answer", "resid_post"), ("all+answer", "z")]
)
def test_the_rule_holds_for_the_activation_at_hand(slope, position, point):
    """New coordinate = p c + q, with c what the row's own tokens make of it."""
    baseline = baseline_of(DECODER)
    site = Site(1, point, position)
    asked = ruled(site, slope=slope, n_edits=2)
    ours = edited_answers(Session(DECODER), baseline, asked)
    (layout,) = PROMPTS.layouts
    n_positions = len(layout.positions(position))
    for edit in range(2):
        direction = asked.frames[edit, 0].float().view(n_positions, -1)
        for row in range(4):
            far = float(asked.changes[edit, row, 0])

            def rule(found, right, column, direction=direction, far=far):
                part = direction[column]
                other = ((found - right) @ part) / part.square().sum()
                return found + far * part - (1 - slope) * other * part

            expected = by_hand(DECODER, layout, row, site, rule)
            assert torch.equal(ours.tokens[edit, row], expected)
    right = layout.answer[:4]
    assert (ours.tokens[:, :4] != right).any(-1).any(), "expected rows that write other tokens"


def test_rules_matter_where_other_tokens_are_written():
    """Else the tests above would pass without them."""
    baseline = baseline_of(DECODER)
    site = Site(1, "resid_post", "answer")
    kept, taken = (
        edited_answers(Session(DECODER), baseline, ruled(site, slope=slope, n_edits=9))
        for slope in (1.0, 0.0)
    )
    assert (kept.tokens[..., 0] == taken.tokens[..., 0]).all()  # nothing is written before it
    assert (kept.tokens != taken.tokens).any()


def test_directions_taken_together_take_back_what_lies_in_their_span():
    """Two directions that are no orthonormal pair at one position."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(3, 2, 4, 8, generator=generator)
    frames[2, 1, 1] = 2 * frames[2, 0, 1]  # one direction, twice
    frames[1, :, 3] = 0  # none
    share = torch.tensor([1.0, 0.5, 1.0, 0.0])
    rule = Rule(share, frames, torch.tensor([0, 1, 2, 2]))
    other = torch.randn(4, 8, generator=generator)
    for column in range(4):
        found = rule.taken_back(other, column)
        for row, frame in enumerate((0, 1, 2, 2)):
            span = torch.linalg.svd(frames[frame, :, column], full_matrices=False)
            basis = span.Vh[span.S > 1e-5]
            expected = share[row] * (other[row] @ basis.mT @ basis)
            torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
    whole = Rule(share, None, torch.tensor([0, 1, 2, 2])).taken_back(other, 2)
    torch.testing.assert_close(whole, share[:, None] * other)


def test_the_whole_activation_is_replaced_whatever_was_written():
    baseline = baseline_of(DECODER)
    site = Site(1, "resid_post", "answer")
    (layout,) = PROMPTS.layouts
    ((_, found),) = capture(Session(DECODER), PROMPTS, [site])
    theirs = found[site].roll(1, 0)
    whole = SiteVectors(site, (theirs - found[site])[None])
    ours = edited_answers(Session(DECODER), baseline, whole)
    assert_same(ours, by_full_passes(DECODER, baseline, whole))
    for row in range(4):

        def replaced(_, __, column, row=row):
            return theirs[row].view(5, -1)[column]

        expected = by_hand(DECODER, layout, row, site, replaced)
        assert torch.equal(ours.tokens[0, row], expected)


def test_with_the_last_layers_activations_a_problem_is_answered_as_its_source():
    """Whatever the model's own answer to it is: all that is read is the source's."""
    model = load_arithmetic("arith_decoder")
    prompts = encode_for(model, PROBLEMS, ["answer"])
    baseline = run_baseline(Session(model), prompts, ASKED)
    site = Site(model.n_layers - 1, "resid_post", "answer")
    ((_, found),) = capture(Session(model), prompts, [site])
    whole = SiteVectors(site, (found[site].roll(1, 0) - found[site])[None])
    edited = edited_answers(Session(model), baseline, whole).numbers[0]
    assert torch.equal(edited, baseline.answers.numbers.roll(1))
    assert torch.equal(edited, ASKED.right.roll(1))
    assert (edited.sign() != ASKED.right.sign()).any(), "expected other signs: the first tokens"


@pytest.mark.parametrize("point", POINTS)
def test_activations_of_the_answer_are_those_behind_the_right_one(point):
    sites = [Site(1, point, name) for name in ("answer.0", "answer.2", "answer.4", "3")]
    found = {site: [] for site in sites}
    for _, captured in capture(Session(DECODER, Batching(5)), PROMPTS, sites):
        for site in sites:
            found[site].append(captured[site])
    (layout,) = PROMPTS.layouts
    seen = []
    DECODER.full_pass(
        torch.cat([layout.tokens, layout.answer], dim=1),
        {(1, point): lambda activation: seen.append(activation) or activation},
    )
    n_prompt = layout.tokens.shape[1]
    for site, index in zip(sites, (n_prompt - 1, n_prompt + 1, n_prompt + 3, 3), strict=True):
        torch.testing.assert_close(torch.cat(found[site]), seen[0][:, index], atol=1e-5, rtol=1e-5)


def test_the_first_position_of_the_answer_is_the_last_one_of_the_prompt():
    baseline = baseline_of(DECODER)
    asked = ruled(Site(1, "resid_post", "answer.0"), slope=0.0)
    last = SiteEdits(Site(1, "resid_post", "last"), asked.frames, asked.changes)
    ours, theirs = (edited_answers(Session(DECODER), baseline, e) for e in (asked, last))
    for field in FIELDS:
        assert torch.equal(
            getattr(ours, field).nan_to_num(-1.0), getattr(theirs, field).nan_to_num(-1.0)
        )


def test_no_change_leaves_answers_bit_for_bit():
    baseline = baseline_of(DECODER)
    nothing = ruled(Site(0, "resid_post", "answer"), slope=0.0, size=0.0)
    ours = edited_answers(Session(DECODER), baseline, nothing)
    for field in FIELDS[:3]:
        same = getattr(baseline.answers, field).expand(3, -1)
        assert torch.equal(getattr(ours, field).nan_to_num(-1), same.nan_to_num(-1))
    assert torch.equal(ours.tokens, baseline.written[:, :5].expand(3, -1, -1))


@pytest.mark.parametrize("rows", thinned([1, 7, 100], [7]))
def test_batching_does_not_matter(rows):
    baseline = baseline_of(DECODER)
    site = Site(1, "attn_out", "answer")
    edits = ruled(site, slope=0.5)
    grid = SiteGrid(site, edits.frames, edits.changes[:2], edits.slopes[:2])
    whole, parted = (
        edited_answers(Session(DECODER, Batching(n)), baseline, grid) for n in (1000, rows)
    )
    assert_same(whole, parted)
    for direction in range(3):
        alone = SiteEdits(site, grid.frames[[direction] * 2], grid.changes, grid.slopes)
        found = edited_answers(Session(DECODER), baseline, alone)
        assert torch.equal(found.tokens, whole.tokens[2 * direction : 2 * direction + 2])


def test_numbers_are_read_from_the_tokens_that_are_kept():
    baseline = baseline_of(DECODER)
    ours = edited_answers(Session(DECODER), baseline, ruled(Site(0, "z", "answer.1"), slope=0.0))
    for tokens, number in zip(ours.tokens.flatten(0, 1), ours.numbers.flatten(), strict=True):
        read, ended = DECODER.reader.read(tokens.tolist())
        assert ended
        assert (read is None and number.isnan()) or read == number


def test_positions_before_the_edit_are_run_and_read_once(monkeypatch):
    """At answer.3: two positions of each row; the first three read-outs are one clean pass's."""
    model = tiny_decoder(seed=3)
    baseline = baseline_of(model)
    asked = ruled(Site(1, "resid_post", "answer.3"), slope=0.0, n_edits=6)
    blocks, reads = [], []
    run_block, read_out = model.run_block, model.read_out

    def counted(layer, resid, **options):
        blocks.append((layer, *resid.shape[:2]))
        return run_block(layer, resid, **options)

    monkeypatch.setattr(model, "run_block", counted)
    monkeypatch.setattr(model, "read_out", lambda r: reads.append(r.shape[:2]) or read_out(r))
    edited_answers(Session(model, Batching(36)), baseline, asked)
    # Six edits of twelve problems, three edits at a time: two positions, in the layer above alone.
    assert [rest for layer, *rest in blocks if layer == 2 and rest[1] > 1] == [
        [12, 18],
        [36, 2],
        [36, 2],
    ]
    assert [tuple(shape) for shape in reads if shape[1] > 1] == [(36, 2), (12, 5), (36, 2)]


@pytest.mark.parametrize("what", ["edit", "rule", "column", "keys"])
def test_the_check_of_the_fast_path_sees(monkeypatch, what):
    model = tiny_decoder(seed=3)
    sites = [Site(1, "resid_post", "answer.2"), Site(1, "mlp_out", "answer")]
    assert check_fast_path(model, PROMPTS, sites) < 1e-4
    follow, tails = Change.follow, Resumed.tails

    def only_fast(broken, whole):
        """The hooked passes, which begin before the first position, stay as they are."""
        return lambda self, activation, right, *, first: (broken if first > 0 else whole)(
            self, activation, right, first=first
        )

    if what == "edit":
        nothing = only_fast(lambda self, activation, right, *, first: activation, follow)
        monkeypatch.setattr(Change, "follow", nothing)
    if what == "rule":
        plain = only_fast(
            lambda self, activation, right, *, first: follow(self, activation, None, first=first),
            follow,
        )
        monkeypatch.setattr(Change, "follow", plain)
    if what == "column":
        shifted = only_fast(
            lambda self, activation, right, *, first: follow(
                self, activation, right.roll(1, 1) + 1, first=first
            ),
            follow,
        )
        monkeypatch.setattr(Change, "follow", shifted)
    if what == "keys":

        def without(self, rows):
            found = tails(self, rows)
            own = [KeysValues(0 * seen.keys, seen.values) for seen in found.own]
            return replace(found, own=own)

        monkeypatch.setattr(Resumed, "tails", without)
    with pytest.raises(UserError, match=r"relative difference of .* behind an edit at layer 1"):
        check_fast_path(model, PROMPTS, sites)
