"""What the models trained here have in common: cards, prompts of fixed width, a bridge."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mech_arith.common.digests import json_digest
from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.blocks import plain, pre_norm_block
from mech_arith.models.arithmetic.checkpoints import Card, write_checkpoint
from mech_arith.models.arithmetic.networks import DecoderShape, EncoderShape
from mech_arith.models.arithmetic.tokens import Vocabulary, encode_expression, layout
from mech_arith.models.attention import NOTHING, KeysValues, Past
from mech_arith.models.base import EVERY, Model, NextNorm, Place, Tap, untouched
from mech_arith.models.editable import EditableModel, sharing_tensors
from mech_arith.models.language.norms import Normalises, StreamNorms, next_before
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.templates import spans_to_tokens

if TYPE_CHECKING:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

Hook = tuple[str, Callable[..., Any]]
"""A name of the bridge's, and what to call there."""

HOOKS = {
    "resid_pre": "hook_in",
    "z": "attn.o.hook_in",
    "attn_out": "attn.o.hook_out",
    "mlp_post": "mlp.out.hook_in",
    "resid_post": "hook_out",
}


@dataclass(frozen=True)
class Frame:
    """Special tokens around a prompt: blanks or a class token before, `=` after."""

    before: tuple[str, ...]
    after: tuple[str, ...]


class ArithmeticModel(EditableModel):
    """What the two have in common: cards, fixed-width prompts, a bridge."""

    vocabulary: Vocabulary
    shape: DecoderShape | EncoderShape
    shapes: type[DecoderShape] | type[EncoderShape]
    """What its shape is one of."""
    bridge: "TransformerBridge"
    trained_operands: tuple[int, int]

    def __init__(self, card: Card, device: torch.device) -> None:
        self.card = card
        self.name = card.name
        self.digest = card.digest
        self.settings_digest = json_digest(card.facts)
        self.tolerance = float(card.facts["tolerance"])
        self.trained_templates = card.templates
        self.trained_operands = (card.operand_min, card.operand_max)
        self.trained_with = card.settings
        self.device = device
        shape = self.shape = self.shapes(**card.facts["shape"])
        self.n_layers, self.n_heads, self.d_model = shape.n_layers, shape.n_heads, shape.d_model

    def _adopt(self, bridge: "TransformerBridge") -> None:
        self.bridge = bridge.eval()
        if self.device.type != "cpu":
            self.bridge.to(self.device)
        self.bridge.requires_grad_(False)

    def untrained(self, *, seed: int) -> Model:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights = self.shape.network().state_dict()
        card = replace(self.card, name=f"{self.name}_untrained", digest=f"untrained, seed {seed}")
        kind: Any = type(self)
        twin = kind(card, weights, self.device)
        twin.replays = self.replays
        return twin

    def width_at(self, layer: int, point: str) -> int:
        return self.shape.d_mlp if point == "mlp_post" else self.d_model

    def projection(self, layer: int, point: str) -> nn.Module:
        block = self.bridge.blocks[layer]
        of_mlp = point in ("mlp_post", "mlp_out")
        return (block.mlp.out if of_mlp else block.attn.o).original_component

    def sharing(self) -> EditableModel:
        model = copy.copy(self)
        model.bridge = sharing_tensors(self.bridge, self.bridge)
        return model

    def save(self, directory: Path, *, edited: dict[str, Any]) -> None:
        # The bridge has put modules of its own around those of the network.
        weights = {
            name.replace("._original_component", ""): tensor
            for name, tensor in self.bridge.named_parameters()
        }
        card = replace(self.card, name=f"{self.name}_edited", held_out={})
        card = replace(card, facts=self.card.facts | {"edited": edited})
        write_checkpoint(directory, weights, card, dtype=torch.float32)

    def _frame(self, length: int) -> Frame:
        """The special tokens around `length` characters."""
        raise NotImplementedError

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        expression = problems.template.expression
        if problems.template.wording != "{expression}":
            raise UserError(
                f"expected a symbolic template for {self.name}, got the worded one "
                f"{problems.template.name!r}; choose wording '{{expression}}' or a language model"
            )
        largest = max(int(np.abs(x).max()) for x in problems.operands.values())
        width = max(digits, len(str(self.trained_operands[1])), len(str(largest)))
        characters = encode_expression(
            expression, problems.operands, vocabulary=self.vocabulary, width=width
        )
        frame = self._frame(characters.shape[1])
        before, after = (
            torch.tensor([self.vocabulary.id(token) for token in side], dtype=torch.int64)
            for side in (frame.before, frame.after)
        )
        n = len(characters)
        tokens = torch.cat([before.expand(n, -1), characters, after.expand(n, -1)], dim=1)

        prompt = layout(expression, width)
        labels = list(prompt.text)
        for operand in expression.operands:
            for start, end in prompt.spans[operand]:
                labels[start:end] = [f"{operand}·{10**power}" for power in reversed(range(width))]
        offsets = [(0, 0)] * len(frame.before) + [(i, i + 1) for i in range(len(prompt.text))]
        spans = spans_to_tokens(prompt.spans, offsets)
        return Prompts.uniform(
            tokens,
            labels=(*frame.before, *labels, *frame.after),
            spans={value: tuple(indices) for value, indices in spans.items()},
        )

    def full_pass(
        self,
        tokens: Int64[Tensor, "rows pos"],
        taps: Mapping[Place, Callable[[Tensor], Tensor]],
        *,
        last: int = 1,
    ) -> Float[Tensor, "rows last out"]:
        hooks: list[Any] = [hook for place, tap in taps.items() for hook in self._hooks(place, tap)]
        with torch.inference_mode():
            read = self.bridge.run_with_hooks(tokens.to(self.device), fwd_hooks=hooks)
        return self._of_bridge(read, last)

    def _hooks(self, place: Place, tap: Callable[[Tensor], Tensor]) -> list[Hook]:
        """The bridge's hooks that tap one place."""
        layer, point = place
        return [(self.hook_name(layer, point), lambda activation, hook: _flat(tap, activation))]

    @abstractmethod
    def hook_name(self, layer: int, point: str) -> str:
        """The name under which the TransformerLens bridge reads a point."""

    @abstractmethod
    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        """The read-outs in what the bridge's forward pass gives."""


class PreNormModel(ArithmeticModel):
    """A native network of TransformerLens', whose blocks normalise before attention and MLP.

    Those of a shape with `norm: none` have the identity there.
    """

    def _adopt_native(
        self,
        network: Any,
        config: "TransformerBridgeConfig",
        post_adapter_hook: Callable[[Any], None] | None = None,
    ) -> None:
        from transformer_lens.model_bridge.sources._bridge_builder import (
            build_bridge_from_module,
        )

        self._adopt(
            build_bridge_from_module(
                network,
                "TransformerLensNative",
                tl_config=config,
                model_name=self.name,
                post_adapter_hook=post_adapter_hook,
            )
        )

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.bridge.embed(tokens) + self.bridge.pos_embed(positions[None])

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "rows new d"],
        *,
        start: int = 0,
        past: Past = NOTHING,
        tap: Tap = untouched,
        at: slice = EVERY,
    ) -> tuple[Float[Tensor, "rows at d"], KeysValues]:
        block = self.bridge.blocks[layer]
        return pre_norm_block(
            block,
            resid_pre,
            n_heads=self.n_heads,
            causal=self.causal,
            past=past,
            tap=tap,
            at=at,
        )

    def next_norm(self, layer: int, point: str) -> NextNorm | None:
        norms = stream_norms(self.bridge, final=self.bridge.ln_final)
        return next_before(norms, layer, point, n_layers=self.n_layers)

    def hook_name(self, layer: int, point: str) -> str:
        """The name under which the TransformerLens bridge reads a point.

        Its `resid_mid` is the input of the second norm: a hook that edits there does not reach the
        residual stream, as an edit of `resid_mid` here does.
        """
        name = {**HOOKS, "resid_mid": "ln2.hook_in", "mlp_out": "mlp.hook_out"}[point]
        return f"blocks.{layer}.{name}"

    def _hooks(self, place: Place, tap: Callable[[Tensor], Tensor]) -> list[Hook]:
        layer, point = place
        if point != "resid_mid":
            return super()._hooks(place, tap)
        before: list[Tensor] = []

        def through_attention(attn_out: Tensor, hook: Any) -> Tensor:
            resid_mid = before.pop() + attn_out
            return attn_out + (tap(resid_mid) - resid_mid)

        return [
            (self.hook_name(layer, "resid_pre"), lambda resid, hook: before.append(resid)),
            (self.hook_name(layer, "attn_out"), through_attention),
        ]


def stream_norms(bridge: "TransformerBridge", *, final: Any = None) -> StreamNorms:
    """The LayerNorms of a bridge's blocks, which are all alike, and the one behind them."""
    block = bridge.blocks[0]
    return StreamNorms(*(_layer_norm(norm) for norm in (block.ln1, block.ln2, final)))


def _layer_norm(norm: Any) -> Normalises | None:
    """A norm of the bridge's; None if there is none, or the identity in its place."""
    if norm is None or isinstance(plain(norm), nn.Identity):
        return None
    return Normalises(centred=True, eps=plain(norm).eps)


def _flat(tap: Callable[[Tensor], Tensor], activation: Tensor) -> Tensor:
    """The tap's result in the activation's own shape: BERT's z has an axis for the heads."""
    return tap(activation.flatten(2)).view_as(activation)
