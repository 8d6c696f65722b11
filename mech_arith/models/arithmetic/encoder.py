"""The models that regress their answer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.blocks import post_norm_block
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.digits import (
    HOOKS,
    ArithmeticModel,
    Frame,
    PreNormModel,
    stream_norms,
)
from mech_arith.models.arithmetic.networks import EncoderShape, Norm
from mech_arith.models.arithmetic.tokens import CLS, ENCODER
from mech_arith.models.attention import NOTHING, KeysValues, Past
from mech_arith.models.base import EVERY, NextNorm, Tap, untouched
from mech_arith.models.language.norms import next_behind


class ArithmeticEncoder(ArithmeticModel):
    """Regresses the answer from the pooled [CLS]."""

    causal = False
    width_out = 1
    vocabulary = ENCODER
    shape: EncoderShape
    shapes = EncoderShape

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        super().__init__(card, device)
        self.n_ctx = self.shape.n_ctx
        self.scale = float(card.facts["scale"])
        network = self.shape.network()
        network.load_state_dict(weights)
        self._adopt_network(network, self.shape)

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

    def prompt_text(self, tokens: Sequence[int]) -> str:
        return "".join(self.vocabulary.tokens[token] for token in tokens)

    def _frame(self, length: int) -> Frame:
        if length + 1 > self.n_ctx:
            raise UserError(
                f"expected prompts of at most {self.n_ctx} tokens for {self.name}, got "
                f"{length + 1}; choose a shorter template"
            )
        return Frame((CLS,), ())

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
        return next_behind(stream_norms(self.bridge), layer, point, n_layers=self.n_layers)

    def hook_name(self, layer: int, point: str) -> str:
        name = {**HOOKS, "resid_mid": "ln1.hook_out", "mlp_out": "mlp.out.hook_out"}[point]
        return f"blocks.{layer}.{name}"

    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        return read[:, None].float() * self.scale


class PreNormEncoder(PreNormModel, ArithmeticEncoder):
    """The same with blocks that normalise before attention and MLP."""

    def _adopt_network(self, network: Any, shape: EncoderShape) -> None:
        self._adopt_native(network, shape.bridge_config(), _pooled_head)

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        pooled = torch.tanh(self.bridge.pooler(self.bridge.ln_final(resid)[:, 0]))
        return self.bridge.unembed(pooled)[:, None].float() * self.scale


def encoder_of(card: Card, weights: dict[str, Tensor], device: torch.device) -> ArithmeticEncoder:
    """An encoder of the card's norm."""
    shape = EncoderShape(**card.facts["shape"])
    return (PreNormEncoder if shape.norm == Norm.PRE else ArithmeticEncoder)(card, weights, device)


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
