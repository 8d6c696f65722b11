"""Where in a Hugging Face model each point is, as TransformerLens' adapters know it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from mech_arith.common.errors import UserError
from mech_arith.models.base import Tap


@dataclass(frozen=True)
class BlockPlaces:
    """One block, and its parts at which activations are read and edited."""

    module: nn.Module
    attention_projection: nn.Module
    """Its input is z: the heads' outputs side by side."""
    attention_out: nn.Module
    """Its output is what attention gives: what is added to the residual stream, or scaled first."""
    mlp_projection: nn.Module | None
    """The MLP's last matrix, whose input are the neurons: of a gated MLP the product. None where
    the MLP is several experts."""
    mlp_out: nn.Module
    """Its output is what the MLP gives."""
    norms_behind: frozenset[str]
    """The points among `attn_out` and `mlp_out` that stand behind a norm of their own."""
    side_by_side: bool
    """Attention and MLP read the same stream: there is none between them."""

    @property
    def z_width(self) -> int:
        """Of all heads' outputs."""
        return _inputs(self.attention_projection)

    @property
    def n_neurons(self) -> int:
        """Of the MLP, where it is one."""
        return 0 if self.mlp_projection is None else _inputs(self.mlp_projection)

    @contextmanager
    def tapped(self, tap: Tap, *, whole: bool = False) -> Iterator[None]:
        """Hooks that call `tap` at its points inside the block; with `whole`, around it too."""
        shape: list[Tensor] = []

        def on_input(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            resid = args[0] if args else kwargs["hidden_states"]
            shape[:] = [tap("resid_pre", resid) if whole else resid]
            if args:
                return (shape[0], *args[1:]), kwargs
            return args, kwargs | {"hidden_states": shape[0]}

        def on_z(_: Any, args: tuple[Any, ...]) -> Any:
            return (tap("z", args[0]), *args[1:])

        def on_attention(_: Any, __: Any, out: Tensor) -> Tensor:
            out = tap("attn_out", out)
            if self.side_by_side:
                return out
            # A block of a spread model moves its input to its own device after these hooks.
            middle = shape[0].to(out.device) + out
            changed = tap("resid_mid", middle)
            return out if changed is middle else out + (changed - middle)

        def by_row(point: str, activation: Tensor) -> Tensor:
            # Some run their MLP on all positions of all rows as one.
            whole = activation.view(*shape[0].shape[:2], -1)
            return tap(point, whole).view_as(activation)

        def on_neurons(_: Any, args: tuple[Any, ...]) -> Any:
            if args[0].numel() != shape[0].shape[:2].numel() * self.n_neurons:
                return args  # the matrix of an expert, which reads some of the positions
            return (by_row("mlp_post", args[0]), *args[1:])

        def on_mlp(_: Any, __: Any, out: Any) -> Any:
            return _on_first(out, lambda activation: by_row("mlp_out", activation))

        def on_output(_: Any, __: Any, out: Any) -> Any:
            return _on_first(out, lambda resid: tap("resid_post", resid))

        handles = [
            self.module.register_forward_pre_hook(on_input, with_kwargs=True),
            self.attention_projection.register_forward_pre_hook(on_z),
            self.attention_out.register_forward_hook(on_attention),
            self.mlp_out.register_forward_hook(on_mlp),
        ]
        if self.mlp_projection is not None:
            handles.append(self.mlp_projection.register_forward_pre_hook(on_neurons))
        if whole:
            handles.append(self.module.register_forward_hook(on_output))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _inputs(projection: Any) -> int:
    """How many numbers a matrix reads; that of a Conv1D, GPT-2's, has its input first."""
    return projection.weight.shape[0 if hasattr(projection, "nf") else 1]


def _on_first(out: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module gives, with its activation changed: that stands alone or first of several."""
    return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)


def find_hook_points(model: Any) -> list[BlockPlaces]:
    """The blocks of a causal language model, whose architecture TransformerLens knows.

    Raises:
        UserError: its blocks are not attention and an MLP.
    """
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.generalized_components import ParallelBlockBridge
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    config = build_bridge_config_from_hf(
        model.config, type(model).__name__, model.config.name_or_path, model.dtype
    )
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
    mapping: Any = adapter.component_mapping
    blocks = mapping["blocks"]
    if (
        not {"attn", "mlp"} <= set(blocks.submodules)
        or "o" not in blocks.submodules["attn"].submodules
    ):
        raise UserError(
            f"expected blocks of attention and an MLP, got {type(model).__name__} with "
            f"{', '.join(blocks.submodules)}; choose a Transformer"
        )
    side_by_side = isinstance(blocks, ParallelBlockBridge)
    return [
        _places(module, blocks.submodules, side_by_side=side_by_side)
        for module in model.get_submodule(blocks.name)
    ]


def _places(module: nn.Module, parts: Any, *, side_by_side: bool) -> BlockPlaces:
    attention, mlp = parts["attn"], parts["mlp"]
    projection = module.get_submodule(f"{attention.name}.{attention.submodules['o'].name}")
    # Norms behind attention and MLP, where there are any, come before what is added.
    after_attention, after_mlp = parts.get("ln1_post"), parts.get("ln2_post")
    last = mlp.submodules.get("out")
    last_name = ".".join(part.name for part in (mlp, last) if part is not None and part.name)
    mlp_name = mlp.name if mlp.name else last_name
    behind = {"attn_out": after_attention, "mlp_out": after_mlp}
    return BlockPlaces(
        module=module,
        attention_projection=projection,
        attention_out=module.get_submodule(after_attention.name) if after_attention else projection,
        mlp_projection=None if last is None else module.get_submodule(last_name),
        mlp_out=module.get_submodule(after_mlp.name if after_mlp else mlp_name),
        norms_behind=frozenset(point for point, norm in behind.items() if norm),
        side_by_side=side_by_side,
    )


def telling_tokens(model: Any) -> Int64[Tensor, "1 some"]:
    """A prompt by which one sees what a model's modules do: a few tokens of its whole vocabulary.

    A single one may tell nothing: padding is embedded as zeros before training, and often behind.
    """
    last = model.config.get_text_config().vocab_size - 1
    return torch.linspace(0, last, 4, dtype=torch.float64).long()[None].to(model.device)
