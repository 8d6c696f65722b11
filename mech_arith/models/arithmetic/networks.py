"""The networks of the arithmetic models, as plain modules that can be trained or bridged."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_arith.common.errors import unknown
from mech_arith.models.arithmetic.blocks import pre_norm_block

if TYPE_CHECKING:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel
    from transformers import BertConfig, BertForSequenceClassification


class Norm(StrEnum):
    """Where a network's blocks normalise."""

    POST = "post"
    """Each sum, as BERT does."""
    PRE = "pre"
    """What goes into attention and MLP, so that the residual stream itself is a plain sum."""
    NONE = "none"
    """Nowhere: what reads the residual stream reads it as it is."""


class Activation(StrEnum):
    """The function of a decoder's MLP neurons."""

    GELU = "gelu"
    RELU = "relu"


@dataclass(frozen=True)
class DecoderShape:
    """A causal Transformer that normalises before attention and MLP, or nowhere."""

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    norm: str = Norm.PRE
    """Cards from before there was a choice name neither this nor the activation."""
    activation: str = Activation.GELU

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UserError: no such norm or activation.
        """
        if self.norm not in (Norm.PRE, Norm.NONE):
            raise unknown("shape.norm", self.norm, (Norm.PRE, Norm.NONE))
        if self.activation not in list(Activation):
            raise unknown("shape.activation", self.activation, Activation)

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
            act_fn=self.activation,
            normalization_type=None if self.norm == Norm.NONE else "LN",
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
    return _pre_norm_pass(network, tokens, n_heads=n_heads, causal=True)


def _pre_norm_pass(
    network: "NativeModel", tokens: Int[Tensor, "n pos"], *, n_heads: int, causal: bool
) -> Tensor:
    """What the head gives, by blocks that normalise before attention and MLP."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    resid = network.tok_embed(tokens) + network.get_submodule("pos")(positions)
    for block in network.layers:
        resid, _ = pre_norm_block(block, resid, n_heads=n_heads, causal=causal)
    return network.head(network.ln_out(resid))


@dataclass(frozen=True)
class EncoderShape:
    """Bidirectional; regresses one number from the pooled first position, as BERT does."""

    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    norm: str = Norm.POST
    """Cards from before there was a choice do not name it."""

    def __post_init__(self) -> None:
        """Check the name.

        Raises:
            UserError: no such norm.
        """
        if self.norm not in (Norm.POST, Norm.PRE):
            raise unknown("shape.norm", self.norm, (Norm.POST, Norm.PRE))

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

    def bridge_config(self) -> "TransformerBridgeConfig":
        """The shape of an encoder that normalises before, in TransformerLens' words."""
        from transformer_lens.config import TransformerBridgeConfig

        sizes = {name: size for name, size in asdict(self).items() if name != "norm"}
        return TransformerBridgeConfig(
            **sizes,
            d_head=self.d_model // self.n_heads,
            act_fn="gelu",
            normalization_type="LN",
            eps=LAYER_NORM_EPS,
            attention_dir="bidirectional",
            initializer_range=INIT_STD,
        )

    def network(self) -> "BertForSequenceClassification | NativeModel":
        """A network with weights drawn by torch's own generator; a checkpoint may replace them."""
        if self.norm == Norm.PRE:
            return self._pre_norm_network()
        from transformers import BertForSequenceClassification

        return BertForSequenceClassification(self.bert_config())

    def _pre_norm_network(self) -> "NativeModel":
        from transformer_lens.model_bridge.sources.native import (
            NativeModel,
            initialize_native_model,
        )

        config = self.bridge_config()
        network = NativeModel(config)
        initialize_native_model(network, config)
        network.head = PooledHead(self.d_model)  # pyright: ignore[reportAttributeAccessIssue]
        return network


LAYER_NORM_EPS, INIT_STD = 1e-12, 0.02
"""BERT's own, so that encoders differ in where they normalise alone."""


class PooledHead(nn.Module):
    """BERT's read-out: a layer with tanh on the first position, then a linear one."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.classifier = nn.Linear(d_model, 1)
        for layer in (self.dense, self.classifier):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, resid: Float[Tensor, "n pos d"]) -> Float[Tensor, "n one"]:
        """The number, by row."""
        return self.classifier(torch.tanh(self.dense(resid[:, 0])))


def encoder_output(
    network: Any, tokens: Int[Tensor, "n pos"], shape: EncoderShape
) -> Float[Tensor, " n"]:
    """What the network regresses."""
    if shape.norm == Norm.POST:
        return network(input_ids=tokens).logits[:, 0]
    return _pre_norm_pass(network, tokens, n_heads=shape.n_heads, causal=False)[:, 0]
