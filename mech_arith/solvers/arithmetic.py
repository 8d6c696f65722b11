"""The solvers trained here: a decoder that writes its answer and an encoder that regresses it."""

import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mech_arith.digests import json_digest
from mech_arith.errors import UserError, unknown
from mech_arith.paths import checkpoints_dir
from mech_arith.problems import ProblemSet
from mech_arith.solvers.attention import NOTHING, KeysValues, Past
from mech_arith.solvers.base import EVERY, NextNorm, Place, Tap, untouched
from mech_arith.solvers.blocks import post_norm_block, pre_norm_block
from mech_arith.solvers.checkpoints import Card, read_card, read_weights, write_checkpoint
from mech_arith.solvers.editable import EditableSolver, sharing_tensors
from mech_arith.solvers.networks import DecoderShape, EncoderShape, Norm
from mech_arith.solvers.norms import Normalises, StreamNorms, next_before, next_behind
from mech_arith.solvers.prompts import Prompts
from mech_arith.solvers.tokens import (
    ARITHMETIC,
    CLS,
    ENCODER,
    PAD,
    AnswerFormat,
    Vocabulary,
    blanks_before,
    encode_expression,
    layout,
)
from mech_arith.templates import spans_to_tokens

if TYPE_CHECKING:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

Hook = tuple[str, Callable[..., Any]]
"""A name of the bridge's, and what to call there."""

HOOKS = {
    "resid_pre": "hook_in",
    "z": "attn.o.hook_in",
    "attn_out": "attn.o.hook_out",
    "resid_post": "hook_out",
}


def shipped_solvers() -> list[str]:
    """Names of the solvers inside the package."""
    return sorted(path.parent.name for path in checkpoints_dir().glob("*/card.json"))


def solver_directory(name: str, directory: Path | None) -> Path:
    """Where a solver's files are: those of a shipped one, by its name, if no directory is given.

    Raises:
        UserError: no such solver.
    """
    if directory is not None:
        return directory
    if not (checkpoints_dir() / name).is_dir():
        raise unknown("solver", name, shipped_solvers())
    return checkpoints_dir() / name


def load_arithmetic(
    name: str, *, directory: Path | None = None, device: str = "cpu"
) -> "ArithmeticDecoder | ArithmeticEncoder":
    """A shipped solver by name, or one trained here by its directory.

    Raises:
        UserError: no such solver, or its files are damaged.
    """
    directory = solver_directory(name, directory)
    card = read_card(directory)
    kinds = {"decoder": ArithmeticDecoder, "encoder": _encoder}
    if card.kind not in kinds:
        raise unknown("kind of solver", card.kind, kinds)
    weights = read_weights(directory, card)
    try:
        return kinds[card.kind](card, weights, torch.device(device))
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a card that fits its weights in {directory}, got {reason}; reinstall or "
            "train the solver"
        ) from None


@dataclass(frozen=True)
class _Frame:
    """Special tokens around a prompt: blanks or a class token before, `=` after."""

    before: tuple[str, ...]
    after: tuple[str, ...]


class _ArithmeticSolver(EditableSolver):
    """What the two have in common: cards, fixed-width prompts, a bridge."""

    vocabulary: Vocabulary
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

    def _adopt(self, bridge: "TransformerBridge") -> None:
        self.bridge = bridge.eval()
        if self.device.type != "cpu":
            self.bridge.to(self.device)
        self.bridge.requires_grad_(False)

    def projection(self, layer: int, point: str) -> nn.Module:
        block = self.bridge.blocks[layer]
        return (block.mlp.out if point == "mlp_out" else block.attn.o).original_component

    def sharing(self) -> EditableSolver:
        solver = copy.copy(self)
        solver.bridge = sharing_tensors(self.bridge, self.bridge)
        return solver

    def save(self, directory: Path, *, edited: dict[str, Any]) -> None:
        # The bridge has put modules of its own around those of the network.
        weights = {
            name.replace("._original_component", ""): tensor
            for name, tensor in self.bridge.named_parameters()
        }
        card = replace(self.card, name=f"{self.name}_edited", held_out={})
        card = replace(card, facts=self.card.facts | {"edited": edited})
        write_checkpoint(directory, weights, card, dtype=torch.float32)

    def _frame(self, length: int) -> _Frame:
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


class _PreNormSolver(_ArithmeticSolver):
    """A native network of TransformerLens', whose blocks normalise before attention and MLP."""

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
        norms = _stream_norms(self.bridge, final=self.bridge.ln_final)
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


class ArithmeticDecoder(_PreNormSolver):
    """Writes sign and digits after `=`, greedily."""

    vocabulary = ARITHMETIC

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        super().__init__(card, device)
        shape = DecoderShape(**card.facts["shape"])
        self.n_layers, self.n_heads, self.d_model = shape.n_layers, shape.n_heads, shape.d_model
        self.width_out = shape.d_vocab
        self.prompt_length = int(card.facts["prompt_length"])
        self.reader = self.answer_format = AnswerFormat.named(**card.facts["answer"])
        network = shape.network()
        network.load_state_dict(weights)
        self._adopt_native(network, shape.bridge_config())

    def _frame(self, length: int) -> _Frame:
        blanks = blanks_before(length, self.prompt_length, reader=self.name)
        return _Frame((PAD,) * blanks, ("=",))

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        return self.bridge.unembed(self.bridge.ln_final(resid)).float()

    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        return read[:, -last:].float()


class ArithmeticEncoder(_ArithmeticSolver):
    """Regresses the answer from the pooled [CLS]."""

    causal = False
    width_out = 1
    vocabulary = ENCODER

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        super().__init__(card, device)
        shape = EncoderShape(**card.facts["shape"])
        self.n_layers, self.n_heads, self.d_model = shape.n_layers, shape.n_heads, shape.d_model
        self.n_ctx = shape.n_ctx
        self.scale = float(card.facts["scale"])
        network = shape.network()
        network.load_state_dict(weights)
        self._adopt_network(network, shape)

    def _adopt_network(self, network: Any, shape: EncoderShape) -> None:
        from transformer_lens.model_bridge.sources._bridge_builder import (
            build_bridge_from_module,
        )

        self._adopt(
            build_bridge_from_module(
                network,
                "BertForMaskedLM",
                hf_config=shape.bert_config(),
                model_name=self.name,
                post_adapter_hook=_regression_head,
            )
        )

    def _frame(self, length: int) -> _Frame:
        if length + 1 > self.n_ctx:
            raise UserError(
                f"expected prompts of at most {self.n_ctx} tokens for {self.name}, got "
                f"{length + 1}; choose a shorter template"
            )
        return _Frame((CLS,), ())

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        return self.bridge.embed_ln(
            self.bridge.embed(tokens)
            + self.bridge.token_type_embed(torch.zeros_like(tokens))
            + self.bridge.pos_embed(positions)
        )

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
        return post_norm_block(block, resid_pre, n_heads=self.n_heads, tap=tap, at=at)

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        return self.bridge.unembed(self.bridge.pooler(resid))[:, None].float() * self.scale

    def next_norm(self, layer: int, point: str) -> NextNorm | None:
        return next_behind(_stream_norms(self.bridge), layer, point, n_layers=self.n_layers)

    def hook_name(self, layer: int, point: str) -> str:
        name = {**HOOKS, "resid_mid": "ln1.hook_out", "mlp_out": "mlp.out.hook_out"}[point]
        return f"blocks.{layer}.{name}"

    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        return read[:, None].float() * self.scale


class PreNormEncoder(_PreNormSolver, ArithmeticEncoder):
    """The same with blocks that normalise before attention and MLP."""

    def _adopt_network(self, network: Any, shape: EncoderShape) -> None:
        self._adopt_native(network, shape.bridge_config(), _pooled_head)

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        pooled = torch.tanh(self.bridge.pooler(self.bridge.ln_final(resid)[:, 0]))
        return self.bridge.unembed(pooled)[:, None].float() * self.scale


def _encoder(card: Card, weights: dict[str, Tensor], device: torch.device) -> ArithmeticEncoder:
    """An encoder of the card's norm."""
    shape = EncoderShape(**card.facts["shape"])
    return (PreNormEncoder if shape.norm == Norm.PRE else ArithmeticEncoder)(card, weights, device)


def _stream_norms(bridge: "TransformerBridge", *, final: Any = None) -> StreamNorms:
    """The LayerNorms of a bridge's blocks, which are all alike, and the one behind them."""
    block = bridge.blocks[0]
    attention, mlp, last = (
        None if norm is None else Normalises(centred=True, eps=norm.original_component.eps)
        for norm in (block.ln1, block.ln2, final)
    )
    return StreamNorms(attention, mlp, last)


def _flat(tap: Callable[[Tensor], Tensor], activation: Tensor) -> Tensor:
    """The tap's result in the activation's own shape: BERT's z has an axis for the heads."""
    return tap(activation.flatten(2)).view_as(activation)


def _regression_head(adapter: Any) -> None:
    """Tell the BERT adapter that a regression head stands where it expects the masked-token one."""
    from transformer_lens.model_bridge.generalized_components import LinearBridge

    del adapter.component_mapping["mlm_head"], adapter.component_mapping["ln_final"]
    adapter.component_mapping["unembed"] = LinearBridge(name="classifier")


def _pooled_head(adapter: Any) -> None:
    """Tell the native adapter that the head is BERT's two layers."""
    from transformer_lens.model_bridge.generalized_components import (
        LinearBridge,
        UnembeddingBridge,
    )

    adapter.component_mapping["pooler"] = LinearBridge(name="head.dense")
    adapter.component_mapping["unembed"] = UnembeddingBridge(name="head.classifier")
