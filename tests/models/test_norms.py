"""Which normalisation a model says comes next, against what its modules are really handed."""

import pytest
import torch
from torch import nn

from mech_arith.models.attention import NOTHING
from mech_arith.models.base import POINTS, NextNorm, run_blocks
from mech_arith.models.language.norms import (
    Normalises,
    StreamNorms,
    next_before,
    next_behind,
    normalises,
)
from tests.lms import tiny_lm
from tests.models.test_pretrained import model_in
from tests.tiny import PlantedModel, tiny_decoder, tiny_encoder

LN, RMS = Normalises(centred=True, eps=1e-5), Normalises(centred=False, eps=1e-6)


def activations_of(model, tokens):
    """Every point of every layer, in a clean pass."""
    found = {}

    def tap_of(layer):
        def tap(point, activation):
            found[layer, point] = activation
            return activation

        return tap

    with torch.inference_mode():
        pasts = [NOTHING] * model.n_layers
        run_blocks(model, model.embed(tokens), start=0, pasts=pasts, tap=tap_of)
    return found


def inputs_of(modules, run):
    """What each module is handed while something runs."""
    seen, handles = {}, []
    for name, module in modules.items():

        def keep(_, args, name=name):
            seen[name] = args[0]

        handles.append(module.register_forward_pre_hook(keep))
    run()
    for handle in handles:
        handle.remove()
    return seen


def norm_modules(model, *, final):
    blocks = model.bridge.blocks
    pairs = {(i, n): getattr(blocks[i], n) for i in range(model.n_layers) for n in ("ln1", "ln2")}
    if final:
        pairs["final"] = model.bridge.ln_final
    return pairs


def llama_norms(model):
    layers = model.network.model.layers
    return (
        {(i, "ln1"): layer.input_layernorm for i, layer in enumerate(layers)}
        | {(i, "ln2"): layer.post_attention_layernorm for i, layer in enumerate(layers)}
        | {"final": model.network.model.norm}
    )


PRE = {
    "resid_pre": (0, "ln1"),
    "attn_out": (0, "ln2"),
    "resid_mid": (0, "ln2"),
    "mlp_out": (1, "ln1"),
    "resid_post": (1, "ln1"),
}
POST = {
    "resid_pre": (0, "ln1"),
    "attn_out": (0, "ln1"),
    "resid_mid": (0, "ln2"),
    "mlp_out": (0, "ln2"),
    "resid_post": (1, "ln1"),
}


@pytest.mark.parametrize("kind", ["decoder", "encoder", "pre_norm_encoder", "llama"])
def test_the_named_stream_is_what_the_norm_is_handed(kind, tmp_path):
    if kind == "llama":
        model = model_in(tiny_lm("llama", tmp_path))
        modules = llama_norms(model)
    else:
        norm = "pre" if kind == "pre_norm_encoder" else "post"
        model = tiny_decoder() if kind == "decoder" else tiny_encoder(norm=norm)
        modules = norm_modules(model, final=kind != "encoder")
    tokens = torch.arange(1, 9)[None] % 5 + torch.tensor([[0], [3]])
    found = activations_of(model, tokens)
    handed = inputs_of(modules, lambda: model.full_pass(tokens, {}))
    for point, name in (POST if kind == "encoder" else PRE).items():
        norm = model.next_norm(0, point)
        stream = torch.stack([found[place] for place in norm.stream]).sum(0)
        torch.testing.assert_close(stream, handed[name], atol=1e-5, rtol=1e-4)
        assert norm.centred == (kind != "llama")
    last = model.next_norm(model.n_layers - 1, "resid_post")
    if kind == "encoder":
        assert last is None
    else:
        torch.testing.assert_close(found[last.stream[0]], handed["final"], atol=1e-5, rtol=1e-4)
    assert model.next_norm(0, "z") is None


@pytest.mark.parametrize(
    ("architecture", "norms"),
    [
        ("gpt2", (LN, LN, LN)),
        ("opt", (LN, LN, LN)),
        ("gemma3_text", (RMS, RMS, RMS)),
        ("phi", (LN, None, LN)),  # attention and MLP side by side
        ("olmo2", (None, None, Normalises(centred=False, eps=1e-5))),  # norms behind both
        ("granite", (RMS, None, RMS)),  # scaled sums
    ],
)
def test_norms_are_found_by_what_they_read_and_do(architecture, norms, tmp_path):
    model = model_in(tiny_lm(architecture, tmp_path))
    assert model._norms == StreamNorms(*norms)
    following = {point: model.next_norm(0, point) for point in POINTS}
    if architecture == "phi":
        assert following["attn_out"] == LN.reading(0, "resid_post")
    if architecture == "granite":
        assert following["attn_out"] is None
        assert following["mlp_out"] is None
        assert following["resid_post"] == RMS.reading(0, "resid_post")
    if architecture == "olmo2":
        assert set(following.values()) == {None}


def test_the_last_norm_stands_behind_the_last_block_alone():
    final = Normalises(centred=True, eps=0.5)
    norms = StreamNorms(LN, RMS, final)
    assert next_before(norms, 1, "mlp_out", n_layers=3) == LN.reading(1, "resid_post")
    assert next_before(norms, 2, "mlp_out", n_layers=3) == final.reading(2, "resid_post")
    assert next_before(norms, 2, "attn_out", n_layers=3) == RMS.reading(2, "resid_mid")
    assert next_behind(norms, 1, "resid_post", n_layers=3) == NextNorm(
        ((2, "resid_pre"), (2, "attn_out")), centred=True, eps=1e-5
    )
    assert next_behind(norms, 2, "resid_post", n_layers=3) is None


def test_what_normalises_is_told_from_what_does_not():
    like = torch.zeros(1, 2, 16)
    assert normalises(nn.LayerNorm(16), like=like) == LN
    assert normalises(nn.RMSNorm(16, eps=1e-6), like=like) == RMS
    assert normalises(nn.Linear(16, 16), like=like) is None
    scaled = nn.Linear(16, 16)
    scaled.eps = 1e-5
    assert normalises(scaled, like=like) is None


def test_a_model_that_never_normalises_says_so():
    assert PlantedModel().next_norm(0, "resid_post") is None
