"""What the rest of the project may ask of a model under study."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.common.digests import code_digest
from mech_arith.models.attention import NOTHING, KeysValues, Past
from mech_arith.models.kinds import POINTS
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

Tap = Callable[[str, Tensor], Tensor]
"""Called with each point's name and activation; what it returns takes the activation's place."""

Place = tuple[int, str]
"""A layer and a point."""

EVERY = slice(None)
"""All positions."""


@dataclass(frozen=True)
class NextNorm:
    """The normalisation that next reads the residual stream behind a point."""

    stream: tuple[Place, ...]
    """Places whose activations add up to what it reads: a sum that moves as the point's does."""
    centred: bool
    """LayerNorm subtracts the mean over the entries first; RMSNorm does not."""
    eps: float
    """Added to the mean square before the root."""


def untouched(_point: str, activation: Tensor) -> Tensor:
    """The tap that changes nothing."""
    return activation


@runtime_checkable
class AnswerReader(Protocol):
    """How a model writes numbers."""

    def tokens(self, number: int) -> tuple[int, ...]:
        """The tokens that follow the prompt when the answer is `number`; none if it cannot be."""
        ...

    def read(self, tokens: Sequence[int]) -> tuple[int | None, bool]:
        """The number written so far, if it is one, and whether it has ended."""
        ...

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Whether digits stand behind the number's end that may be part of it."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """What has been written, as text."""
        ...

    def longest(self, bound: int) -> int:
        """How many tokens may be written where right answers are at most `bound`."""
        ...

    @property
    def behind(self) -> tuple[int, ...]:
        """Tokens that usually follow an answer, without which it is not seen to have ended."""
        ...

    @property
    def longer(self) -> Int64[Tensor, " some"] | None:
        """The tokens that make a written number another, longer one.

        None if all answers have as many tokens.
        """
        ...


class Model(ABC):
    """A Transformer that answers arithmetic problems.

    The least that a model of one's own needs:

    - the attributes without a default below;
    - `encode`: problems as tokens, with the positions of every value;
    - `embed`, `run_block`, `read_out`: one pass in pieces. `run_block` hands the activation at each
      of its `points` to `tap` and goes on with what comes back. A block that looks at no other
      position returns keys and values of width 1.

    A model that regresses one number has `width_out = 1`, and no `reader`. One whose own modules
    can be hooked has a `full_pass` through them, which the pieces are checked against. One that
    cannot be run in pieces says `replays = False`: then `full_pass` alone makes its edited passes.
    """

    name: str
    digest: str
    """SHA-256 of the weights."""
    n_layers: int
    n_heads: int
    d_model: int
    width_out: int
    """Of what is read out at a position: the vocabulary, or 1."""
    tolerance: float
    """An answer within this distance of the right one counts as exact."""
    trained_templates: tuple[str, ...] | None = None
    """What it was trained on, where that is known."""
    trained_operands: tuple[int, int] | None = None
    trained_with: Mapping[str, Any] | None = None
    """The training's settings, the seed among them."""
    device: torch.device
    """Where tokens go in and answers come out."""
    dtype: torch.dtype = torch.float32
    reader: AnswerReader | None = None
    """How it writes its answer, token by token behind the prompt; None if it regresses one."""
    points: tuple[str, ...] = POINTS
    """Those of `POINTS` that there are in its blocks."""
    causal: bool = True
    """Positions attend to earlier ones alone."""
    turns: tuple[int, ...] = ()
    """Lengths in tokens beyond which its passes are other ones, as where a window of attention
    ends."""
    replays: bool = True
    """Its blocks can be run one by one, on some positions. Otherwise every pass is a full one."""

    @property
    def regresses(self) -> bool:
        """The answer is a real number, not a written one."""
        return self.reader is None

    settings_digest: str = ""
    """SHA-256 of what beside the weights determines activations and answers."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """All of the model that determines its activations and answers."""
        return {
            "weights": self.digest,
            "settings": self.settings_digest,
            "dtype": str(self.dtype),
            "device": self.device.type,
            "code": _own_code(type(self)),
            "passes": "resumed" if self.replays else "full",
        }

    @property
    def answers_at(self) -> slice:
        """The positions whose last residual stream the answer is read from."""
        return slice(-1, None) if self.causal else slice(0, 1)

    def untrained(self, *, seed: int) -> "Model | None":
        """The same network with weights that are drawn and not trained; None where there is none.

        It reads the same prompts. What it shows of a value is what the input alone gives.
        """
        return None

    def width_at(self, layer: int, point: str) -> int:
        """Of the activation at a point."""
        return self.d_model

    def next_norm(self, layer: int, point: str) -> NextNorm | None:
        """What next normalises the stream that an edit at a point moves by as much.

        None where the stream is not normalised any more, or an edit does not reach it unchanged.
        """
        return None

    def prompt_text(self, tokens: Sequence[int]) -> str | None:
        """Tokens of a prompt as text; None for a model whose tokens are no characters."""
        return None if self.reader is None else self.reader.text(tokens)

    def answer_labels(self, length: int) -> tuple[str, ...]:
        """What the tokens of a written answer are, as short names, from the first on."""
        return tuple(f"token {place}" for place in range(length))

    @abstractmethod
    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        """Problems as tokens.

        Args:
            problems: what to encode.
            digits: of the largest operand that may come; makes prompts of different problem sets
                alike where a model writes operands with a fixed number of digits.

        Raises:
            UserError: the model cannot read such prompts.
        """

    def why_not_replayed(self, prompts: Prompts, *, longest: int) -> str | None:
        """Why a whole pass over these prompts is not the same as one in pieces, where it is not.

        Args:
            prompts: the problems.
            longest: how many tokens may be written behind them.
        """
        return None

    def describe_tokenizer(self) -> str | None:
        """How numbers become tokens, in words; None for a model that has no tokenizer."""
        return None

    def prompt_warnings(self, problems: ProblemSet) -> list[str]:
        """What the prompts lack of what was asked for, in words; nothing for most models."""
        return []

    @abstractmethod
    def embed(self, tokens: Int64[Tensor, "rows new"], *, start: int = 0) -> Tensor:
        """The residual stream [rows, new, d] before layer 0; `start` is the first position."""

    @abstractmethod
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
        """One block on some positions of many rows.

        Args:
            layer: which block.
            resid_pre: the residual stream before it.
            start: the first of the positions, counted from the beginning of the whole prompt.
            past: what earlier positions offer at this layer.
            tap: called at its points, but `resid_pre`.
            at: which of the positions' output is wanted.

        Returns:
            The residual stream after it, and the keys and values of the new positions.
        """

    @abstractmethod
    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        """What follows the last layer: logits, or the one number that is regressed, in float32."""

    def full_pass(
        self,
        tokens: Int64[Tensor, "rows pos"],
        taps: Mapping[Place, Callable[[Tensor], Tensor]],
        *,
        last: int = 1,
    ) -> Float[Tensor, "rows last out"]:
        """Read-outs at the last positions, by a whole pass.

        What the engine is checked against, and what it falls back to. Tokens include the prefix.
        By default all blocks on all positions; better, hooks on the model's own modules.
        """

        def tap_of(layer: int) -> Tap:
            return lambda point, activation: taps.get((layer, point), _same)(activation)

        resids, _ = run_blocks(
            self, self.embed(tokens), start=0, pasts=[NOTHING] * self.n_layers, tap=tap_of
        )
        at = self.answers_at if self.regresses else slice(-last, None)
        return self.read_out(resids[-1][:, at])


def _same(activation: Tensor) -> Tensor:
    return activation


def _own_code(kind: type) -> str:
    """SHA-256 of the file that defines a class outside of this package; nothing for one inside."""
    module = sys.modules.get(kind.__module__)
    is_ours = kind.__module__.split(".")[0] == __name__.split(".")[0]
    if is_ours or module is None or getattr(module, "__file__", None) is None:
        return ""
    return code_digest([module])


@torch.inference_mode()
def run_blocks(
    model: Model,
    resid: Float[Tensor, "rows new d"],
    *,
    start: int,
    pasts: Sequence[Past],
    tap: Callable[[int], Tap] | None = None,
    stop: int | None = None,
) -> tuple[list[Tensor], list[KeysValues]]:
    """All blocks, one after another, or those below `stop`.

    Args:
        model: the model.
        resid: before layer 0.
        start: position of the first of its tokens.
        pasts: what earlier positions offer, by layer.
        tap: for each layer.
        stop: the first layer that is not run; by default there is none.

    Returns:
        The residual stream before each layer and after the last; keys and values by layer.
    """
    resids, seen = [resid], []
    for layer in range(model.n_layers if stop is None else stop):
        layer_tap = tap(layer) if tap is not None else untouched
        resids[-1] = layer_tap("resid_pre", resids[-1])
        after, new = model.run_block(
            layer, resids[-1], start=start, past=pasts[layer], tap=layer_tap
        )
        resids.append(after)
        seen.append(new)
    return resids, seen


@torch.inference_mode()
def read_prefix(model: Model, prefix: Int64[Tensor, " prefix"]) -> list[Past]:
    """What the tokens that all prompts begin with offer to those behind them, by layer.

    They are read once, in one row.
    """
    if len(prefix) == 0:
        return [NOTHING] * model.n_layers
    tokens = prefix.to(model.device)[None]
    _, seen = run_blocks(model, model.embed(tokens), start=0, pasts=[NOTHING] * model.n_layers)
    return [Past((new.shared(),)) for new in seen]
