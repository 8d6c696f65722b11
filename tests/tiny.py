"""Small models for the tests: random weights, and one whose workings are known by construction."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.directions.random import random_frame
from mech_arith.engine.run import SiteEdits
from mech_arith.engine.sites import Site
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.models.arithmetic.encoder import ArithmeticEncoder, PreNormEncoder
from mech_arith.models.arithmetic.networks import DecoderShape, EncoderShape
from mech_arith.models.arithmetic.tokens import ARITHMETIC, ENCODER
from mech_arith.models.attention import NOTHING, KeysValues, Past
from mech_arith.models.base import EVERY, Model, Place, Tap, untouched
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

ANSWER = {"width": 4, "sign": "first", "digits": "units_first", "negatives": "magnitude"}


def tiny_card(kind: str, shape: object, **facts: object) -> Card:
    """A card for a model that was never trained."""
    return Card(
        name=f"tiny_{kind}",
        kind=kind,
        templates=("a-(b-c)", "a-b"),
        operand_min=1,
        operand_max=999,
        facts={"shape": asdict(shape), **facts},
        held_out={},
        training={},
        digest="0" * 64,
    )


def tiny_decoder(seed: int = 0, n_layers: int = 3) -> ArithmeticDecoder:
    """A decoder with random weights; what it writes is rarely a number."""
    shape = DecoderShape(
        n_layers=n_layers,
        d_model=32,
        n_heads=4,
        d_mlp=64,
        n_ctx=19,
        d_vocab=len(ARITHMETIC.tokens),
    )
    weights = shape.network(seed=seed).state_dict()
    card = tiny_card("decoder", shape, answer=ANSWER, prompt_length=14, tolerance=0.0)
    return ArithmeticDecoder(card, weights, torch.device("cpu"))


def tiny_encoder(
    seed: int = 0, n_layers: int = 3, norm: str = "post", size: float = 6.0
) -> ArithmeticEncoder:
    """An encoder with random weights, so much enlarged that its answers differ."""
    shape = EncoderShape(
        n_layers=n_layers,
        d_model=24,
        n_heads=3,
        d_mlp=48,
        n_ctx=32,
        d_vocab=len(ENCODER.tokens),
        norm=norm,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {
            name: size * tensor if tensor.dim() == 2 else tensor
            for name, tensor in shape.network().state_dict().items()
        }
    card = tiny_card("encoder", shape, scale=1000.0, tolerance=5.0)
    kind = PreNormEncoder if norm == "pre" else ArithmeticEncoder
    return kind(card, weights, torch.device("cpu"))


def tiny_pre_norm_encoder(seed: int = 0, n_layers: int = 3) -> ArithmeticEncoder:
    """The same with blocks that normalise before attention and MLP."""
    return tiny_encoder(seed, n_layers, norm="pre")


class PlantedModel(Model):
    """Computes a-(b-c) in a way that the tests know.

    Block 0 writes b-c along `used` and a along `unused`, both at the last position. Block 1 writes
    the answer along `answer_at`, from the coordinate on `used` and from a as the prompt has it.
    Block 2 does nothing. The direction `unused` is written and never read.
    """

    name, digest = "planted", "0" * 64
    n_layers, n_heads, d_model = 3, 1, 16
    tolerance, width_out, causal = 0.5, 1, False
    answers_at = slice(-1, None)
    trained_templates, trained_operands = ("a-(b-c)",), (1, 999)
    device = torch.device("cpu")

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(self.d_model, self.d_model, generator=generator)
        basis = torch.linalg.qr(random).Q
        self.operand, self.used, self.unused, self.answer_at = basis[:4]

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        stacked = np.stack([problems.operands[name] for name in "abc"], axis=1)
        spans = {"a": (0,), "b": (1,), "c": (2,), "b-c": (1, 2), "a-(b-c)": (0, 1, 2)}
        tokens = torch.from_numpy(np.concatenate([stacked, 0 * stacked[:, :1]], axis=1))
        return Prompts.uniform(tokens, ("a", "b", "c", "="), spans)

    def embed(self, tokens: Int64[Tensor, "n pos"], *, start: int = 0) -> Float[Tensor, "n pos d"]:
        return tokens[..., None].float() * self.operand

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "n pos d"],
        *,
        start: int = 0,
        past: Past = NOTHING,
        tap: Tap = untouched,
        at: slice = EVERY,
    ) -> tuple[Float[Tensor, "n at d"], KeysValues]:
        written = torch.zeros_like(resid_pre)
        a, b, c = (resid_pre[:, place] @ self.operand for place in range(3))
        if layer == 0:
            written[:, -1] = torch.outer(b - c, self.used) + torch.outer(3 * a, self.unused)
        if layer == 1:
            written[:, -1] = torch.outer(a - resid_pre[:, -1] @ self.used, self.answer_at)
        nothing = torch.zeros(len(resid_pre), 1, resid_pre.shape[1], 1)
        resid_post = tap("resid_post", resid_pre + tap("mlp_out", written))
        return resid_post[:, at], KeysValues(nothing, nothing)

    def read_out(self, resid: Float[Tensor, "n at d"]) -> Float[Tensor, "n at out"]:
        return (resid[:, -1:] @ self.answer_at)[..., None]

    def full_pass(
        self,
        tokens: Int64[Tensor, "n pos"],
        taps: Mapping[Place, Callable[[Tensor], Tensor]],
        *,
        last: int = 1,
    ) -> Float[Tensor, "n last out"]:
        resid = self.embed(tokens)
        for layer in range(self.n_layers):

            def tap(point: str, activation: Tensor, layer: int = layer) -> Tensor:
                return taps.get((layer, point), lambda same: same)(activation)

            resid, _ = self.run_block(layer, tap("resid_pre", resid), tap=tap)
        return self.read_out(resid)


class MassiveModel(PlantedModel):
    """Computes the same, but block 1 also writes a hundred times a along `unused`."""

    name = "massive"

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "n pos d"],
        *,
        tap: Tap = untouched,
        **where: Any,
    ) -> tuple[Float[Tensor, "n at d"], KeysValues]:
        def more(point: str, activation: Tensor) -> Tensor:
            if layer == 1 and point == "mlp_out":
                activation = activation.clone()
                a = resid_pre[:, 0] @ self.operand
                activation[:, -1] += torch.outer(100 * a, self.unused)
            return tap(point, activation)

        return super().run_block(layer, resid_pre, tap=more, **where)


def random_edits(
    model: Model,
    prompts: Prompts,
    site: Site,
    *,
    size: float,
    n_edits: int,
    seed: int,
    rank: int = 1,
) -> SiteEdits:
    """Random subspaces, and random distances of about `size` along each of their directions."""
    generator = torch.Generator().manual_seed(seed)
    width = len(prompts.positions(site.position)[0]) * site.width(model)
    frames = [random_frame(rank, width, generator=generator) for _ in range(n_edits)]
    changes = torch.randn(n_edits, len(prompts), rank, generator=generator, dtype=torch.float64)
    return SiteEdits(site, torch.stack(frames), size * changes)
