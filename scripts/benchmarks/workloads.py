"""The sweeps that are timed: a model, prompts of equal length, and edits at a few sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mech_arith.directions.methods.pca import PCAFitter
from mech_arith.models.base import Model
from mech_arith.models.language.loading import LoadedModel, load_pretrained
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Parts:
    """Where a module keeps what a residual stream passes through."""

    blocks: str
    norm: str
    head: str
    blocks_return_tuples: bool


LLAMA = Parts("model.layers", "model.norm", "lm_head", blocks_return_tuples=False)
NATIVE = Parts("layers", "ln_out", "head", blocks_return_tuples=True)


Within = tuple[Float[Tensor, "edits k width"], Float[Tensor, "edits n k"]]
"""Orthonormal directions of each edit, and how far it moves each problem along them."""


@dataclass(frozen=True)
class SiteEdits:
    """Edits of `resid_post` of one layer, at all positions from `first` to the last."""

    layer: int
    first: int
    d_model: int
    directions: Float[Tensor, "edits width"]
    """One unit vector per edit; the positions' parts stand side by side."""
    changes: Float[Tensor, "edits n"]
    """How far each edit moves each problem along its direction; never zero."""

    def delta(self, edit: int) -> Float[Tensor, "n positions d"]:
        """What one edit adds to the residual stream of every problem."""
        moved = torch.outer(self.changes[edit], self.directions[edit])
        return moved.unflatten(1, (self.positions, -1))

    def make(self, edit: int, activation: Float[Tensor, "n positions d"]) -> None:
        """Make one edit of every problem, in place."""
        activation += self.delta(edit)

    def within(self) -> Within:
        """The directions, and how far each edit moves each problem."""
        return self.directions[:, None], self.changes[..., None]

    def __len__(self) -> int:
        """Edits of each problem."""
        return len(self.changes)

    @property
    def positions(self) -> int:
        """How many positions are edited."""
        return self.directions.shape[1] // self.d_model


@dataclass(frozen=True)
class SiteInterchanges:
    """Interchanges within subspaces of one rank at the last position, behind one layer."""

    layer: int
    first: int
    """The last position."""
    frames: Float[Tensor, "edits k d"]
    """Orthonormal directions of each edit's subspace."""
    clean: Float[Tensor, "n d"]
    """What the problems have at the site."""
    sources: Float[Tensor, "edits n d"]
    """What the problems have there that each edit takes from."""
    positions = 1

    def make(self, edit: int, activation: Float[Tensor, "n one d"]) -> None:
        """Make one edit of every problem, in place."""
        frame = self.frames[edit]
        activation += (self.sources[edit][:, None] - activation) @ frame.mT @ frame

    def within(self) -> Within:
        """The subspaces, and how far each edit moves each problem."""
        return self.frames, (self.sources - self.clean) @ self.frames.mT

    def __len__(self) -> int:
        """Edits of each problem."""
        return len(self.frames)


@dataclass(frozen=True)
class Workload:
    """One sweep. An edit is one change at one site of one problem."""

    name: str
    title: str
    model: Model
    """The model as the engine runs it."""
    module: nn.Module
    """The model as plain PyTorch, for tools that hook modules."""
    bridge: "TransformerBridge"
    """The same weights behind TransformerLens, in a module of its own."""
    parts: Parts
    options: dict[str, Any]
    """Keyword arguments with which the model does the least that is asked for here."""
    tokens: Int64[Tensor, "n pos"]
    """Prompts without padding."""
    prefix: int
    """How many first tokens all prompts share."""
    sites: tuple[SiteEdits, ...] | tuple[SiteInterchanges, ...]
    bar: float
    """How many times faster than the fastest peer is asked for."""
    share_bar: float | None = None
    """Which share of the bound is asked for."""

    @property
    def n(self) -> int:
        """Problems."""
        return len(self.tokens)

    @property
    def passes(self) -> list[tuple[int, int]]:
        """(site, edit) for every edit, sites taking turns."""
        by_edit = [
            (edit, site) for site, edits in enumerate(self.sites) for edit in range(len(edits))
        ]
        return [(site, edit) for edit, site in sorted(by_edit)]

    @property
    def blocks(self) -> nn.ModuleList:
        """The module's blocks."""
        blocks = self.module.get_submodule(self.parts.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def unembedding(self) -> Float[Tensor, "vocab d"]:
        """The matrix that makes logits."""
        weight = self.module.get_submodule(self.parts.head).weight
        assert isinstance(weight, Tensor)
        return weight


def scaling_edits(
    module: nn.Module,
    parts: Parts,
    tokens: Int64[Tensor, "n pos"],
    *,
    layers: Sequence[int],
    first: int,
    n_components: int,
    n_strengths: int,
) -> tuple[SiteEdits, ...]:
    """Edits that scale the principal components of these very problems, layer by layer."""
    sites = []
    for layer in layers:
        block = module.get_submodule(f"{parts.blocks}.{layer}")
        activation = _output_of(block, module, tokens)[:, first:]
        fitter = PCAFitter(n_components)
        fitter.update(activation.flatten(1))
        components = fitter.fit()
        assert len(components.directions) == n_components
        coordinates = components.project(activation.flatten(1)).mT
        factors = torch.tensor(factors_less_one(n_strengths), dtype=torch.float64)
        sites.append(
            SiteEdits(
                layer,
                first,
                activation.shape[2],
                components.directions.repeat_interleave(n_strengths, 0).float(),
                (coordinates[:, None] * factors[:, None]).flatten(0, 1).float(),
            )
        )
    return tuple(sites)


def interchanges(
    module: nn.Module,
    parts: Parts,
    tokens: Int64[Tensor, "n pos"],
    *,
    layers: Sequence[int],
    ranks: Sequence[int],
    n_random: int,
    n_sources: int,
) -> tuple[SiteInterchanges, ...]:
    """Interchanges with other problems, rank by rank, layer by layer.

    Of each rank the first principal components of these very problems, behind the last of which
    come random directions, and random frames.
    """
    random = torch.Generator().manual_seed(0)
    clean = {
        layer: _output_of(module.get_submodule(f"{parts.blocks}.{layer}"), module, tokens)[:, -1]
        for layer in layers
    }
    sites = []
    for rank in ranks:
        for layer, activation in clean.items():
            principal = (activation - activation.mean(0)).svd().V[:, : len(activation) - 1]
            drawn = torch.randn(1 + n_random, len(principal), rank, generator=random)
            spans = [torch.cat([principal, drawn[0]], dim=1), *drawn[1:]]
            frames = torch.stack([torch.linalg.qr(span).Q[:, :rank].mT for span in spans])
            others = torch.stack([activation.roll(1 + turn, 0) for turn in range(n_sources)])
            sites.append(
                SiteInterchanges(
                    layer,
                    tokens.shape[1] - 1,
                    frames.repeat_interleave(n_sources, 0),
                    activation,
                    others.repeat(len(frames), 1, 1),
                )
            )
    return tuple(sites)


def factors_less_one(n: int) -> list[float]:
    """Strengths r of the edit that scales a coordinate, as r - 1: from -3 to 3, never zero.

    Strength 1 changes nothing: a sweep may leave it out, so it would flatter whoever does.
    """
    below = n // 2
    steps = [*range(-below, 0), *range(1, n - below + 1)]
    return [3 * step / (n - below) for step in steps]


@torch.inference_mode()
def _output_of(
    block: nn.Module, module: nn.Module, tokens: Int64[Tensor, "n pos"]
) -> Float[Tensor, "n pos d"]:
    """A block's output on the clean pass."""
    seen = []
    handle = block.register_forward_hook(lambda _module, _args, output: seen.append(output))
    try:
        module(tokens)
    finally:
        handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


LANGUAGE_MODEL = {
    "A": ("last position", 90, 0.7),
    "B": ("all query positions", 25, None),
    "D": ("last position, interchange in subspaces of ranks 1 to 32", 20, None),
}
"""What is edited; the bars: times as fast as the fastest peer, and share of the bound."""


def language_model(name: str, directory: Path) -> Workload:
    """Workload A, B or D: a Hugging Face Llama on sums after eight examples."""
    from transformer_lens.model_bridge import TransformerBridge

    loaded, for_bridge = (load(directory) for _ in range(2))
    # A model of its own: a bridge changes what it wraps.
    bridge = TransformerBridge.boot_transformers(
        str(directory), hf_model=for_bridge.model, tokenizer=for_bridge.tokenizer, device="cpu"
    )
    prompts = few_shot_sums(n=24, shots=8, seed=0)
    rows = loaded.tokenizer(prompts)["input_ids"]
    assert len({len(row) for row in rows}) == 1
    tokens = torch.tensor(rows)
    prefix = int((tokens == tokens[0]).all(0).int().cumprod(0).sum())
    if name == "D":
        sites = interchanges(
            loaded.model,
            LLAMA,
            tokens,
            layers=range(4, 28, 4),
            ranks=(1, 2, 4, 8, 16, 32),
            n_random=3,
            n_sources=2,
        )
    else:
        sites = scaling_edits(
            loaded.model,
            LLAMA,
            tokens,
            layers=(4, 14, 24),
            first=prefix if name == "B" else tokens.shape[1] - 1,
            n_components=5,
            n_strengths=9,
        )
    what, bar, share_bar = LANGUAGE_MODEL[name]
    return Workload(
        name=name,
        title=f"SmolLM2-135M, 8 shots, {what}",
        model=PretrainedModel(loaded, Prompting("comma")),
        module=loaded.model,
        bridge=bridge.requires_grad_(False),
        parts=LLAMA,
        options={"use_cache": False, "logits_to_keep": 1},
        tokens=tokens,
        prefix=prefix,
        sites=sites,
        bar=bar,
        share_bar=share_bar,
    )


def load(directory: Path) -> LoadedModel:
    """A language model on the CPU, in float32."""
    return load_pretrained(
        directory.name,
        path=directory,
        hub=None,
        revision=None,
        dtype="float32",
        device="cpu",
        device_map=None,
    )


def few_shot_sums(*, n: int, shots: int, seed: int) -> list[str]:
    """Prompts `3 + 5 = 8, ..., 7 + 2 = ` with one-digit operands, the same examples in each."""
    drawn = np.random.default_rng(seed).permutation(100)[: n + shots]
    pairs = [divmod(int(number), 10) for number in drawn]
    examples = "".join(f"{a} + {b} = {a + b}, " for a, b in pairs[:shots])
    return [f"{examples}{a} + {b} = " for a, b in pairs[shots:]]


def shipped_decoder() -> Workload:
    """Workload C: the decoder that the package ships, on the paper's expression."""
    from mech_arith.common.paths import checkpoints_dir
    from mech_arith.models.arithmetic.checkpoints import read_card, read_weights
    from mech_arith.models.arithmetic.loading import load_arithmetic
    from mech_arith.models.arithmetic.networks import DecoderShape
    from mech_arith.problems import draw
    from mech_arith.problems.templates import build_template

    model = load_arithmetic("arith_decoder")
    directory = checkpoints_dir() / "arith_decoder"
    card = read_card(directory)
    module = DecoderShape(**card.facts["shape"]).network().eval().requires_grad_(False)
    module.load_state_dict(read_weights(directory, card))
    template = build_template("nested_subtraction", "a-(b-c)")
    problems = draw(template, n=500, ranges=dict.fromkeys("abc", (1, 999)), seed=0)
    (layout,) = model.encode(problems).layouts
    sites = scaling_edits(
        module,
        NATIVE,
        layout.tokens,
        layers=range(model.n_layers),
        first=0,
        n_components=10,
        n_strengths=21,
    )
    return Workload(
        name="C",
        title="shipped decoder, all layers, all positions",
        model=model,
        module=module,
        bridge=model.bridge,
        parts=NATIVE,
        options={},
        tokens=layout.tokens,
        prefix=0,
        sites=sites,
        bar=5,
        share_bar=0.7,
    )
