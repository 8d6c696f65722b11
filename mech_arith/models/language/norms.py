"""Which normalisation reads the residual stream behind each point of a block."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mech_arith.models.base import NextNorm, Tap
from mech_arith.models.language.hook_points import BlockPlaces, telling_tokens


@dataclass(frozen=True)
class Normalises:
    """How a module normalises vectors, apart from its gain and bias."""

    centred: bool
    """LayerNorm subtracts the mean over the entries first; RMSNorm does not."""
    eps: float
    """Added to the mean square before the root."""

    def reading(self, layer: int, *points: str) -> NextNorm:
        """It as what reads the sum of these points of a layer."""
        return NextNorm(tuple((layer, point) for point in points), self.centred, self.eps)


@dataclass(frozen=True)
class StreamNorms:
    """What normalises the residual stream of a model; None where it is read as it is."""

    attention: Normalises | None
    """For attention: before it, or behind it in blocks that normalise each sum."""
    mlp: Normalises | None
    final: Normalises | None
    """Behind the last block."""


def next_before(
    norms: StreamNorms,
    layer: int,
    point: str,
    *,
    n_layers: int,
    side_by_side: bool = False,
    adds: bool = True,
) -> NextNorm | None:
    """In blocks that normalise before attention and MLP (GPT-2's order).

    Args:
        norms: of the stream.
        layer: of the point.
        point: behind which to look.
        n_layers: how many blocks there are.
        side_by_side: attention and MLP read the same stream.
        adds: blocks add what attention and MLP give as it is, and do not scale it first.
    """
    if point in ("z", "mlp_post") or (not adds and point in ("attn_out", "mlp_out")):
        return None
    behind = "resid_post" if side_by_side else "resid_mid"
    stream = {"attn_out": behind, "mlp_out": "resid_post"}.get(point, point)
    after_block = norms.attention if layer + 1 < n_layers else norms.final
    norm = {"resid_pre": norms.attention, "resid_mid": norms.mlp, "resid_post": after_block}[stream]
    return None if norm is None else norm.reading(layer, stream)


def next_behind(norms: StreamNorms, layer: int, point: str, *, n_layers: int) -> NextNorm | None:
    """In blocks that normalise each sum (BERT's order).

    What attention or the MLP adds to an edited stream is taken to be what it adds to the clean one.
    """
    if point in ("resid_pre", "attn_out") and norms.attention is not None:
        return norms.attention.reading(layer, "resid_pre", "attn_out")
    if point in ("resid_mid", "mlp_out") and norms.mlp is not None:
        return norms.mlp.reading(layer, "resid_mid", "mlp_out")
    if point == "resid_post" and layer + 1 < n_layers:
        return next_behind(norms, layer + 1, "resid_pre", n_layers=n_layers)
    return None


@torch.inference_mode()
def find_norms(model: Any, blocks: Sequence[BlockPlaces]) -> StreamNorms:
    """What normalises the stream of a causal language model, by what its modules read and do.

    A model says nowhere where it normalises: some norms stand behind attention, and some before it
    go by the name of those behind. So one short pass tells which modules are handed the stream.
    """
    inputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            inputs.append((module, args[0]))

    inside = {part for block in blocks for part in block.module.modules()}
    first = [part for part in blocks[0].module.modules() if _is_leaf(part)]
    outside = [part for part in model.modules() if _is_leaf(part) and part not in inside]
    opening: dict[str, Tensor] = {}
    closing: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for part in (*first, *outside):
            stack.callback(part.register_forward_pre_hook(keep).remove)
        stack.enter_context(blocks[0].tapped(_into(opening), whole=True))
        stack.enter_context(blocks[-1].tapped(_into(closing), whole=True))
        model(telling_tokens(model), use_cache=False)

    def reads(stream: Tensor | None, parts: Sequence[nn.Module]) -> Normalises | None:
        kinds = {
            normalises(module, like=stream)
            for module, given in inputs
            if stream is not None and module in parts and _is_same(given, stream)
        }
        return kinds.pop() if len(kinds) == 1 else None

    return StreamNorms(
        attention=reads(opening["resid_pre"], first),
        mlp=reads(opening.get("resid_mid"), first),
        final=reads(closing["resid_post"], outside),
    )


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _is_same(given: Tensor, stream: Tensor) -> bool:
    """Whether a module is handed the stream; OPT's are handed all rows and positions as one."""
    if given.shape[-1] != stream.shape[-1] or given.numel() != stream.numel():
        return False
    return torch.equal(given.reshape(stream.shape).to(stream.device), stream)


def _into(seen: dict[str, Tensor]) -> Tap:
    """A tap that keeps the activation of each point."""

    def tap(point: str, activation: Tensor) -> Tensor:
        seen[point] = activation
        return activation

    return tap


@torch.inference_mode()
def normalises(module: nn.Module, *, like: Tensor) -> Normalises | None:
    """How a module normalises vectors of the width of `like`, tried out; None if it does not."""
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    if eps is None:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, like.shape[-1], generator=generator, dtype=torch.float64)
    here = next(module.parameters(), like).device

    def given(vectors: Tensor) -> Tensor:
        return module(vectors.to(here, like.dtype)).double()

    def same(vectors: Tensor) -> bool:
        return bool((given(vectors) - given(x)).norm() <= 0.03 * given(x).norm())

    return Normalises(centred=same(x + 1), eps=float(eps)) if same(2 * x) else None
