"""The peers, each as its documentation would have a user write the sweep.

All run every problem of the workload in one batch, one forward pass per edit, in inference mode,
without a cache of keys and values and, where the model offers it, with the last position's logits
alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from workloads import SiteEdits, SiteInterchanges, Workload


class Unavailable(Exception):
    """A tool cannot run a workload, and why."""


class Peer(ABC):
    """A way to run edits one by one."""

    name: str
    counts: bool = True
    """Whether it is one of those that the engine is to beat; else it is shown beside them."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    @abstractmethod
    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:
        """Every problem's logits at the last position, under one edit."""


def last(output: Any) -> Float[Tensor, "n vocab"]:
    """The last position's logits, out of what a model returns."""
    return (output if isinstance(output, Tensor) else output.logits)[:, -1]


class ForwardHooks(Peer):
    """`register_forward_hook` on a block: Hugging Face's model, or any other module."""

    name = "forward hooks"

    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:
        work = self.workload
        with _edited(work.blocks[edits.layer], edits.first, edits, edit):
            return last(work.module(work.tokens, **work.options))


class PrefixCached(Peer):
    """Forward hooks, with the shared prefix in a Hugging Face cache that is cut back after use.

    What a user who knows that feature can do by hand; it is no tool's way to run a sweep.
    """

    name = "(forward hooks, cached prefix)"
    counts = False

    def __init__(self, workload: Workload) -> None:
        from transformers import DynamicCache, PreTrainedModel

        super().__init__(workload)
        if not isinstance(workload.module, PreTrainedModel) or not workload.prefix:
            raise Unavailable("not a Hugging Face model with a prefix")
        self.cache = DynamicCache(config=workload.module.config)
        with torch.inference_mode():
            prefix = workload.tokens[:1, : workload.prefix]
            workload.module(prefix, past_key_values=self.cache, logits_to_keep=1)
            self.cache.batch_repeat_interleave(workload.n)

    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:
        work = self.workload
        first = edits.first - work.prefix
        with _edited(work.blocks[edits.layer], first, edits, edit):
            output = work.module(
                work.tokens[:, work.prefix :], past_key_values=self.cache, logits_to_keep=1
            )
        self.cache.crop(work.prefix - work.tokens.shape[1])
        return last(output)


class TransformerLens(Peer):
    """`run_with_hooks` on a TransformerBridge."""

    name = "TransformerLens"

    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:

        def change(activation: Tensor, hook: Any) -> Tensor:
            edits.make(edit, activation[:, edits.first :])
            return activation

        output = self.workload.bridge.run_with_hooks(
            self.workload.tokens,
            fwd_hooks=[(f"blocks.{edits.layer}.hook_out", change)],
            return_type="logits",
            **self.workload.options,
        )
        return last(output)


class Pyvene(Peer):
    """An `IntervenableModel` per layer, whose intervention adds a tensor at some positions, or
    exchanges what lies in a rotated subspace for what the sources have there.
    """

    name = "pyvene"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        try:
            import pyvene  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Unavailable(f"not installed: {error}") from None
        self.delta = torch.empty(0)
        module = workload.module
        if not hasattr(module, "config"):
            # It reads these of every model, Hugging Face's or not.
            vars(module).update(config=SimpleNamespace(), device=workload.tokens.device)
        self.pyvene, self.models = pyvene, {}

    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:
        work = self.workload
        at = [[list(range(edits.first, work.tokens.shape[1]))] * work.n]
        base = {"input_ids": work.tokens, **work.options}
        if isinstance(edits, SiteInterchanges):
            model, rotated = self._rotated(edits)
            rotated.rotate_layer.weight = edits.frames[edit].mT
            (key,) = model.interventions
            source = edits.sources[edit][:, None]
            _, output = model(
                base,
                source_representations={key: source},
                unit_locations={"sources->base": (at, at)},
            )
        else:
            self.delta = edits.delta(edit)
            _, output = self._added(edits.layer)(base, unit_locations={"base": at})
        return last(output)

    def _added(self, layer: int) -> Any:
        """Adds `delta` to a layer's output."""
        if layer not in self.models:
            self.models[layer] = self._model(layer, lambda base, _source: base + self.delta)
        return self.models[layer]

    def _rotated(self, edits: SiteInterchanges) -> tuple[Any, Any]:
        """Interchanges within a subspace of a layer's output, and where its frame is put."""
        _, rank, width = edits.frames.shape
        key = edits.layer, rank
        if key not in self.models:
            rotated = self.pyvene.LowRankRotatedSpaceIntervention(
                embed_dim=width, low_rank_dimension=rank
            ).requires_grad_(False)
            self.models[key] = self._model(edits.layer, rotated), rotated
        return self.models[key]

    def _model(self, layer: int, intervention: Any) -> Any:
        component = f"{self.workload.parts.blocks}[{layer}].output"
        return self.pyvene.IntervenableModel(
            {"component": component, "intervention": intervention}, model=self.workload.module
        )


class NNsight(Peer):
    """A trace that adds to a block's output and saves the logits."""

    name = "nnsight"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        try:
            import nnsight  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Unavailable(f"not installed: {error}") from None
        self.model = nnsight.NNsight(workload.module)
        self.blocks = self.model.get(workload.parts.blocks)

    def logits(self, edits: SiteEdits | SiteInterchanges, edit: int) -> Float[Tensor, "n vocab"]:
        work = self.workload
        model, block = self.model, self.blocks[edits.layer]
        first, in_tuple = edits.first, work.parts.blocks_return_tuples
        with model.trace(work.tokens, **work.options):
            hidden = block.output[0] if in_tuple else block.output
            edits.make(edit, hidden[:, first:])
            output = model.output.save()
        return last(output)


PEERS: tuple[type[Peer], ...] = (ForwardHooks, TransformerLens, Pyvene, NNsight, PrefixCached)


@contextmanager
def _edited(
    block: nn.Module, first: int, edits: SiteEdits | SiteInterchanges, edit: int
) -> Iterator[None]:
    """Make one edit of a block's output, from a position on."""

    def change(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        edits.make(edit, hidden[:, first:])

    handle = block.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()
