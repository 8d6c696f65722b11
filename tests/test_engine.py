import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_arith.engine import edited_answers, run_baseline
from mech_arith.problems import draw
from mech_arith.sites import Site
from mech_arith.solvers.base import POINTS
from mech_arith.templates import build_template
from tests.tiny import tiny_decoder, tiny_encoder

SOLVERS = {"decoder": tiny_decoder(), "encoder": tiny_encoder()}
PROBLEMS = draw(
    build_template("nested", "a-(b-c)"), n=12, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
PLACES = {"all": tuple(range(14)), "some": (3, 7, 8), "last": (13,)}


def hooked_logits(solver, tokens, site, change):
    """The model's output by a full pass through the TransformerLens bridge with a hook."""

    def edit(activation, hook):
        return site.add(activation, change)

    with torch.inference_mode():
        return solver.bridge.run_with_hooks(
            tokens, fwd_hooks=[(solver.hook_name(site.layer, site.point), edit)]
        )


def hooked_answers(solver, tokens, site, change):
    """Answers by full hooked passes: one for the encoder, one for every token of the decoder."""
    if solver.regresses:
        return hooked_logits(solver, tokens, site, change)[:, 0].double() * solver.scale
    written = tokens
    for _ in range(solver.answer_format.length):
        logits = hooked_logits(solver, written, site, change)
        written = torch.cat([written, logits[:, -1].argmax(-1)[:, None]], dim=1)
    numbers, is_number = solver.answer_format.decode(written[:, tokens.shape[1] :])
    return numbers.double().masked_fill(~is_number, torch.nan)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", SOLVERS)
def test_suffix_equals_the_full_hooked_pass(kind, point, place):
    solver = SOLVERS[kind]
    tokens = solver.encode(PROBLEMS).tokens
    baseline = run_baseline(solver, tokens, batch_size=5)
    generator = torch.Generator().manual_seed(1)
    moved = 0
    for layer in range(solver.n_layers):
        site = Site(layer, point, place, PLACES[place])
        width = len(site.indices) * solver.d_model
        directions = torch.randn(3, width, generator=generator, dtype=torch.float64)
        changes = 2 * torch.randn(3, 12, generator=generator, dtype=torch.float64)
        ours = edited_answers(solver, baseline, site, directions, changes, batch_size=7)
        for edit in range(3):
            change = (changes[edit, :, None] * directions[edit]).float()
            theirs = hooked_answers(solver, tokens, site, change)
            torch.testing.assert_close(
                ours[edit], theirs, atol=1e-2 if solver.regresses else 0, rtol=1e-5, equal_nan=True
            )
            moved += int((theirs != baseline.answers).sum())
    assert moved > 0


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
