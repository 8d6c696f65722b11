"""Gradients through a model in float16, kept within what float16 can hold.

float16 has few numbers below 6e-5 and none below 6e-8. Where a model is sure of its answer the
gradient of a log-probability is smaller, and would come back as zero. So each row's gradient is
multiplied by a power of two where it enters the model, and divided by it in float32 where it is
read. Rows do not mix and powers of two are exact: nothing else changes.

Source: Micikevicius et al. (2018, arXiv 1710.03740), "Mixed precision training", which scales a
whole loss.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST = 16.0
"""Of the scaled gradient of a row's logits the largest entry is up to twice this, and at least this
much: layers below may make of it a thousand times more or a hundred thousand times less."""


class RowScales:
    """One backward pass over rows. In other number formats than float16 it changes nothing."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._in_use = dtype == torch.float16
        self._scales: Float[Tensor, " rows"] | None = None

    def up(self, read: Float[Tensor, "rows read out"]) -> Float[Tensor, "rows read out"]:
        """What is read out; its gradient goes on scaled."""
        if self._in_use and read.requires_grad:
            read.register_hook(self._scaled)
        return read

    def down(self, gradient: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """A gradient of an activation as it is, in float32."""
        if self._scales is None:
            return gradient.float()
        return gradient.float() / self._beside(gradient)

    def below(self, edited: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """What an activation is edited with, in float32 or wider; its gradient goes on unscaled."""
        if self._in_use and edited.requires_grad:
            edited.register_hook(lambda gradient: self.down(gradient).to(gradient))
        return edited

    def _scaled(self, gradient: Float[Tensor, "rows read out"]) -> Tensor:
        largest = gradient.flatten(1).abs().amax(1)
        fits = (largest > 0) & torch.isfinite(largest)
        exponent = torch.log2(LARGEST / largest.where(fits, LARGEST)).ceil()
        self._scales = torch.exp2(exponent.clamp(-120, 120)).float()
        return gradient * self._beside(gradient)

    def _beside(self, gradient: Tensor) -> Tensor:
        assert self._scales is not None
        return self._scales.view(-1, *[1] * (gradient.dim() - 1))
