"""Real weights: what a language model knows of a sum and where, and how the engine runs it."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from mech_arith.engine.batching import Batching
from mech_arith.engine.passes import Change, Hooked, Resumed, run_clean
from mech_arith.engine.run import ReferenceAnswers, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.results import load_run
from mech_arith.models.base import read_prefix
from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.loading import load_pretrained
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import smollm2
from tests.running import main
from tests.tiny import random_edits

__all__ = ["smollm2"]  # a fixture

# In one process: the run is made once.
pytestmark = pytest.mark.slow

POINTS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post", "mlp_post")
UNITS = [*((point, None) for point in POINTS), ("z", 4)]
"""Whole points, and one of nine heads that share three keys."""

# --- a cell: one-digit sums, all of them but the four examples


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    """Traced and edited at every fifth layer."""
    overrides = (
        *("model=smollm2_135m", "prompt=chat", "template=sum_of_two", "tracing=pca_last"),
        *("problems.n=96", "problems.operands={min:0,max:9}"),
        *("layers.start=7", "layers.step=5", "tracing.position_map=false"),
        *("intervention.values=[a+b]", "intervention=scale"),
        *("intervention.strengths=[-1,1]", "intervention.n_problems=null", "wandb=disabled"),
        *("intervention.controls.random=3", "intervention.controls.span=0"),
        *("intervention.controls.other=false", "intervention.controls.shuffled=false"),
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        tmp_path = tmp_path_factory.mktemp("smollm2")
        assert main(monkeypatch, tmp_path, *overrides) == 0
    return load_run(tmp_path / "run")


def test_it_adds_far_better_than_a_constant_answer(run):
    """.90 of 48 when this was written; the floor is .13."""
    summary = run.summary
    assert summary["cell"]["prompt"] == "chat, 4 shots"
    assert summary["baseline_accuracy"] > 0.75
    assert summary["majority_floor"] < 0.2
    assert summary["above_floor_p"] < 1e-9
    assert summary["baseline_right_probability"] > 0.5
    # What has no controls to speak of, and the massive activation of its lower layers.
    said = ("in layer", "p of a drop beyond")
    assert all(warning.startswith(said) for warning in summary["warnings"]), summary["warnings"]
    assert any("in layer 7" in warning for warning in summary["warnings"])


def test_the_fast_path_is_checked_and_taken(run):
    assert run.summary["engine"] == "resumed"
    assert run.summary["engine_difference"] < 1e-4


def test_operands_and_sum_are_found(run):
    """At the last position, by the component that is best on the fit split."""
    found = by_layer(run.tables["correlations"])
    print(f"\n|R| at the last position, {run.summary['n_report']} problems\n{found.round(2)}")
    best = found.max().to_dict()
    assert best["a"] > 0.65
    assert best["b"] > 0.8
    assert best["a+b"] > 0.75
    # An operand alone correlates with the sum by 0.71: what is found late is the sum's own.
    late = found.loc[[22, 27]]
    assert (late["a+b"] > late[["a", "b"]].max(axis=1) + 0.05).to_numpy().all()


def by_layer(correlations: pd.DataFrame) -> pd.DataFrame:
    """|R| on the report split, a row per layer and a column per value."""
    best = correlations.groupby(["layer", "value"])["r_fit"].agg(lambda r: r.abs().idxmax())
    return correlations.loc[best].pivot_table(index="layer", columns="value", values="abs_r")


def test_the_sum_is_used_where_it_is_found(run):
    """Mirrored along its component, late; a random direction, as far, does next to nothing."""
    effects = run.tables["effects"].set_index(["arm", "strength", "layer"])
    drops = effects["accuracy_drop"].unstack("arm")
    print(f"\naccuracy drops\n{drops.round(2)}")
    late = drops.loc[(-1.0, 27)].to_dict()
    assert late["target"] > 0.25
    assert abs(late["control"]) < 0.1
    # Where one component is best for all values, there is no other.
    assert not drops.loc[1.0].fillna(0).to_numpy().any()


# --- the engine, on a few problems


@pytest.fixture(scope="module")
def problems():
    template = build_template("sum", "a+b")
    ranges = dict.fromkeys("ab", (0, 9))
    return draw_with_shots(template, n=4, n_shots=4, ranges=ranges, seed=0)


@pytest.fixture(scope="module")
def model(smollm2, problems):
    loaded = load_pretrained(
        "smollm2_135m",
        path=None,
        hub=None,
        revision=None,
        dtype="float32",
        device="cpu",
        device_map=None,
    )
    return PretrainedModel(loaded, Prompting("chat", problems[1], None))


def opened(model, prompts):
    """The only layout, and the clean pass over it."""
    (layout,) = prompts.layouts
    nothing = torch.empty(len(layout), 0, dtype=torch.int64)
    return layout, run_clean(model, prompts, read_prefix(model, prompts.prefix), layout, nothing)


def vectors_at(model, clean, layer, indices, width, *, seed=0):
    """Random ones, about as long as the residual stream there."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(clean.layout), len(indices), width, generator=generator)
    return 0.3 * vectors * clean.resid[layer][:, list(indices)].norm() / vectors.norm()


@pytest.mark.parametrize(("layer", "position"), [(0, "last"), (14, "a.last"), (29, "last")])
def test_edited_logits_are_those_of_full_hooked_passes(model, problems, layer, position):
    prompts = model.encode(problems[0]).take(2)
    layout, clean = opened(model, prompts)
    indices = layout.positions(position)
    ((_, unedited),) = Resumed(clean, None).read_outs()
    for seed, (point, head) in enumerate(UNITS):
        site = Site(layer, point, position, head)
        vectors = vectors_at(model, clean, layer, indices, site.width(model), seed=seed)
        change = Change(site, indices, vectors)
        ((_, ours),) = Resumed(clean, change).read_outs()
        ((_, theirs),) = Hooked(model, prompts, layout, clean.fed, change).read_outs()
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
        assert (ours - unedited).abs().max() > 0.1


def test_edited_logits_are_those_of_the_bridges_hooks(model, problems, smollm2):
    with quiet():
        bridge = TransformerBridge.boot_transformers(
            str(smollm2), tokenizer=model.tokenizer, dtype=torch.float32
        )
    prompts = model.encode(problems[0]).take(2)
    layout, clean = opened(model, prompts)
    tokens = torch.cat([prompts.prefix.expand(len(layout), -1), layout.tokens], dim=1)
    at = layout.tokens.shape[1] - 1
    for layer in (0, 14, 29):
        vectors = vectors_at(model, clean, layer + 1, (at,), model.d_model, seed=layer)
        change = Change(Site(layer, "resid_post", "last"), (at,), vectors)
        ((_, ours),) = Resumed(clean, change).read_outs()

        def add(resid, hook, vectors=vectors):
            return torch.cat([resid[:, :-1], resid[:, -1:] + vectors], dim=1)

        with torch.inference_mode():
            theirs = bridge.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_out", add)])
        torch.testing.assert_close(ours[:, -1], theirs[:, -1], atol=1e-3, rtol=0)


def answers_under(model, problems, asked, *, rows=None):
    """Clean and edited numbers and probabilities."""
    batching = Batching(rows)
    prompts = model.encode(problems)
    baseline = run_baseline(
        Session(model, batching), prompts, ReferenceAnswers.of_problems(problems)
    )
    return baseline.answers, edited_answers(Session(model, batching), baseline, asked)


def assert_same(ours, theirs):
    assert np.array_equal(ours.numbers, theirs.numbers, equal_nan=True)
    for field in ("log_prob", "logit_difference"):
        torch.testing.assert_close(
            getattr(ours, field), getattr(theirs, field), atol=1e-3, rtol=1e-4, equal_nan=True
        )


def test_what_is_written_under_edits_is_what_full_passes_write(model, problems, monkeypatch):
    """Edits that are large enough to change the answers, and let rows write on of their own."""
    asked = random_edits(
        model,
        model.encode(problems[0]),
        Site(10, "resid_post", "last"),
        size=300.0,
        n_edits=2,
        seed=0,
    )
    clean, ours = answers_under(model, problems[0], asked)
    print(f"\nclean {clean.numbers.tolist()}\nedited {ours.numbers.tolist()}")
    assert (ours.numbers != clean.numbers).any()
    monkeypatch.setattr(model, "replays", False)
    full_clean, theirs = answers_under(model, problems[0], asked)
    assert_same(full_clean, clean)
    assert_same(ours, theirs)


def test_one_at_a_time_or_all_at_once_is_the_same(model, problems):
    asked = random_edits(
        model,
        model.encode(problems[0]),
        Site(10, "resid_post", "last"),
        size=300.0,
        n_edits=2,
        seed=0,
    )
    one, many = (answers_under(model, problems[0], asked, rows=rows) for rows in (1, 100))
    for ours, theirs in zip(one, many, strict=True):
        assert_same(ours, theirs)
