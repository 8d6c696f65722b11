"""Language models in the engine: every architecture against whole passes, and SmolLM2 itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import MambaConfig, MambaForCausalLM

from mech_arith.common.errors import UserError
from mech_arith.engine import guard, reading
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import Batching
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.passes import Change, Resumed, run_clean
from mech_arith.engine.run import ReferenceAnswers, SiteEdits, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.base import POINTS, read_prefix
from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.hook_points import find_hook_points
from mech_arith.models.language.loading import load_pretrained
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import ARCHITECTURES, TOKENIZERS, tiny_lm
from tests.tiny import random_edits

FIELDS = ("numbers", "log_prob", "logit_difference")


def drawn(expression="a-b", low=1, high=99, n=10, n_shots=3):
    template = build_template("t", expression)
    ranges = dict.fromkeys(template.expression.operands, (low, high))
    return draw_with_shots(template, n=n, n_shots=n_shots, ranges=ranges, seed=0)


PROBLEMS, SHOTS = drawn()
ASKED = ReferenceAnswers.of_problems(PROBLEMS)


def model_in(directory, style="comma", shots=SHOTS, name="hf_dir", dtype="float32"):
    loaded = load_pretrained(
        name, path=directory, hub=None, revision=None, dtype=dtype, device="cpu", device_map=None
    )
    return PretrainedModel(loaded, Prompting(style, shots, None))


COMMON = ("llama", "gpt2", "gpt_neox")
"""Rotary and learned positions, grouped heads, attention beside the MLP; the others are slow."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in COMMON else pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def tiny(request, tmp_path_factory):
    """A tiny model of each architecture, and its directory."""
    directory = tiny_lm(request.param, tmp_path_factory.mktemp(request.param))
    return model_in(directory), directory


def baseline_of(model, rows=None):
    return run_baseline(Session(model, Batching(rows)), model.encode(PROBLEMS), ASKED)


def edits(model, site, *, size=3.0, n_edits=3):
    return random_edits(model, model.encode(PROBLEMS), site, size=size, n_edits=n_edits, seed=1)


def assert_same(ours: Answers, theirs: Answers, *, atol=1e-3):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(ours, field), getattr(theirs, field), atol=atol, rtol=1e-3, equal_nan=True
        )


def test_the_fast_path_is_the_full_pass_at_every_point_of_every_layer(tiny, monkeypatch):
    model, _ = tiny
    points = [point for point in POINTS if point in model.points]
    assert len(points) >= 5
    positions = ("last", "b.last", "first")  # each point's, one in each of three layers
    sites = [
        Site(layer, point, positions[(layer + number) % 3])
        for layer in range(model.n_layers)
        for number, point in enumerate(points)
    ]
    monkeypatch.setattr(guard, "SITES", len(sites))
    prompts = model.encode(PROBLEMS)
    assert len(prompts.layouts) > 1
    assert len(prompts.prefix) > 10
    assert check_fast_path(model, prompts, sites) < 1e-4
    assert model.replays


def test_answers_under_edits_are_those_of_full_passes(tiny, monkeypatch):
    monkeypatch.setattr(reading, "APART", 1)
    model, _ = tiny
    baseline = baseline_of(model)
    assert baseline.answers.log_prob.isfinite().all()
    for site in (Site(0, "resid_post", "last"), Site(1, "attn_out", "a.last")):
        asked = edits(model, site, size=30.0)
        ours = edited_answers(Session(model, Batching(7)), baseline, asked)
        assert (ours.log_prob - baseline.answers.log_prob).abs().max() > 1e-2
        model.replays = False
        try:
            assert_same(ours, edited_answers(Session(model), baseline, asked))
            assert_same(baseline_of(model).answers, baseline.answers)
        finally:
            model.replays = True


def two_tokens(n=10):
    """Problems with answers of two tokens each: 20 to 98."""
    template = build_template("t", "a-b")
    ranges = {"a": (60, 99), "b": (1, 40)}
    return draw_with_shots(template, n=n, n_shots=3, ranges=ranges, seed=0)[0]


def test_the_answer_is_edited_while_it_is_written_as_full_passes_do(tiny, monkeypatch):
    """Random weights part from the right answers at once, and write on for many tokens."""
    model, _ = tiny
    problems = two_tokens()
    asked = ReferenceAnswers.of_problems(problems)
    prompts = encode_for(model, problems, ["answer"])
    points = [point for point in POINTS if point in model.points]
    sites = [Site(1, point, name) for point in points for name in ("answer.1", "answer")]
    monkeypatch.setattr(guard, "SITES", len(sites))
    assert check_fast_path(model, prompts, sites) < 1e-4
    assert model.replays
    baseline = run_baseline(Session(model), prompts, asked)
    site = Site(0, "resid_post", "answer")
    plain = random_edits(model, prompts, site, size=30.0, n_edits=3, seed=1)
    slopes = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    ruled = SiteEdits(site, plain.frames, plain.changes, slopes)
    ours = edited_answers(Session(model, Batching(7)), baseline, ruled)
    assert (ours.tokens != baseline.written[:, :2].expand(3, -1, -1)).any()
    model.replays = False
    try:
        theirs = edited_answers(Session(model), baseline, ruled)
    finally:
        model.replays = True
    assert_same(ours, theirs)
    assert torch.equal(ours.tokens, theirs.tokens)


def test_answers_of_one_and_of_two_tokens_share_their_first_position(tmp_path):
    model = model_in(tiny_lm("llama", tmp_path))
    prompts = encode_for(model, PROBLEMS, ["answer"])
    lengths = {len(model.reader.tokens(answer)) for answer in PROBLEMS.answers.tolist()}
    assert lengths == {1, 2, 3}  # 7, 12, -12
    assert check_fast_path(model, prompts, [Site(1, "z", "answer.0")]) < 1e-4
    with pytest.raises(UserError, match=r"of 1 to 3 tokens, got 'answer.1'; choose answer\.0"):
        prompts.positions("answer.1")


def test_short_answers_are_not_run_on_beside_long_ones(tmp_path, monkeypatch):
    """What is read beside the right answer's tokens: one position more than each answer has."""
    model = model_in(tiny_lm("llama", tmp_path))
    problems, _ = drawn(low=1, high=120, n=40)
    asked, prompts = ReferenceAnswers.of_problems(problems), model.encode(problems)
    lengths = torch.tensor(
        [len(model.reader.tokens(answer)) for answer in problems.answers.tolist()]
    )
    assert len(lengths.unique()) > 2
    monkeypatch.setattr(reading, "APART", 1)
    baseline = run_baseline(Session(model), prompts, asked)
    moved = random_edits(model, prompts, Site(1, "resid_post", "last"), size=1.0, n_edits=3, seed=1)
    read, read_out = [], model.read_out

    def counted(resid):
        read.append(resid.shape[:2])
        return read_out(resid)

    monkeypatch.setattr(model, "read_out", counted)
    edited_answers(Session(model), baseline, moved)
    # Rows that write on are read at one position; no answer has no tokens. Behind the answer the
    # examples' own next token is fed too, which ends it.
    behind = len(model.reader.behind)
    assert behind == 1
    assert sum(rows * positions for rows, positions in read if positions > 1) == 3 * int(
        (lengths + behind + 1).sum()
    )


def test_problems_are_parted_by_the_length_of_their_answers(tmp_path, monkeypatch):
    model = model_in(tiny_lm("llama", tmp_path))
    problems, _ = drawn(low=1, high=120, n=60)
    asked, prompts = ReferenceAnswers.of_problems(problems), model.encode(problems)
    lengths = (reading.force(model, asked).right != reading.NO_TOKEN).sum(1)
    for least in (1, 8, 1000):
        monkeypatch.setattr(reading, "APART", least)
        parted = reading.of_one_length(model, prompts, asked)
        rows = torch.cat([layout.rows for layout in parted.layouts])
        assert torch.equal(rows.sort().values, torch.arange(60))
        for layout in parted.layouts:
            whole = next(known for known in prompts.layouts if known.is_like(layout))
            kept = [int((whole.rows == row).nonzero()) for row in layout.rows]
            assert torch.equal(whole.tokens[kept], layout.tokens)
            if least == 1:
                assert len(lengths[layout.rows].unique()) == 1
    assert len(parted.layouts) == len(prompts.layouts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "replays", "has_middle"),
    [
        ("mixtral", True, True),
        ("olmo2", True, True),
        ("granite", True, False),
        ("gpt_neo", False, True),
        ("gpt_oss", False, True),
        ("phi3", False, True),
    ],
)
def test_odd_architectures_are_replayed_or_fall_back(
    tmp_path, caplog, monkeypatch, architecture, replays, has_middle
):
    model = model_in(tiny_lm(architecture, tmp_path))
    assert ("resid_mid" in model.points) == has_middle
    prompts = model.encode(PROBLEMS)
    sites = [Site(layer, point, "last") for layer in range(2) for point in model.points]
    monkeypatch.setattr(guard, "SITES", len(sites))
    difference = check_fast_path(model, prompts, sites)
    assert model.replays == replays
    assert difference < 1e-4 if replays else difference is None
    assert ("is a full, far slower one" in caplog.text) != replays
    baseline = baseline_of(model)
    one = edited_answers(
        Session(model, Batching(1)), baseline, edits(model, Site(1, "resid_post", "last"))
    )
    assert (one.log_prob - baseline.answers.log_prob).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (42, None),  # the prefix is longer: all factors are the long ones
        (43, "change beyond 43 tokens, and its passes read 43 to 57"),
        (56, "change beyond 56 tokens, and its passes read 43 to 57"),
        (57, None),
    ],
)
def test_rotary_factors_that_change_between_prefix_and_answer(tmp_path, limit, said):
    model = model_in(tiny_lm("phi3", tmp_path))
    model.network.config.rope_parameters["original_max_position_embeddings"] = limit
    prompts = model.encode(PROBLEMS)
    assert len(prompts.prefix) == 43
    assert max(layout.tokens.shape[1] for layout in prompts.layouts) == 10
    reason = model.why_not_replayed(prompts, longest=4)
    assert (reason is None) == (said is None)
    assert said is None or said in str(reason)


def test_probability_of_the_right_answer_by_hand(tiny):
    """All tokens of the answer, and then no digit."""
    model, _ = tiny
    baseline, prompts = baseline_of(model), model.encode(PROBLEMS)
    digits = [token for text, token in model.tokenizer.get_vocab().items() if text[0].isdecimal()]
    for layout in prompts.layouts[:2]:
        row = int(layout.rows[0])
        right = model.reader.tokens(int(PROBLEMS.answers[row]))
        tokens = torch.cat([prompts.prefix, layout.tokens[0], torch.tensor(right)])[None]
        with torch.inference_mode():
            logits = model.network(tokens).logits[0, -1 - len(right) :].double()
        log_probs = logits.log_softmax(-1)
        expected = sum(float(log_probs[i, token]) for i, token in enumerate(right))
        expected += np.log1p(-float(log_probs[-1, digits].exp().sum()))
        assert float(baseline.answers.log_prob[row]) == pytest.approx(expected, abs=1e-3)


class FourTokens:
    """Reads whatever four tokens are written as a number, so that rows write on behind each."""

    def tokens(self, number):
        return tuple(5 + (int(number) * factor) % 7 for factor in (1, 2, 3, 5))

    behind = ()

    def read(self, tokens):
        whole = len(tokens) == 4
        return int("1" + "".join(f"{token:03d}" for token in tokens)) if whole else None, whole

    def is_cut(self, tokens):
        return False

    def text(self, tokens):
        return " ".join(map(str, tokens))

    def longest(self, bound):
        return 4

    @property
    def longer(self):
        return None


@pytest.mark.slow
def test_what_rows_write_of_their_own_is_what_full_passes_write(tiny, monkeypatch):
    """With a shared prefix, clean positions before the edit, and tokens behind it."""
    model, _ = tiny
    monkeypatch.setattr(model, "reader", FourTokens())
    baseline, changed = baseline_of(model, rows=4), []
    for site in (Site(0, "resid_post", "last"), Site(2, "resid_pre", "b.last")):
        asked = edits(model, site, size=30.0)
        ours = edited_answers(Session(model, Batching(8)), baseline, asked)
        changed += (ours.numbers != baseline.answers.numbers).flatten().tolist()
        with monkeypatch.context() as patch:
            patch.setattr(model, "replays", False)
            theirs = edited_answers(Session(model), baseline_of(model), asked)
        assert_same(ours, theirs)
    assert any(changed)


def test_one_at_a_time_or_all_at_once_is_the_same(tiny):
    model, _ = tiny
    assert_same(baseline_of(model, rows=1).answers, baseline_of(model, rows=100).answers)
    asked = edits(model, Site(1, "resid_post", "last"))
    one, many = (
        edited_answers(Session(model, Batching(rows)), baseline_of(model), asked)
        for rows in (1, 100)
    )
    assert_same(one, many)


def test_edits_are_those_of_the_bridges_hooks(tiny):
    model, directory = tiny
    with quiet():
        bridge = TransformerBridge.boot_transformers(
            str(directory), tokenizer=model.tokenizer, dtype=torch.float32
        )
    prompts = model.encode(PROBLEMS)
    layout = prompts.layouts[0]
    tokens = torch.cat([prompts.prefix.expand(len(layout), -1), layout.tokens], dim=1)
    nothing = torch.empty(len(layout), 0, dtype=torch.int64)
    clean = run_clean(model, prompts, read_prefix(model, prompts.prefix), layout, nothing)
    for layer in range(model.n_layers):
        generator = torch.Generator().manual_seed(layer)
        vectors = torch.randn(len(layout), 1, model.d_model, generator=generator)
        at = layout.tokens.shape[1] - 2
        change = Change(Site(layer, "resid_post", str(at)), (at,), vectors)
        ((_, ours),) = Resumed(clean, change).read_outs()

        def add(resid, hook, vectors=vectors):
            resid = resid.clone()
            resid[:, -2:-1] += vectors
            return resid

        with torch.inference_mode():
            theirs = bridge.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_out", add)])
        assert (ours[:, -1] - theirs[:, -1]).abs().max() <= 1e-3


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_way_to_cut_numbers_into_tokens(tmp_path, kind):
    directory = tiny_lm("llama", tmp_path, tokenizer=kind)
    model = model_in(directory, style="chat" if kind == "chat" else "comma")
    baseline = baseline_of(model)
    model.replays = False
    assert_same(baseline_of(model).answers, baseline.answers)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_agrees_within_what_it_can(tmp_path, dtype, bound):
    model = model_in(tiny_lm("llama", tmp_path), dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    sites = [Site(layer, "resid_post", "last") for layer in range(3)]
    assert check_fast_path(model, model.encode(PROBLEMS), sites) < bound
    whole = model_in(tiny_lm("llama", tmp_path / "whole"))
    gap = baseline_of(model).answers.log_prob - baseline_of(whole).answers.log_prob
    assert gap.abs().max() < 1


def test_a_point_that_an_architecture_has_not_is_refused(tmp_path):
    model = model_in(tiny_lm("phi", tmp_path))
    assert "resid_mid" not in model.points
    with pytest.raises(UserError, match=r"point of hf_dir 'resid_mid'; expected one of: resid_pre"):
        check_fast_path(model, model.encode(PROBLEMS), [Site(0, "resid_mid", "last")])


def test_blocks_without_attention_are_refused():
    config = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=20, state_size=4)
    with pytest.raises(UserError, match="blocks of attention and an MLP, got MambaForCausalLM"):
        find_hook_points(MambaForCausalLM(config))


def test_the_model_is_left_as_it_was(tiny):
    model, _ = tiny
    implementation = model.network.config._attn_implementation
    baseline_of(model)
    with pytest.raises(RuntimeError):
        model.run_block(0, torch.zeros(1, 1, model.d_model + 1))
    assert model.network.config._attn_implementation == implementation
    for block in model.network.get_submodule(_blocks_of(model)):
        assert "forward" not in vars(block)
        assert not block._forward_hooks
        assert not block._forward_pre_hooks


def _blocks_of(model):
    names = {id(module): name for name, module in model.network.named_modules()}
    return names[id(model._blocks[0].module)].rsplit(".", 1)[0]


def test_what_the_check_depends_on_is_how_passes_are_run_and_not_what_is_read(tmp_path):
    """A prefix may be a token longer; where a window ends, passes are other ones."""
    model = model_in(tiny_lm("llama", tmp_path))
    prompts, sites = model.encode(PROBLEMS), [Site(1, "resid_post", "last")]
    n = len(prompts.prefix)
    assert 1 < n < 2 ** n.bit_length() - 1

    def key(n_prefix, **changed):
        other = replace(prompts, prefix=prompts.prefix[:1].expand(n_prefix), **changed)
        return guard.compared(model, other, sites, bound=9)

    assert key(n) == key(n + 1)
    assert key(n) != key(2 ** n.bit_length())
    assert key(n) != key(n, layouts=prompts.layouts[:1])
    model.turns = (n,)
    assert key(n) != key(n + 1)
