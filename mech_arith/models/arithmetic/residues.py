"""The model of modular arithmetic: one token per number, one token per answer.

Its prompts are the operands and `=`: `17 23 =`. The operation is in its weights alone, as in Nanda
et al. (2023), "Progress measures for grokking via mechanistic interpretability".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.decoder import NativeDecoder
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet


@dataclass(frozen=True)
class Residues:
    """The numbers 0 to `modulus` - 1, each a token with itself as id, and `=` behind them."""

    modulus: int

    @property
    def d_vocab(self) -> int:
        """How many tokens there are."""
        return self.modulus + 1

    length = 1
    """Tokens in an answer."""
    behind = ()
    """Nothing: an answer ends with its one token."""
    longer = None
    """All answers have as many tokens."""

    def labels(self) -> list[str]:
        """What each answer token says."""
        return ["residue"]

    def prompts(
        self, operands: Sequence[str], numbers: Mapping[str, Int64[np.ndarray, " n"]]
    ) -> Int64[Tensor, "n pos"]:
        """Token ids: the operands in their order, and `=`.

        Raises:
            UserError: an operand is no residue.
        """
        columns = [torch.from_numpy(np.ascontiguousarray(numbers[name])) for name in operands]
        for name, column in zip(operands, columns, strict=True):
            low, high = int(column.min()), int(column.max())
            if low < 0 or high >= self.modulus:
                raise UserError(
                    f"expected operands in 0..{self.modulus - 1} (one token each), got {name} in "
                    f"{low}..{high}; set problems.operands={{min:0,max:{self.modulus - 1}}}"
                )
        return torch.stack([*columns, torch.full_like(columns[0], self.modulus)], dim=1)

    def encode(self, answers: Int64[Tensor, " n"]) -> Int64[Tensor, "n one"]:
        """Token ids of the answers.

        Raises:
            UserError: an answer is no residue.
        """
        low, high = int(answers.min()), int(answers.max())
        if low < 0 or high >= self.modulus:
            raise UserError(
                f"expected answers in 0..{self.modulus - 1} (one token each), got {low}..{high}; "
                f"train on an expression modulo {self.modulus}"
            )
        return answers[:, None]

    def tokens(self, number: int) -> tuple[int, ...]:
        """The token of one answer; none if it is no residue."""
        return (number,) if 0 <= number < self.modulus else ()

    def read(self, tokens: Sequence[int]) -> tuple[int | None, bool]:
        """The number that has been written, if it is one, and whether it is there."""
        if not tokens:
            return None, False
        return (tokens[0] if tokens[0] < self.modulus else None), True

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Never: an answer is one token."""
        return False

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens in words, with spaces between them."""
        return " ".join("=" if token == self.modulus else str(token) for token in tokens)

    def longest(self, bound: int) -> int:
        """Tokens in any answer."""
        return self.length


class ResidueDecoder(NativeDecoder):
    """Writes a residue after operands and `=`."""

    reader: Residues

    @staticmethod
    def answers_of(card: Card) -> Residues:
        return Residues(**card.facts["answer"])

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        expression = problems.template.expression
        assert self.trained_templates is not None
        if expression.source not in self.trained_templates:
            raise UserError(
                f"expected template.expression to be {' or '.join(self.trained_templates)} for "
                f"{self.name}, whose prompts hold the operands alone, got {expression.source}; "
                "choose template=modular_sum or another model"
            )
        operands = expression.operands
        return Prompts.uniform(
            self.reader.prompts(operands, problems.operands),
            labels=(*operands, "="),
            spans={name: (place,) for place, name in enumerate(operands)},
        )
