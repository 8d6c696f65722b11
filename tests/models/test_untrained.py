"""The same network with random weights: what the input alone gives."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.sites import Site
from mech_arith.models.language.hf_files import quiet
from mech_arith.problems import draw_with_shots, split
from mech_arith.problems.templates import build_template
from tests.experiment.test_cell import plan, run
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in
from tests.tiny import tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

TEMPLATE = build_template("t", "a-b")
PROBLEMS, SHOTS = draw_with_shots(
    TEMPLATE, n=40, n_shots=2, ranges=dict.fromkeys("ab", (10, 99)), seed=0
)
FIT, REPORT = split(PROBLEMS, fit_share=0.5, seed=0)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tmp_path_factory):
    """Random ones too, but wider than a network begins: as if trained."""
    return model_in(tiny_lm(request.param, tmp_path_factory.mktemp(request.param)), shots=SHOTS)


def test_a_language_models_twin_reads_the_same_prompts_with_weights_as_they_begin(model):
    before = torch.get_rng_state()
    twin = model.untrained(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    ours, theirs = model.encode(REPORT), twin.encode(REPORT)
    assert theirs.digest() == ours.digest()
    assert [layout.spans for layout in theirs.layouts] == [layout.spans for layout in ours.layouts]
    assert (twin.dtype, twin.points, twin.replays) == (model.dtype, model.points, model.replays)
    assert not twin.network.training
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(3)
        fresh = AutoModelForCausalLM.from_config(model.network.config, dtype=torch.float32)
    found, trained = twin.network.state_dict(), model.network.state_dict()
    assert found.keys() == trained.keys()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(found[name], tensor), name
        assert not torch.equal(found[name], trained[name]), name
    embedding, head = (
        side.weight.data_ptr()
        for side in (twin.network.get_input_embeddings(), twin.network.get_output_embeddings())
    )
    assert (embedding == head) == model.network.config.tie_word_embeddings
    sites = [Site(layer, "resid_post", "last") for layer in range(3)]
    assert check_fast_path(twin, theirs, sites) < 1e-4


def test_a_twin_is_another_model_to_the_store(model):
    prints = [model.fingerprint, *(model.untrained(seed=seed).fingerprint for seed in (0, 1))]
    assert len({tuple(one.items()) for one in prints}) == 3
    assert model.untrained(seed=1).fingerprint == prints[2]


def test_half_precision_has_a_twin_of_half_precision(tmp_path):
    half = model_in(tiny_lm("llama", tmp_path), shots=SHOTS, dtype="bfloat16")
    twin = half.untrained(seed=0)
    assert {tensor.dtype for tensor in twin.network.parameters()} == {torch.bfloat16}


def test_a_model_whose_padding_is_embedded_as_zeros_has_all_its_points(model):
    """As that of every network is when training begins."""
    twin = model.untrained(seed=0)
    assert not twin.network.get_input_embeddings().weight[twin.tokenizer.pad_token_id].any() or (
        twin.network.config.model_type == "gpt2"
    )
    assert "resid_mid" in twin.points
    for layer in range(3):
        assert (twin.next_norm(layer, "attn_out") is None) == (
            model.next_norm(layer, "attn_out") is None
        )
    asked = plan(intervention=None, digits=2, untrained_twins=1, point="resid_mid")
    floors = run(model, FIT, REPORT, asked).tables["evidence"]["untrained_abs_r"]
    assert floors.between(0, 1).all()


@pytest.mark.slow
def test_a_cell_has_the_twins_r_beside_the_models(model):
    asked = plan(intervention=None, digits=2, untrained_twins=1)
    result = run(model, FIT, REPORT, asked)
    evidence = result.tables["evidence"].set_index(["layer", "value"])
    floors = evidence["untrained_abs_r"]
    assert floors.notna().all()
    assert len(floors) == 2 * 3
    twin = run(model.untrained(seed=0), FIT, REPORT, plan(intervention=None, digits=2))
    alone = twin.tables["evidence"].set_index(["layer", "value"])["r"].abs()
    assert floors.to_dict() == pytest.approx(alone.to_dict())
    assert (floors - evidence["r"].abs()).abs().min() > 1e-6
    assert result.summary["warnings"] == [w for w in result.summary["warnings"] if "twin" not in w]


@pytest.mark.parametrize("make", [tiny_decoder, tiny_encoder, tiny_pre_norm_encoder])
def test_models_that_are_trained_here_have_twins(make):
    model = make()
    twin, again, other = (model.untrained(seed=seed) for seed in (0, 0, 1))
    assert type(twin) is type(model)
    assert twin.encode(REPORT, digits=3).digest() == model.encode(REPORT, digits=3).digest()
    weights = [dict(one.bridge.named_parameters()) for one in (model, twin, again, other)]
    wide = [name for name, tensor in weights[0].items() if tensor.ndim > 1]
    assert len(wide) > 10
    for name in wide:
        own, found, same, unlike = (of[name] for of in weights)
        assert torch.equal(found, same), name
        assert not torch.equal(found, own) or make is tiny_decoder, name
        assert not torch.equal(found, unlike), name
    prints = {tuple(one.fingerprint.items()) for one in (model, twin, other)}
    assert len(prints) == 3
