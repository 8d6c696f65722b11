"""Heads and neurons, against plain hooks on the modules of the model's own library."""

from contextlib import ExitStack, contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM

from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import edited_read_outs
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.language.hf_files import quiet
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.lms import ARCHITECTURES, tiny_lm
from tests.models.test_pretrained import COMMON, PROBLEMS, model_in
from tests.thinned import thinned
from tests.tiny import random_edits, tiny_decoder, tiny_encoder, tiny_pre_norm_encoder

LLAMA = ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj")
OUTPUTS = {
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"),
    "gpt_neo": ("transformer.h.{}.attn.attention.out_proj", "transformer.h.{}.mlp.c_proj"),
    "gpt_neox": ("gpt_neox.layers.{}.attention.dense", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    "opt": ("model.decoder.layers.{}.self_attn.out_proj", "model.decoder.layers.{}.fc2"),
    "phi": ("model.layers.{}.self_attn.dense", "model.layers.{}.mlp.fc2"),
}
"""The modules that read heads and neurons, where they are called otherwise than Llama's."""

OWN = {
    "decoder": (tiny_decoder, ("layers.{}.attn.o", "layers.{}.mlp.fc_out")),
    "pre_norm_encoder": (tiny_pre_norm_encoder, ("layers.{}.attn.o", "layers.{}.mlp.fc_out")),
    "encoder": (
        tiny_encoder,
        ("bert.encoder.layer.{}.attention.output.dense", "bert.encoder.layer.{}.output.dense"),
    ),
}

ARITHMETIC = draw(
    build_template("nested", "a-(b-c)"), n=5, ranges=dict.fromkeys("abc", (100, 999)), seed=0
)

SLOW = [name for name in (*ARCHITECTURES, "gpt_neo") if name not in COMMON]


class Case:
    """One of our models, and a plain one of its library with the same weights."""

    def __init__(self, name, directory):
        self.name = name
        if name in OWN:
            make, self.outputs = OWN[name]
            self.model, self.prompts = make(), make().encode(ARITHMETIC)
            weights = {
                key.replace("._original_component", ""): tensor
                for key, tensor in self.model.bridge.named_parameters()
            }
            self.network = self.model.shape.network().eval()
            self.network.load_state_dict(weights, strict=False)
            return
        tiny_lm(name, directory)
        self.model, self.outputs = model_in(directory), OUTPUTS.get(name, LLAMA)
        self.prompts = self.model.encode(PROBLEMS)
        with quiet():
            self.network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        if name == "gpt_neo":  # its attention does not go through Hugging Face's interface
            self.model.replays = False

    def module(self, layer, point):
        """The plain model's own, that reads a point."""
        heads, neurons = self.outputs
        return self.network.get_submodule((heads if point == "z" else neurons).format(layer))

    @torch.inference_mode()
    def read(self, layout):
        """What the plain model gives at the prompt's end."""
        given = self.network(self.prompts.whole(layout))
        given = getattr(given, "logits", given)
        return given * self.model.scale if self.model.regresses else given[:, -1]


@pytest.fixture(
    scope="module",
    params=[*OWN, *COMMON, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@contextmanager
def reading(module, change):
    """`change` gets what the module is given, and makes another of it."""
    handle = module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def sites_of(model, position):
    """Of two layers: two heads, all heads, and the neurons."""
    return [
        Site(layer, point, position, head)
        for layer in (0, model.n_layers - 1)
        for point, head in (("z", 0), ("z", model.n_heads - 1), ("z", None), ("mlp_post", None))
    ]


def part_of(site, model):
    """By hand: the site's numbers among those that the module reads."""
    if site.head is None:
        return slice(None)
    width = model.width_at(site.layer, "z") // model.n_heads
    return slice(site.head * width, site.head * width + width)


def seen_by(case, layout, sites):
    """What the plain model's modules read, by layer and point."""
    seen = {}

    def keeping(place):
        def keep(activation):
            seen[place] = activation.reshape(len(layout), -1, case.model.width_at(*place))
            return activation

        return keep

    with ExitStack() as stack:
        for place in {(site.layer, site.point) for site in sites}:
            stack.enter_context(reading(case.module(*place), keeping(place)))
        case.read(layout)
    return seen


def test_what_is_read_is_what_the_models_own_matrices_read(case):
    model, prompts = case.model, case.prompts
    sites = sites_of(model, "last")
    one, other, whole = (site.width(model) for site in sites[:3])
    assert one == other == whole // model.n_heads
    for layout, found in capture(Session(model, Batching(100)), prompts, sites):
        seen = seen_by(case, layout, sites)
        for site in sites:
            plain = seen[site.layer, site.point][:, -1, part_of(site, model)]
            assert found[site].abs().max() > 1e-3
            torch.testing.assert_close(found[site], plain, atol=1e-4, rtol=1e-4)


def added(case, site, layout, vectors):
    """What the plain model gives with vectors added to what its own module reads."""
    ((place,), part) = (layout.positions(site.position), part_of(site, case.model))

    def add(activation):
        edited = activation.clone().reshape(len(layout), -1, activation.shape[-1])
        edited[:, place + len(case.prompts.prefix), part] += vectors
        return edited.reshape(activation.shape)

    with reading(case.module(site.layer, site.point), add):
        return case.read(layout)


@pytest.mark.parametrize("replays", [True, False], ids=["resumed", "full"])
@pytest.mark.parametrize("position", thinned(["last", "first"], ["first"]))
def test_an_edit_is_that_of_a_plain_hook(case, position, replays, monkeypatch):
    model, prompts = case.model, case.prompts.take(4)
    if replays and not model.replays:
        pytest.skip("its blocks cannot be run by themselves")
    monkeypatch.setattr(model, "replays", replays)
    plan = [
        random_edits(model, prompts, site, size=5.0, n_edits=2, seed=seed)
        for seed, site in enumerate(sites_of(model, position))
    ]
    found = {
        (read.entry, int(edit), int(problem)): logits
        for read in edited_read_outs(Session(model, Batching(3)), prompts, plan)
        for edit, problem, logits in zip(read.edits, read.problems, read.logits, strict=True)
    }
    effects = {}
    for layout in prompts.layouts:
        clean = case.read(layout)
        for entry, edits in enumerate(plan):
            moved = edits.changes[1, layout.rows] @ edits.frames[1]
            theirs = added(case, edits.site, layout, moved.float())
            ours = torch.stack([found[entry, 1, row] for row in layout.rows.tolist()])
            effect, size = (theirs - clean).abs().max(), clean.abs().max()
            assert (ours - theirs).abs().max() <= 0.02 * effect + 1e-5 * size
            effects.setdefault(edits.site.layer, []).append(float(effect / size))
    if case.name != "gpt_neo":  # a window of 8 tokens: the first one is too far from the last
        assert min(effects[0]) > 1e-4
    if position == ("first" if model.regresses else "last"):  # where answers are read
        assert min(effects[model.n_layers - 1]) > 1e-4


def silence_query(network, name, layer, head):
    """Set one query head's weights to zero."""
    prefix = (
        "transformer.h" if name == "gpt2" else "gpt_neox.layers" if name == "gpt_neox" else None
    )
    if name == "gpt2":
        weight = network.get_submodule(f"{prefix}.{layer}.attn.c_attn").weight
        width = weight.shape[0] // 4
        weight.data[:, head * width : (head + 1) * width] = 0
    elif name == "gpt_neox":
        weight = network.get_submodule(f"gpt_neox.layers.{layer}.attention.query_key_value").weight
        weight.data.view(4, 3, -1, weight.shape[1])[head, 0] = 0
    else:
        blocks = "model.decoder.layers" if name == "opt" else "model.layers"
        weight = network.get_submodule(f"{blocks}.{layer}.self_attn.q_proj").weight
        weight.data.view(4, -1, weight.shape[1])[head] = 0


def test_a_head_is_one_query_head_also_where_heads_share_keys(case):
    """Without its query a head reads all positions alike; no other head of its layer changes."""
    if case.name in OWN or case.name == "gpt_neo":
        pytest.skip("its heads are those of the other models")
    model, sites = case.model, [Site(0, "z", "last", head) for head in range(4)]
    weights = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    ((_, before), *_) = capture(Session(model), case.prompts, sites)
    try:
        silence_query(model.network, case.name, 0, head=2)
        ((_, after), *_) = capture(Session(model), case.prompts, sites)
    finally:
        model.network.load_state_dict(weights)
    changed = [not torch.equal(before[site], after[site]) for site in sites]
    assert changed == [False, False, True, False]


def test_heads_and_neurons_pass_the_check_of_the_fast_path(case):
    if case.model.replays:
        sites = sites_of(case.model, "last")
        assert check_fast_path(case.model, case.prompts, sites) < 1e-4
