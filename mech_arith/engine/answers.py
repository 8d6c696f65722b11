"""What a model says to problems, and how sure it is of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith.models.prompts import NO_TOKEN


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to n problems, or rows of them: under several edits, say."""

    numbers: Float64[Tensor, "*rows n"]
    """NaN where it gave no number."""

    log_prob: Float64[Tensor, "*rows n"]
    """Of the right answer, all of its tokens and then no further digit, in nats; NaN for a model
    that regresses."""

    logit_difference: Float64[Tensor, "*rows n"]
    """Right minus counterfactual answer's logit at the first token in which they differ; NaN where
    there is none."""

    tokens: Int64[Tensor, "*rows n length"] | None = None
    """The first tokens that were written, as many as the longest right answer has; `NO_TOKEN`
    behind the last. None where nobody has kept them."""

    @classmethod
    def empty(cls, *shape: int, n_tokens: int | None = None) -> "Answers":
        """Nothing known yet: all NaN, each field a tensor of its own to be filled in place."""
        numbers = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(3))
        tokens = None if n_tokens is None else torch.full((*shape, n_tokens), NO_TOKEN)
        return cls(*numbers, tokens=tokens)

    @classmethod
    def stacked(cls, parts: Sequence["Answers"]) -> "Answers":
        """Answers of one shape as rows of one more axis, the first; without their tokens."""
        names = ("numbers", "log_prob", "logit_difference")
        return cls(*(torch.stack([getattr(part, name) for part in parts]) for name in names))

    def tensors(self) -> dict[str, Tensor]:
        """What is known, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def __len__(self) -> int:
        """The number of problems."""
        return self.numbers.shape[-1]

    def at(self, index: int | slice | Int64[Tensor, " m"]) -> "Answers":
        """The rows at `index` of the first of `rows`, which a number takes away.

        Slices share memory with these answers, as torch's do.
        """
        return self._each(lambda field: field[index])

    def take(self, n: int) -> "Answers":
        """The first n problems, in the same memory."""
        return self.of(slice(n))

    def of(self, problems: slice | Int64[Tensor, " m"]) -> "Answers":
        """Some of the problems."""
        kept = None if self.tokens is None else self.tokens[..., problems, :]
        numbers = (self.numbers, self.log_prob, self.logit_difference)
        return Answers(*(field[..., problems] for field in numbers), tokens=kept)

    def split(self, *shape: int) -> "Answers":
        """The first of `rows` as several; -1 is whatever is left."""
        return self._each(lambda field: field.unflatten(0, shape))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Answers":
        """Every field changed alike."""
        return Answers(**{name: change(field) for name, field in self.tensors().items()})

    def put(self, index: Int64[Tensor, " m"], part: "Answers") -> None:
        """Fill in, in place, what stands at `index` of the first axis."""
        for whole, new in self._beside(part):
            whole[index] = new

    def put_moved(
        self,
        problems: Int64[Tensor, " m"],
        part: "Answers",
        moved: Bool[Tensor, "rows m"],
    ) -> None:
        """Fill in, in place, the answers of those of some problems that each row moves."""
        for whole, new in self._beside(part):
            which = moved if whole.dim() == moved.dim() else moved[..., None]
            whole[:, problems] = torch.where(which, new, whole[:, problems])

    def _beside(self, part: "Answers") -> Iterator[tuple[Tensor, Tensor]]:
        """Each field that both have."""
        theirs = part.tensors()
        return ((ours, theirs[name]) for name, ours in self.tensors().items() if name in theirs)
