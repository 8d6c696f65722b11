"""Language models in the engine: every architecture against whole passes, and SmolLM2 itself."""

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
from mech_arith.engine.run import Asked, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import POINTS, read_prefix
from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.hook_points import find_places
from mech_arith.models.language.loading import load_model
from mech_arith.models.language.pretrained import PretrainedSolver
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
ASKED = Asked.of_problems(PROBLEMS)


def solver_in(directory, style="comma", shots=SHOTS, name="hf_dir", dtype="float32"):
    loaded = load_model(
        name, path=directory, hub=None, revision=None, dtype=dtype, device="cpu", device_map=None
    )
    return PretrainedSolver(loaded, Prompting(style, shots, None))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(request, tmp_path_factory):
    """A tiny model of each architecture, and its directory."""
    directory = tiny_lm(request.param, tmp_path_factory.mktemp(request.param))
    return solver_in(directory), directory


def baseline_of(solver, rows=None):
    return run_baseline(Session(solver, Batching(rows)), solver.encode(PROBLEMS), ASKED)


def edits(solver, site, *, size=3.0, n_edits=3):
    return random_edits(solver, solver.encode(PROBLEMS), site, size=size, n_edits=n_edits, seed=1)


def assert_same(ours: Answers, theirs: Answers, *, atol=1e-3):
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(ours, field), getattr(theirs, field), atol=atol, rtol=1e-3, equal_nan=True
        )


def test_the_fast_path_is_the_full_pass_at_every_point_of_every_layer(tiny, monkeypatch):
    solver, _ = tiny
    points = [point for point in POINTS if point in solver.points]
    assert len(points) >= 5
    sites = [
        Site(layer, point, position)
        for layer in range(solver.n_layers)
        for point in points
        for position in ("last", "b.last", "first")
    ]
    monkeypatch.setattr(guard, "SITES", len(sites))
    prompts = solver.encode(PROBLEMS)
    assert len(prompts.layouts) > 1
    assert len(prompts.prefix) > 10
    assert check_fast_path(solver, prompts, sites) < 1e-4
    assert solver.replays


def test_answers_under_edits_are_those_of_full_passes(tiny, monkeypatch):
    monkeypatch.setattr(reading, "APART", 1)
    solver, _ = tiny
    baseline = baseline_of(solver)
    assert baseline.answers.log_prob.isfinite().all()
    for site in (Site(0, "resid_post", "last"), Site(1, "attn_out", "a.last")):
        asked = edits(solver, site, size=30.0)
        ours = edited_answers(Session(solver, Batching(7)), baseline, asked)
        assert (ours.log_prob - baseline.answers.log_prob).abs().max() > 1e-2
        solver.replays = False
        try:
            assert_same(ours, edited_answers(Session(solver), baseline, asked))
            assert_same(baseline_of(solver).answers, baseline.answers)
        finally:
            solver.replays = True


def test_short_answers_are_not_run_on_beside_long_ones(tmp_path, monkeypatch):
    """What is read beside the right answer's tokens: one position more than each answer has."""
    solver = solver_in(tiny_lm("llama", tmp_path))
    problems, _ = drawn(low=1, high=120, n=40)
    asked, prompts = Asked.of_problems(problems), solver.encode(problems)
    lengths = torch.tensor(
        [len(solver.reader.tokens(answer)) for answer in problems.answers.tolist()]
    )
    assert len(lengths.unique()) > 2
    monkeypatch.setattr(reading, "APART", 1)
    baseline = run_baseline(Session(solver), prompts, asked)
    moved = random_edits(
        solver, prompts, Site(1, "resid_post", "last"), size=1.0, n_edits=3, seed=1
    )
    read, read_out = [], solver.read_out

    def counted(resid):
        read.append(resid.shape[:2])
        return read_out(resid)

    monkeypatch.setattr(solver, "read_out", counted)
    edited_answers(Session(solver), baseline, moved)
    # Rows that write on are read at one position; no answer has no tokens. Behind the answer the
    # examples' own next token is fed too, which ends it.
    behind = len(solver.reader.behind)
    assert behind == 1
    assert sum(rows * positions for rows, positions in read if positions > 1) == 3 * int(
        (lengths + behind + 1).sum()
    )


def test_problems_are_parted_by_the_length_of_their_answers(tmp_path, monkeypatch):
    solver = solver_in(tiny_lm("llama", tmp_path))
    problems, _ = drawn(low=1, high=120, n=60)
    asked, prompts = Asked.of_problems(problems), solver.encode(problems)
    lengths = (reading.force(solver, asked).right != reading.NO_TOKEN).sum(1)
    for least in (1, 8, 1000):
        monkeypatch.setattr(reading, "APART", least)
        parted = reading.of_one_length(solver, prompts, asked)
        rows = torch.cat([layout.rows for layout in parted.layouts])
        assert torch.equal(rows.sort().values, torch.arange(60))
        for layout in parted.layouts:
            whole = next(known for known in prompts.layouts if known.is_like(layout))
            kept = [int((whole.rows == row).nonzero()) for row in layout.rows]
            assert torch.equal(whole.tokens[kept], layout.tokens)
            if least == 1:
                assert len(lengths[layout.rows].unique()) == 1
    assert len(parted.layouts) == len(prompts.layouts)


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
    solver = solver_in(tiny_lm(architecture, tmp_path))
    assert ("resid_mid" in solver.points) == has_middle
    prompts = solver.encode(PROBLEMS)
    sites = [Site(layer, point, "last") for layer in range(2) for point in solver.points]
    monkeypatch.setattr(guard, "SITES", len(sites))
    difference = check_fast_path(solver, prompts, sites)
    assert solver.replays == replays
    assert difference < 1e-4 if replays else difference is None
    assert ("is a full, far slower one" in caplog.text) != replays
    baseline = baseline_of(solver)
    one = edited_answers(
        Session(solver, Batching(1)), baseline, edits(solver, Site(1, "resid_post", "last"))
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
    solver = solver_in(tiny_lm("phi3", tmp_path))
    solver.model.config.rope_parameters["original_max_position_embeddings"] = limit
    prompts = solver.encode(PROBLEMS)
    assert len(prompts.prefix) == 43
    assert max(layout.tokens.shape[1] for layout in prompts.layouts) == 10
    reason = solver.why_not_replayed(prompts, longest=4)
    assert (reason is None) == (said is None)
    assert said is None or said in str(reason)


def test_probability_of_the_right_answer_by_hand(tiny):
    """All tokens of the answer, and then no digit."""
    solver, _ = tiny
    baseline, prompts = baseline_of(solver), solver.encode(PROBLEMS)
    digits = [token for text, token in solver.tokenizer.get_vocab().items() if text[0].isdecimal()]
    for layout in prompts.layouts[:2]:
        row = int(layout.rows[0])
        right = solver.reader.tokens(int(PROBLEMS.answers[row]))
        tokens = torch.cat([prompts.prefix, layout.tokens[0], torch.tensor(right)])[None]
        with torch.inference_mode():
            logits = solver.model(tokens).logits[0, -1 - len(right) :].double()
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


def test_what_rows_write_of_their_own_is_what_full_passes_write(tiny, monkeypatch):
    """With a shared prefix, clean positions before the edit, and tokens behind it."""
    solver, _ = tiny
    monkeypatch.setattr(solver, "reader", FourTokens())
    baseline, changed = baseline_of(solver, rows=4), []
    for site in (Site(0, "resid_post", "last"), Site(2, "resid_pre", "b.last")):
        asked = edits(solver, site, size=30.0)
        ours = edited_answers(Session(solver, Batching(8)), baseline, asked)
        changed += (ours.numbers != baseline.answers.numbers).flatten().tolist()
        with monkeypatch.context() as patch:
            patch.setattr(solver, "replays", False)
            theirs = edited_answers(Session(solver), baseline_of(solver), asked)
        assert_same(ours, theirs)
    assert any(changed)


def test_one_at_a_time_or_all_at_once_is_the_same(tiny):
    solver, _ = tiny
    assert_same(baseline_of(solver, rows=1).answers, baseline_of(solver, rows=100).answers)
    asked = edits(solver, Site(1, "resid_post", "last"))
    one, many = (
        edited_answers(Session(solver, Batching(rows)), baseline_of(solver), asked)
        for rows in (1, 100)
    )
    assert_same(one, many)


def test_edits_are_those_of_the_bridges_hooks(tiny):
    solver, directory = tiny
    with quiet():
        bridge = TransformerBridge.boot_transformers(
            str(directory), tokenizer=solver.tokenizer, dtype=torch.float32
        )
    prompts = solver.encode(PROBLEMS)
    layout = prompts.layouts[0]
    tokens = torch.cat([prompts.prefix.expand(len(layout), -1), layout.tokens], dim=1)
    nothing = torch.empty(len(layout), 0, dtype=torch.int64)
    clean = run_clean(solver, prompts, read_prefix(solver, prompts.prefix), layout, nothing)
    for layer in range(solver.n_layers):
        generator = torch.Generator().manual_seed(layer)
        vectors = torch.randn(len(layout), 1, solver.d_model, generator=generator)
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
    solver = solver_in(directory, style="chat" if kind == "chat" else "comma")
    baseline = baseline_of(solver)
    solver.replays = False
    assert_same(baseline_of(solver).answers, baseline.answers)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_agrees_within_what_it_can(tmp_path, dtype, bound):
    solver = solver_in(tiny_lm("llama", tmp_path), dtype=dtype)
    assert solver.dtype == getattr(torch, dtype)
    sites = [Site(layer, "resid_post", "last") for layer in range(3)]
    assert check_fast_path(solver, solver.encode(PROBLEMS), sites) < bound
    whole = solver_in(tiny_lm("llama", tmp_path / "whole"))
    gap = baseline_of(solver).answers.log_prob - baseline_of(whole).answers.log_prob
    assert gap.abs().max() < 1


def test_a_point_that_an_architecture_has_not_is_refused(tmp_path):
    solver = solver_in(tiny_lm("phi", tmp_path))
    assert "resid_mid" not in solver.points
    with pytest.raises(UserError, match=r"point of hf_dir 'resid_mid'; expected one of: resid_pre"):
        check_fast_path(solver, solver.encode(PROBLEMS), [Site(0, "resid_mid", "last")])


def test_blocks_without_attention_are_refused():
    config = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=20, state_size=4)
    with pytest.raises(UserError, match="blocks of attention and an MLP, got MambaForCausalLM"):
        find_places(MambaForCausalLM(config))


def test_the_model_is_left_as_it_was(tiny):
    solver, _ = tiny
    implementation = solver.model.config._attn_implementation
    baseline_of(solver)
    with pytest.raises(RuntimeError):
        solver.run_block(0, torch.zeros(1, 1, solver.d_model + 1))
    assert solver.model.config._attn_implementation == implementation
    for block in solver.model.get_submodule(_blocks_of(solver)):
        assert "forward" not in vars(block)
        assert not block._forward_hooks
        assert not block._forward_pre_hooks


def _blocks_of(solver):
    names = {id(module): name for name, module in solver.model.named_modules()}
    return names[id(solver._blocks[0].module)].rsplit(".", 1)[0]
