"""Coordinates held at several sites: against passes in which hooks put them there by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.held import Held, run_held
from mech_arith.engine.run import (
    Baseline,
    ReferenceAnswers,
    SiteEdits,
    edited_answers,
    run_baseline,
)
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.answered import encode_for
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.base import Model
from mech_arith.models.prompts import NO_TOKEN
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import tiny_encoder

PROBLEMS = draw(
    build_template("nested", "a-(b-c)"), n=8, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)
ASKED = ReferenceAnswers.of_problems(PROBLEMS)
MODELS = {"decoder": load_arithmetic("arith_decoder"), "encoder": tiny_encoder()}
AT = {"decoder": "c.last", "encoder": "first"}
"""A position on which the answer depends."""


def baseline_of(model: Model, position: str = "last") -> Baseline:
    return run_baseline(Session(model), encode_for(model, PROBLEMS, [position]), ASKED)


def found_at(model: Model, baseline: Baseline, site: Site) -> Tensor:
    """Clean activations, all of one layout."""
    ((_, found),) = capture(Session(model), baseline.prompts, [site])
    return found[site].double()


def random_held(model: Model, baseline: Baseline, site: Site, *, k: int, seed: int) -> Held:
    """Far coordinates on random directions, which are not orthogonal; some stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    clean = found_at(model, baseline, site)
    frame = torch.nn.functional.normalize(
        torch.randn(k, clean.shape[1], generator=generator, dtype=torch.float64)
    )
    mean = clean.mean(0)
    own = (clean - mean) @ frame.mT
    far = torch.randn(2, *own.shape, generator=generator, dtype=torch.float64)
    to = own + 2 * clean.norm(dim=1).mean() * k**-0.5 * far
    stay = torch.rand(to.shape, generator=generator) < 0.3
    return Held(site, frame, mean, to.masked_fill(stay, torch.nan))


def by_hand(model: Model, baseline: Baseline, held: list[Held], edit: int, row: int) -> float:
    """One problem's answer by whole passes, with what is asked of the edit solved for."""
    (layout,) = baseline.prompts.layouts

    def tap_of(one: Held) -> Callable[[Tensor], Tensor]:
        (index,) = layout.positions(one.site.position)

        def tap(activation: Tensor) -> Tensor:
            if index >= activation.shape[1]:
                return activation
            edited, to = activation.clone(), one.to[edit, row]
            now = one.frame @ (activation[0, index].double() - one.mean)
            apart = torch.where(to.isnan(), torch.zeros_like(to), to - now)
            weights = torch.linalg.solve(one.frame @ one.frame.mT, apart)
            edited[0, index] += (weights @ one.frame).float()
            return edited

        return tap

    taps = {(one.site.layer, one.site.point): tap_of(one) for one in held}
    at = int((layout.rows == row).nonzero())
    tokens = layout.tokens[at][None]
    if model.reader is None:
        return float(model.full_pass(tokens, taps)[0, 0, 0])
    written: tuple[int, ...] = ()
    while not model.reader.read(written)[1]:
        read = model.full_pass(torch.cat([tokens, torch.tensor([written]).long()], 1), taps)
        written += (int(read[0, -1].argmax()),)
        if len(written) > 12:
            return float("nan")
    number = model.reader.read(written)[0]
    return float("nan") if number is None else float(number)


@pytest.mark.parametrize("kind", MODELS)
def test_coordinates_of_two_layers_are_held_at_once(kind: str) -> None:
    model = MODELS[kind]
    baseline = baseline_of(model)
    sites = [Site(0, "resid_post", AT[kind]), Site(1, "mlp_out", AT[kind])]
    held = [random_held(model, baseline, site, k=2, seed=i) for i, site in enumerate(sites)]
    ours = run_held(Session(model, Batching(3)), baseline, held)
    by_hooks = [[by_hand(model, baseline, held, edit, row) for row in range(8)] for edit in (0, 1)]
    torch.testing.assert_close(
        ours, torch.tensor(by_hooks, dtype=torch.float64), atol=2e-4, rtol=1e-5, equal_nan=True
    )
    clean = baseline.answers.numbers
    assert ((ours - clean).abs() > 0.5).double().mean() >= 0.25, "expected edits that matter"
    # What stands above sees what was changed below: one after another is something else.
    upper = run_held(Session(model), baseline, held[1:])
    assert not torch.allclose(ours, upper, equal_nan=True)


def test_a_site_in_the_answer_is_held_behind_what_is_written() -> None:
    model = MODELS["decoder"]
    baseline = baseline_of(model, "answer.1")
    sites = [Site(1, "resid_post", "last"), Site(2, "resid_post", "answer.1")]
    held = [random_held(model, baseline, site, k=2, seed=4 + i) for i, site in enumerate(sites)]
    ours = run_held(Session(model), baseline, held)
    by_hooks = [[by_hand(model, baseline, held, edit, row) for row in range(8)] for edit in (0, 1)]
    assert torch.equal(ours.nan_to_num(-1), torch.tensor(by_hooks).double().nan_to_num(-1))
    first = baseline.written[:, 0]
    assert (first != NO_TOKEN).all()
    assert not torch.equal(ours, run_held(Session(model), baseline, held[:1]))


@pytest.mark.parametrize("kind", MODELS)
def test_held_at_one_site_is_the_edit_that_takes_it_there(kind: str) -> None:
    model = MODELS[kind]
    baseline = baseline_of(model)
    site = Site(1, "resid_post", AT[kind])
    one = random_held(model, baseline, site, k=1, seed=7)
    own = (found_at(model, baseline, site) - one.mean) @ one.frame.mT
    changes = (one.to - own).nan_to_num(0)
    edits = SiteEdits(site, one.frame.expand(2, 1, -1), changes)
    theirs = edited_answers(Session(model), baseline, edits).numbers
    ours = run_held(Session(model), baseline, [one])
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kind", MODELS)
def test_what_stays_leaves_the_answer(kind: str) -> None:
    model = MODELS[kind]
    baseline = baseline_of(model)
    one = random_held(model, baseline, Site(1, "resid_post", AT[kind]), k=2, seed=7)
    nothing = Held(one.site, one.frame, one.mean, torch.full_like(one.to, torch.nan))
    ours = run_held(Session(model), baseline, [nothing])
    torch.testing.assert_close(
        ours, baseline.answers.numbers.expand(2, -1), atol=1e-5, rtol=1e-5, equal_nan=True
    )


def test_whole_passes_say_the_same() -> None:
    model = tiny_encoder()
    baseline = baseline_of(model)
    sites = [Site(0, "resid_mid", "first"), Site(2, "resid_pre", "first")]
    held = [random_held(model, baseline, site, k=3, seed=i) for i, site in enumerate(sites)]
    ours = run_held(Session(model), baseline, held)
    model.replays = False
    theirs = run_held(Session(model), baseline, held)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_what_was_done_is_not_done_again(tmp_path, monkeypatch) -> None:
    model = tiny_encoder()
    baseline = baseline_of(model)
    held = [random_held(model, baseline, Site(1, "resid_post", "first"), k=1, seed=0)]
    kept = Checkpoint(Store(tmp_path), cell="one", every_s=0.0)
    ours = run_held(Session(model, checkpoint=kept), baseline, held)
    monkeypatch.setattr("mech_arith.engine.held.read_written", None)
    again = Checkpoint(Store(tmp_path), cell="one")
    assert torch.equal(run_held(Session(model, checkpoint=again), baseline, held), ours)
    other = Held(held[0].site, held[0].frame, held[0].mean, held[0].to + 1)
    with pytest.raises(TypeError):
        run_held(Session(model, checkpoint=again), baseline, [other])
