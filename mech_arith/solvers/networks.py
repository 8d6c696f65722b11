"""The networks of the arithmetic solvers, as plain modules that can be trained or bridged."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_arith.solvers.blocks import pre_norm_block

if TYPE_CHECKING:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel
    from transformers import BertConfig, BertForSequenceClassification


@dataclass(frozen=True)
class DecoderShape:
    """A causal Transformer that normalises before attention and MLP."""

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    d_vocab: int

    def bridge_config(self, *, seed: int | None = None) -> "TransformerBridgeConfig":
        """The same shape in TransformerLens' words."""
        from transformer_lens.config import TransformerBridgeConfig

        return TransformerBridgeConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_head=self.d_model // self.n_heads,
            d_mlp=self.d_mlp,
            n_ctx=self.n_ctx,
            d_vocab=self.d_vocab,
            act_fn="gelu",
            normalization_type="LN",
            attention_dir="causal",
            seed=seed,
        )

    def network(self, *, seed: int | None = None) -> "NativeModel":
        """A network with weights drawn from the seed."""
        from transformer_lens.model_bridge.sources.native import (
            NativeModel,
            initialize_native_model,
        )

        config = self.bridge_config(seed=seed)
        network = NativeModel(config)
        initialize_native_model(network, config)
        return network


def decoder_logits(
    network: "NativeModel", tokens: Int[Tensor, "n pos"], *, n_heads: int
) -> Float[Tensor, "n pos vocab"]:
    """The network's logits, through the same block code that the engine runs."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    resid = network.tok_embed(tokens) + network.get_submodule("pos")(positions)
    for block in network.layers:
        resid, _ = pre_norm_block(block, resid, n_heads=n_heads)
    return network.head(network.ln_out(resid))


@dataclass(frozen=True)
class EncoderShape:
    """BERT: bidirectional, normalises each sum, pools the first position."""

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    d_vocab: int

    def bert_config(self) -> "BertConfig":
        """The same shape in Hugging Face's words."""
        from transformers import BertConfig

        options: dict[str, Any] = {
            "num_hidden_layers": self.n_layers,
            "hidden_size": self.d_model,
            "num_attention_heads": self.n_heads,
            "intermediate_size": self.d_mlp,
            "max_position_embeddings": self.n_ctx,
            "vocab_size": self.d_vocab,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "num_labels": 1,
            "problem_type": "regression",
        }
        return BertConfig(**options)

    def network(self) -> "BertForSequenceClassification":
        """A network with random weights, to be filled from a checkpoint or a pretrained model."""
        from transformers import BertForSequenceClassification

        return BertForSequenceClassification(self.bert_config())
