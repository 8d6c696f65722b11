import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_arith.engine import edited_answers, run_baseline
from mech_arith.problems import draw
from mech_arith.sites import Site
from mech_arith.solvers.arithmetic import load_arithmetic
from mech_arith.solvers.base import POINTS
from mech_arith.templates import build_template
from tests.tiny import tiny_decoder, tiny_encoder

SOLVERS = {"decoder": tiny_decoder(), "encoder": tiny_encoder()}
PROBLEMS = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
PLACES = {"all": tuple(range(14)), "some": (3, 7, 8), "last": (13,)}


def hooked(solver, tokens, site, change):
    """The model's output and last residual stream, by a full pass through the hooked bridge."""
    last = {}

    def edit(activation, hook):
        # BERT's z has an axis of its own for the heads
        return site.add(activation.flatten(2), change).view_as(activation)

    def keep(activation, hook):
        last["resid"] = activation[:, solver.answers_at]

    # The bridge's resid_mid of a pre-norm block is the input of its second norm alone: an edit
    # there does not reach the residual stream. The same change of attn_out does.
    causal_mid = site.point == "resid_mid" and not solver.regresses
    hooks = [
        (solver.hook_name(site.layer, "attn_out" if causal_mid else site.point), edit),
        (solver.hook_name(solver.n_layers - 1, "resid_post"), keep),
    ]
    with torch.inference_mode():
        return solver.bridge.run_with_hooks(tokens, fwd_hooks=hooks), last["resid"]


def hooked_answers(solver, tokens, site, change):
    """Answers by full hooked passes: one for the encoder, one for every token of the decoder."""
    if solver.regresses:
        return hooked(solver, tokens, site, change)[0][:, 0].double() * solver.scale
    written = tokens
    for _ in range(solver.answer_format.length):
        logits, _ = hooked(solver, written, site, change)
        written = torch.cat([written, logits[:, -1].argmax(-1)[:, None]], dim=1)
    numbers, is_number = solver.answer_format.decode(written[:, tokens.shape[1] :])
    return numbers.double().masked_fill(~is_number, torch.nan)


def assert_suffix_equals_full_pass(solver, site, *, size):
    """The resumed pass, its last residual stream and its answers, against the full hooked pass."""
    tokens = solver.encode(PROBLEMS).tokens
    baseline = run_baseline(solver, tokens, batch_size=5)
    generator = torch.Generator().manual_seed(1)
    width = len(site.indices) * solver.d_model
    directions = torch.randn(2, width, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    changes = size * torch.randn(2, len(tokens), generator=generator, dtype=torch.float64)
    ours = edited_answers(solver, baseline, site, directions, changes, batch_size=7)
    for edit in range(2):
        change = (changes[edit, :, None] * directions[edit]).float()
        resid, _ = solver.resume_resid(
            baseline.clean,
            torch.arange(len(tokens)),
            layer=site.layer,
            point=site.point,
            edit=lambda activation, change=change: site.add(activation, change),
        )
        _, expected = hooked(solver, tokens, site, change)
        torch.testing.assert_close(resid, expected, atol=1e-5, rtol=1e-5)
        clean = baseline.clean.resid[-1][:, solver.answers_at]
        if site.layer < solver.n_layers - 1:
            assert (resid - clean).abs().max() > 1e-4
        theirs = hooked_answers(solver, tokens, site, change)
        same = torch.isclose(ours[edit], theirs, atol=0.05, rtol=1e-4, equal_nan=True)
        # a token may tip over where two are as likely to within rounding
        assert same.double().mean() >= (1.0 if solver.regresses else 0.9)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", SOLVERS)
def test_suffix_equals_the_full_hooked_pass(kind, point, place):
    solver = SOLVERS[kind]
    for layer in range(solver.n_layers):
        site = Site(layer, point, place, PLACES[place])
        assert_suffix_equals_full_pass(solver, site, size=3.0)


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("name", ["arith_decoder", "arith_encoder"])
def test_suffix_equals_the_full_hooked_pass_of_the_shipped_solvers(name, layer):
    solver = load_arithmetic(name)
    tokens = solver.encode(PROBLEMS).tokens
    assert solver.answer(tokens).isfinite().all()  # so that equal answers say something
    for point in ("resid_post", "attn_out"):
        site = Site(layer % solver.n_layers, point, "all", PLACES["all"])
        assert_suffix_equals_full_pass(solver, site, size=2.0)


@pytest.mark.parametrize("kind", SOLVERS)
def test_clean_activations_are_the_bridges(kind):
    solver = SOLVERS[kind]
    tokens = solver.encode(PROBLEMS).tokens
    seen = {}

    def tap_of(layer):
        def tap(point, activation):
            seen[layer, point] = activation
            return activation

        return tap

    clean = solver.run(tokens, tap_of)
    with torch.inference_mode():
        _, cache = solver.bridge.run_with_cache(tokens)
    for layer in range(solver.n_layers):
        assert torch.equal(clean.resid[layer + 1], seen[layer, "resid_post"])
        for point in POINTS:
            theirs = cache[solver.hook_name(layer, point)].reshape(seen[layer, point].shape)
            assert (seen[layer, point] - theirs).abs().max() <= 1e-5


@settings(max_examples=10)
@given(size=st.integers(1, 40))
def test_batching_does_not_matter(size):
    solver = SOLVERS["decoder"]
    tokens = solver.encode(PROBLEMS).tokens
    site = Site(1, "resid_post", "all", PLACES["all"])
    directions = torch.randn(2, 14 * 32, generator=torch.Generator().manual_seed(2)).double()
    changes = torch.ones(2, 12, dtype=torch.float64)
    answers = [
        edited_answers(
            solver,
            run_baseline(solver, tokens, batch_size=clean),
            site,
            directions,
            changes,
            batch_size=edited,
        )
        for clean, edited in ((12, 24), (size, size))
    ]
    assert torch.equal(answers[0].nan_to_num(-1), answers[1].nan_to_num(-1))


@pytest.mark.parametrize("kind", SOLVERS)
def test_no_change_leaves_activations_and_answers_bit_for_bit(kind):
    solver = SOLVERS[kind]
    tokens = solver.encode(PROBLEMS).tokens
    baseline = run_baseline(solver, tokens, batch_size=12)
    site = Site(0, "resid_post", "all", PLACES["all"])
    direction = torch.ones(1, 14 * solver.d_model, dtype=torch.float64)
    answers = edited_answers(
        solver, baseline, site, direction, torch.zeros(1, 12).double(), batch_size=5
    )
    assert torch.equal(answers[0].nan_to_num(-1), baseline.answers.nan_to_num(-1))
    # Nor would a pass with nothing added differ from the clean one.
    rows = torch.arange(12)
    resumed = solver.resume(
        baseline.clean, rows, layer=0, point="resid_post", edit=lambda activation: activation
    )
    torch.testing.assert_close(
        resumed, baseline.answers, atol=1e-3 if solver.regresses else 0, rtol=0, equal_nan=True
    )


def test_rows_without_change_are_not_run(monkeypatch):
    solver = tiny_encoder()
    baseline = run_baseline(solver, solver.encode(PROBLEMS).tokens, batch_size=12)
    ran = []
    resume = solver.resume
    monkeypatch.setattr(
        solver,
        "resume",
        lambda clean, rows, **kw: ran.append(len(rows)) or resume(clean, rows, **kw),
    )
    changes = torch.zeros(3, 12, dtype=torch.float64)
    changes[1, 4:7] = 1.0
    directions = torch.ones(3, 14 * solver.d_model, dtype=torch.float64)
    site = Site(0, "resid_post", "all", PLACES["all"])
    answers = edited_answers(solver, baseline, site, directions, changes, batch_size=100)
    assert ran == [3]
    assert np.flatnonzero((answers != baseline.answers).any(0)).tolist() == [4, 5, 6]


def test_hooks_are_gone_after_an_error():
    solver = SOLVERS["encoder"]
    baseline = run_baseline(solver, solver.encode(PROBLEMS).tokens, batch_size=12)

    def broken(activation):
        raise RuntimeError("broken edit")

    with pytest.raises(RuntimeError, match="broken edit"):
        solver.resume(baseline.clean, torch.arange(3), layer=0, point="z", edit=broken)
    again = run_baseline(solver, solver.encode(PROBLEMS).tokens, batch_size=12)
    assert torch.equal(again.answers, baseline.answers)
