"""Pretrained language models: any causal LM of Hugging Face that TransformerLens' bridge knows.

Nothing here is written for one architecture. TransformerLens' adapters say which module is what. A
*ghost pass* runs the model with its blocks skipped: it gives the residual stream before layer 0,
the arguments that each block is called with, and what follows the last block. Blocks are then
called one by one with those arguments, on any positions, with our own attention function in the
place of Hugging Face's: it is handed their keys and values, and reads those of earlier positions.
"""

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mech_arith.common.digests import json_digest
from mech_arith.common.errors import UserError
from mech_arith.models.attention import NOTHING, KeysValues, NotReplayableError, Past, attend
from mech_arith.models.base import EVERY, NextNorm, Place, Tap, untouched
from mech_arith.models.editable import EditableModel, no_matrix, sharing_tensors
from mech_arith.models.kinds import POINTS
from mech_arith.models.language.hook_points import find_hook_points, telling_tokens
from mech_arith.models.language.loading import LoadedModel
from mech_arith.models.language.norms import StreamNorms, find_norms, next_before
from mech_arith.models.language.number_tokens import describe_tokenizer
from mech_arith.models.language.prompting import Prompting, prompt_warnings
from mech_arith.models.language.saving import check_place_for_bias, save_language_model
from mech_arith.models.language.tokenization import AnswerReader, tokenize
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

OURS = "mech_arith"
"""The name under which Hugging Face finds our attention function."""

IGNORED = {"position_ids", "use_cache", "cache_position", "is_causal", "output_attentions"}
"""Arguments of an attention function that say nothing that is not known here."""


_Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a block behind the residual stream."""


@dataclass
class _Reading:
    """What one block's attention reads, and what it leaves."""

    past: Past
    left: KeysValues | None = None


_reading: ContextVar[_Reading] = ContextVar("reading")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function, over what `_reading` says was there before.

    Raises:
        NotReplayableError: the model asks for something that `attend` does not do.
    """
    unknown = [name for name, given in others.items() if given is not None and name not in IGNORED]
    if unknown or attention_mask is not None:
        raise NotReplayableError(
            f"its attention takes {', '.join(unknown) or 'a mask of its own'}, which cannot be "
            "replayed for some positions alone"
        )
    reading = _reading.get()
    reading.left = KeysValues(key, value)
    z = attend(
        query, reading.left, reading.past, scale=scaling, softcap=softcap, window=sliding_window
    )
    return z.transpose(1, 2).contiguous(), None


AttentionInterface.register(OURS, _attention)


class PretrainedModel(EditableModel):
    """A causal language model that is asked in words and writes its answer."""

    reader: AnswerReader
    tolerance = 0.0
    trained_templates = trained_operands = None

    def __init__(self, loaded: LoadedModel, prompting: Prompting) -> None:
        self.name, self.digest = loaded.name, loaded.digest
        self.network, self.tokenizer = loaded.model, loaded.tokenizer
        self._digests: dict[str, str] = {}
        """By style, of what determines the answers beside the weights; shared by all that is asked
        of the network, for a tokenizer takes long to be written out."""
        self._ask_by(prompting)
        config = loaded.model.config.get_text_config()
        self.n_heads, self.d_model = config.num_attention_heads, config.hidden_size
        self.width_out = config.vocab_size
        windows = (getattr(config, n, None) for n in ("sliding_window", "attention_chunk_size"))
        factors = getattr(config, "rope_parameters", None)
        self.turns = (*(window for window in windows if window), *_rotary_limits(factors))
        self.device, self.dtype = loaded.model.device, loaded.model.dtype
        self._blocks = find_hook_points(loaded.model)
        self.n_layers = len(self._blocks)
        self._gives, self._adds, self.points = self._probe()
        self._calls: dict[tuple[int, int], list[_Call]] = {}
        """First position and number of positions -> what each block is called with."""

    def _ask_by(self, prompting: Prompting) -> None:
        self.prompting = prompting
        self.reader = AnswerReader(self.tokenizer, prompting)
        if prompting.style not in self._digests:
            found = settings_digest(self.network, self.tokenizer, prompting)
            self._digests[prompting.style] = found
        self.settings_digest = self._digests[prompting.style]

    def asked(self, prompting: Prompting) -> "PretrainedModel":
        """The same network, asked otherwise; what this one's runs have found out is not taken over.

        Raises:
            UserError: the tokenizer cannot be asked so.
        """
        model = copy.copy(self)
        model._calls = {}
        model._ask_by(prompting)
        return model

    @torch.inference_mode()
    def _probe(self) -> tuple[int, bool, tuple[str, ...]]:
        """How many things a block gives (0: a tensor alone), whether it is a sum, and its points.

        It is a sum where what attention and MLP give is added to its input as it is. `resid_mid`
        is a point where that happens one after the other, and `mlp_post` where every MLP is one.
        """
        block, seen, given = self._blocks[0], {}, []

        def tap(point: str, activation: Tensor) -> Tensor:
            seen[point] = activation
            return activation

        def keep(_: Any, __: Any, output: Any) -> None:
            given.append(len(output) if isinstance(output, tuple) else 0)

        handle = block.module.register_forward_hook(keep)
        try:
            with block.tapped(tap, whole=True):
                self.network(telling_tokens(self.network), use_cache=False)
        finally:
            handle.remove()
        missed = seen["resid_post"] - seen["resid_pre"] - seen["attn_out"] - seen["mlp_out"]
        adds = float(missed.float().norm() / seen["resid_post"].float().norm()) < 0.02
        has = {
            "resid_mid": adds and not block.side_by_side,
            "mlp_post": "mlp_post" in seen
            and all(one.mlp_projection is not None for one in self._blocks),
        }
        return given[0], adds, tuple(point for point in POINTS if has.get(point, True))

    @cached_property
    def _norms(self) -> StreamNorms:
        return find_norms(self.network, self._blocks)

    def next_norm(self, layer: int, point: str) -> NextNorm | None:
        return next_before(
            self._norms,
            layer,
            point,
            n_layers=self.n_layers,
            side_by_side=self._blocks[layer].side_by_side,
            adds=self._adds,
        )

    def width_at(self, layer: int, point: str) -> int:
        block = self._blocks[layer]
        return {"z": block.z_width, "mlp_post": block.n_neurons}.get(point, self.d_model)

    def projection(self, layer: int, point: str) -> nn.Module:
        block = self._blocks[layer]
        if point in block.norms_behind:
            raise no_matrix(self.name, point, "a norm stands between the block's matrix and it")
        of_mlp = point in ("mlp_post", "mlp_out")
        module = block.mlp_projection if of_mlp else block.attention_projection
        if module is None:
            raise no_matrix(self.name, point, "several experts write it")
        return module

    def sharing(self) -> EditableModel:
        model = copy.copy(self)
        model.network, model._blocks = sharing_tensors((self.network, self._blocks), self.network)
        model._calls = {}
        return model

    def check_bias(self, layer: int, point: str) -> None:
        check_place_for_bias(self.network, self.projection(layer, point))

    def save(self, directory: Path, *, edited: dict[str, Any]) -> None:
        save_language_model(self.network, self.tokenizer, directory)

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        prompts = tokenize(problems, self.prompting, self.tokenizer)
        self._check_length(prompts, bound=int(np.abs(problems.answers).max()))
        return prompts

    def why_not_replayed(self, prompts: Prompts, *, longest: int) -> str | None:
        """Rotary factors of some models (longrope, as Phi-3's) are others beyond some length, for
        all positions of a pass: a prefix that was read by itself has the shorter ones' keys.
        """
        config = self.network.config.get_text_config()
        lengths = [layout.tokens.shape[1] + len(prompts.prefix) for layout in prompts.layouts]
        first = len(prompts.prefix) or min(lengths)
        last = max(lengths) + longest
        for limit in _rotary_limits(getattr(config, "rope_parameters", None)):
            if first <= limit < last:
                return (
                    f"its rotary factors change beyond {limit} tokens, and its passes read "
                    f"{first} to {last}"
                )
        return None

    def describe_tokenizer(self) -> str:
        return describe_tokenizer(self.tokenizer)

    def prompt_warnings(self, problems: ProblemSet) -> list[str]:
        return prompt_warnings(problems.template, self.prompting, self.tokenizer)

    def _check_length(self, prompts: Prompts, *, bound: int) -> None:
        """Raise a UserError where prompts and answers are longer than the model can read."""
        limit = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        longest = max(layout.tokens.shape[1] for layout in prompts.layouts)
        needed = len(prompts.prefix) + longest + self.reader.longest(bound)
        if limit is not None and needed > limit:
            raise UserError(
                f"expected prompts and answers of at most {limit} tokens for {self.name}, got "
                f"{needed}; lower prompt.shots"
            )

    def untrained(self, *, seed: int) -> "PretrainedModel | None":
        if len(set(getattr(self.network, "hf_device_map", {}).values())) > 1:
            return None  # it was spread since it does not fit one device, and neither does a twin
        kind: Any = type(self.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind(copy.deepcopy(self.network.config))
        model.to(device=self.device).eval().requires_grad_(False)
        for parameter in model.parameters():  # not buffers: rotary ones stay in float32
            parameter.data = parameter.data.to(self.dtype)
        digest = f"untrained, seed {seed}"
        loaded = LoadedModel(f"{self.name}_untrained", model, self.tokenizer, digest)
        twin = PretrainedModel(loaded, self.prompting)
        twin.replays = self.replays
        return twin

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        recorded: list[Tensor] = []
        calls: list[_Call] = []

        def record(resid: Tensor, *args: Any, **kwargs: Any) -> Any:
            recorded.append(resid)
            calls.append((args, kwargs))
            return self._as_given(resid)

        # Gradients may flow through blocks that are called with these arguments later, which those
        # of inference mode would forbid.
        with torch.inference_mode(False), torch.no_grad(), self._ghost(record):
            self.network.base_model(**_arguments(tokens, start))
        if any(_follows_rows(call, rows=len(tokens)) for call in calls):
            raise NotReplayableError(
                "its blocks are called with more than positions and the stream"
            )
        self._calls[start, tokens.shape[1]] = calls
        return recorded[0]

    @contextmanager
    def _ghost(self, instead: Callable[..., Any]) -> Iterator[None]:
        """The model with `instead` in the place of every block."""
        with _attention_by(self.network, OURS), ExitStack() as stack:
            for block in self._blocks:
                stack.enter_context(_forward_by(block.module, instead))
            yield

    def _as_given(self, resid: Tensor) -> Any:
        """A residual stream in the form in which a block gives it."""
        return (resid, *[None] * (self._gives - 1)) if self._gives else resid

    def _call(self, layer: int, start: int, count: int) -> "_Call":
        """What a block is called with for some positions, besides the residual stream."""
        if (start, count) not in self._calls:
            self.embed(torch.zeros(1, count, dtype=torch.int64, device=self.device), start=start)
        return self._calls[start, count][layer]

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
        block = self._blocks[layer]
        args, kwargs = self._call(layer, start, resid_pre.shape[1])
        reading = _Reading(past)
        token = _reading.set(reading)
        try:
            with ExitStack() as stack:
                stack.enter_context(_attention_by(self.network, OURS))
                if tap is not untouched:
                    stack.enter_context(block.tapped(tap))
                resid = _first(block.module(resid_pre, *args, **kwargs))
        finally:
            _reading.reset(token)
        if reading.left is None:
            raise NotReplayableError("its attention does not go through Hugging Face's interface")
        if tap is not untouched:
            resid = tap("resid_post", resid)
        return resid[:, at], reading.left

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        tokens = torch.zeros(resid.shape[:2], dtype=torch.int64, device=self.device)
        with self._ghost(lambda *_, **__: self._as_given(resid)):
            return self.network(**_arguments(tokens, 0)).logits.float()

    @torch.inference_mode()
    def full_pass(
        self,
        tokens: Int64[Tensor, "rows pos"],
        taps: Mapping[Place, Callable[[Tensor], Tensor]],
        *,
        last: int = 1,
    ) -> Float[Tensor, "rows last out"]:
        by_layer: dict[int, dict[str, Callable[[Tensor], Tensor]]] = {}
        for (layer, point), change in taps.items():
            by_layer.setdefault(layer, {})[point] = change
        options = {"logits_to_keep": last} if _keeps_logits(type(self.network)) else {}
        with ExitStack() as stack:
            for layer, changes in by_layer.items():

                def tap(point: str, activation: Tensor, changes: Any = changes) -> Tensor:
                    return changes[point](activation) if point in changes else activation

                stack.enter_context(self._blocks[layer].tapped(tap, whole=True))
            logits = self.network(tokens.to(self.device), use_cache=False, **options).logits
        return logits[:, -last:].float()


def settings_digest(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompting: Prompting
) -> str:
    """Of the model's config, its tokenizer, and the way in which it is asked."""
    config = network.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    settings = {
        "config": json.dumps(config, sort_keys=True, default=str),
        "tokenizer": str(getattr(tokenizer, "backend_tokenizer").to_str()),  # noqa: B009
        "style": prompting.style,
    }
    return json_digest(settings)


def _rotary_limits(parameters: Any) -> list[int]:
    """Lengths beyond which rotary factors change, of all kinds of layers."""
    if not isinstance(parameters, Mapping):
        return []
    if parameters.get("rope_type") == "longrope":
        return [int(parameters["original_max_position_embeddings"])]
    return [limit for one in parameters.values() for limit in _rotary_limits(one)]


def _arguments(tokens: Tensor, start: int) -> dict[str, Any]:
    """A call of the model on tokens from a position on, with nothing before them."""
    positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
    return {"input_ids": tokens, "position_ids": positions, "use_cache": False}


def _follows_rows(value: Any, *, rows: int) -> bool:
    """Whether arguments hold a tensor with an entry per row, which other rows would not share."""
    if isinstance(value, Tensor):
        return rows > 1 and value.ndim > 0 and len(value) == rows
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, tuple | list) and any(_follows_rows(v, rows=rows) for v in value)


def _first(output: Any) -> Tensor:
    """A block's residual stream: some give it alone, some first of several."""
    return output[0] if isinstance(output, tuple) else output


def _keeps_logits(kind: type) -> bool:
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


@contextmanager
def _attention_by(model: Any, name: str) -> Iterator[None]:
    """Let the model's attention go through the function of that name, meanwhile."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def _forward_by(module: nn.Module, instead: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else, meanwhile."""
    own = vars(module).get("forward")  # accelerate puts one there, to move tensors to its device
    module.forward = instead
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
