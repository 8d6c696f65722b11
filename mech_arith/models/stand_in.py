"""What stands in for a model whose weights are not loaded: its network, with two layers and random
weights. It reads the same prompts, has the same widths, and takes as long by layer.
"""

from dataclasses import dataclass

from torch import nn

from mech_arith.models.base import Model

N_LAYERS = 2
"""Of the network that stands in."""


@dataclass(frozen=True)
class StandIn:
    """A model without its weights.

    Its fingerprint is the whole model's, so that the keys of what a store may have are the whole
    model's too: never let anything be kept that this network has computed.
    """

    model: Model
    """Its first layers, with random weights."""
    n_layers: int
    """Of the whole model."""
    n_weights: int
    """Of the whole model, those of the embedding included."""
    is_known: bool
    """Whether the digest of its weights is known, without which nothing can be looked up."""

    @property
    def n_heads(self) -> int:
        """Query heads of the whole model."""
        return self.model.n_heads

    @property
    def weights_bytes(self) -> int:
        """Memory of the whole model's weights."""
        return self.n_weights * self.model.dtype.itemsize

    def width_at(self, layer: int, point: str) -> int:
        """Of the activation at a point of the whole model."""
        return self.model.width_at(min(layer, self.model.n_layers - 1), point)


def count_weights(network: nn.Module) -> int:
    """Numbers that a network has learnt; what two of its layers share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())
