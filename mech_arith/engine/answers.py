"""What a model says to problems, and how sure it is of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


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

    @classmethod
    def empty(cls, *shape: int) -> "Answers":
        """Nothing known yet: all NaN, each field a tensor of its own to be filled in place."""
        return cls(*(torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(3)))

    def __len__(self) -> int:
        """The number of problems."""
        return self.numbers.shape[-1]

    def at(self, index: int | slice | Int64[Tensor, " m"]) -> "Answers":
        """The rows at `index` of the first of `rows`, which a number takes away.

        Slices share memory with these answers, as torch's do.
        """
        return Answers(self.numbers[index], self.log_prob[index], self.logit_difference[index])

    def take(self, n: int) -> "Answers":
        """The first n problems, in the same memory."""
        return Answers(
            self.numbers[..., :n], self.log_prob[..., :n], self.logit_difference[..., :n]
        )

    def of(self, problems: Int64[Tensor, " m"]) -> "Answers":
        """Some of the problems."""
        return Answers(*(field[..., problems] for field in vars(self).values()))

    def split(self, *shape: int) -> "Answers":
        """The first of `rows` as several; -1 is whatever is left."""
        return Answers(*(field.unflatten(0, shape) for field in vars(self).values()))

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
            whole[:, problems] = torch.where(moved, new, whole[:, problems])

    def _beside(self, part: "Answers") -> Iterator[tuple[Tensor, Tensor]]:
        """Each field of both."""
        return zip(vars(self).values(), vars(part).values(), strict=True)
