"""One token per digit and symbol: prompts and written answers as token ids.

Prompts are laid out with operands of one fixed width, so that every problem of a template has its
operands at the same positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.expressions import Expression, Rendered

PAD = "_"
"""The token on the left of prompts shorter than the model's fixed prompt length."""
CLS = "[CLS]"
DIGITS = "0123456789"

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in id order; each is one character, but for special ones in brackets."""

    tokens: tuple[str, ...]

    def id(self, token: str) -> int:
        """The id of one token.

        Raises:
            UserError: the vocabulary has no such token.
        """
        try:
            return self.tokens.index(token)
        except ValueError:
            readable = "".join(t for t in self.tokens if len(t) == 1 and t != PAD)
            raise UserError(
                f"expected a prompt of the characters {readable!r}, got {token!r}; "
                "choose a symbolic template or another model"
            ) from None

    @cached_property
    def digits(self) -> Int64[Tensor, " 10"]:
        """Token ids of the digits 0 to 9."""
        return torch.tensor([self.id(digit) for digit in DIGITS])


ARITHMETIC = Vocabulary((PAD, *DIGITS, *"+-()="))
"""What the decoder reads and writes."""

ENCODER = Vocabulary((CLS, *DIGITS, *"+-()"))
"""What the encoder reads."""


def digits_of(numbers: Int64[Tensor, " n"], width: int) -> Int64[Tensor, "n width"]:
    """Decimal digits of non-negative numbers, most significant first."""
    powers = 10 ** torch.arange(width - 1, -1, -1, device=numbers.device)
    return numbers[:, None] // powers % 10


def layout(expression: Expression, width: int) -> Rendered:
    """The prompt with every operand `width` characters wide, all zeros, and where each value is."""
    return expression.render(dict.fromkeys(expression.operands, "0" * width))


def encode_expression(
    expression: Expression,
    operands: Mapping[str, Int64[np.ndarray, " n"]],
    *,
    vocabulary: Vocabulary,
    width: int,
) -> Int64[Tensor, "n pos"]:
    """Token ids of an expression's problems, without special tokens.

    Raises:
        UserError: a character that the vocabulary lacks, a negative operand, or one of more than
            `width` digits.
    """
    frame = layout(expression, width)
    n = len(next(iter(operands.values())))
    tokens = torch.tensor([vocabulary.id(char) for char in frame.text]).repeat(n, 1)
    for operand in expression.operands:
        numbers = torch.from_numpy(np.ascontiguousarray(operands[operand]))
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= 10**width:
            raise UserError(
                f"expected operands in 0..{10**width - 1} ({width} digits), got {operand} in "
                f"{low}..{high}; narrow problems.operands"
            )
        digits = vocabulary.digits[digits_of(numbers, width)]
        for start, end in frame.spans[operand]:
            tokens[:, start:end] = digits
    return tokens


def blanks_before(length: int, prompt_length: int, *, reader: str) -> int:
    """How many blanks stand before `length` characters and `=` in a prompt of fixed length.

    Raises:
        UserError: the prompt would be longer than that.
    """
    blanks = prompt_length - 1 - length
    if blanks < 0:
        raise UserError(
            f"expected prompts of at most {prompt_length} tokens for {reader}, got {length + 1}; "
            "choose a shorter template or smaller operands, or train a decoder with a larger "
            "prompt_length"
        )
    return blanks


class SignPlace(StrEnum):
    """Where the written answer has its sign."""

    FIRST = "first"
    LAST = "last"


class DigitOrder(StrEnum):
    """The order in which the written answer's digits come."""

    UNITS_FIRST = "units_first"
    UNITS_LAST = "units_last"


class Negatives(StrEnum):
    """How a negative answer's digits are written."""

    MAGNITUDE = "magnitude"
    COMPLEMENT = "complement"
    """Ten's complement: -37 in four digits is 9963. Each digit then depends on its own column and
    those below it alone, not on the sign."""


def _member(choices: type[Choice], name: str, kind: str) -> Choice:
    try:
        return choices(name)
    except ValueError:
        raise unknown(kind, name, choices) from None


@dataclass(frozen=True)
class AnswerFormat:
    """How a number is written out: a sign and `width` digits, zero-padded."""

    width: int = 4
    sign: SignPlace = SignPlace.FIRST
    digits: DigitOrder = DigitOrder.UNITS_FIRST
    negatives: Negatives = Negatives.MAGNITUDE

    @classmethod
    def named(cls, *, width: int, sign: str, digits: str, negatives: str) -> "AnswerFormat":
        """The format that a config or a card names.

        Raises:
            UserError: an unknown name.
        """
        return cls(
            width,
            _member(SignPlace, sign, "answer.sign"),
            _member(DigitOrder, digits, "answer.digits"),
            _member(Negatives, negatives, "answer.negatives"),
        )

    @property
    def length(self) -> int:
        """Tokens in an answer."""
        return self.width + 1

    @property
    def sign_index(self) -> int:
        """The sign's place in the answer."""
        return 0 if self.sign == SignPlace.FIRST else self.width

    def labels(self) -> list[str]:
        """What each answer token says: 'sign', '10^0', '10^1', ..."""
        powers = [f"10^{power}" for power in range(self.width)]
        if self.digits == DigitOrder.UNITS_LAST:
            powers.reverse()
        powers.insert(self.sign_index, "sign")
        return powers

    def encode(self, answers: Int64[Tensor, " n"]) -> Int64[Tensor, "n length"]:
        """Token ids of the answers.

        Raises:
            UserError: an answer has more than `width` digits.
        """
        if int(answers.abs().max()) >= 10**self.width:
            raise UserError(
                f"expected answers of at most {self.width} digits, got "
                f"{int(answers.abs().max())}; narrow the operands"
            )
        modulus = 10**self.width
        magnitude = answers % modulus if self._complement else answers.abs()
        digits = ARITHMETIC.digits[digits_of(magnitude, self.width)]
        if self.digits == DigitOrder.UNITS_FIRST:
            digits = digits.flip(1)
        sign = torch.where(answers < 0, ARITHMETIC.id("-"), ARITHMETIC.id("+"))[:, None]
        parts = [sign, digits] if self.sign == SignPlace.FIRST else [digits, sign]
        return torch.cat(parts, dim=1)

    def tokens(self, number: int) -> tuple[int, ...]:
        """The tokens of one answer; none if it has more than `width` digits."""
        if abs(number) >= 10**self.width:
            return ()
        # Plain numbers, as in `read`: one by one, tensors would take a hundred times as long.
        magnitude = number % 10**self.width if self._complement else abs(number)
        digits = [ARITHMETIC.id(digit) for digit in f"{magnitude:0{self.width}d}"]
        if self.digits == DigitOrder.UNITS_FIRST:
            digits.reverse()
        digits.insert(self.sign_index, ARITHMETIC.id("-" if number < 0 else "+"))
        return tuple(digits)

    def read(self, tokens: Sequence[int]) -> tuple[int | None, bool]:
        """The number that has been written, if it is one, and whether all its tokens are there."""
        if len(tokens) < self.length:
            return None, False
        # Plain numbers: edited answers are read one by one, by the hundred thousand.
        sign, zero = tokens[self.sign_index], ARITHMETIC.id("0")
        digits = [token - zero for at, token in enumerate(tokens) if at != self.sign_index]
        if self.digits == DigitOrder.UNITS_LAST:
            digits.reverse()
        negative = sign == ARITHMETIC.id("-")
        if not (negative or sign == ARITHMETIC.id("+")) or not all(0 <= d <= 9 for d in digits):
            return None, True
        magnitude = sum(digit * 10**power for power, digit in enumerate(digits))
        if not negative:
            return magnitude, True
        return (magnitude - 10**self.width if self._complement else -magnitude), True

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Never: all answers have as many digits."""
        return False

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens as characters."""
        return "".join(ARITHMETIC.tokens[token] for token in tokens)

    def longest(self, bound: int) -> int:
        """Tokens in any answer."""
        return self.length

    @property
    def behind(self) -> tuple[int, ...]:
        """Nothing: an answer ends with its last token."""
        return ()

    @property
    def longer(self) -> None:
        """All answers have as many tokens."""
        return None

    @property
    def _complement(self) -> bool:
        return self.negatives == Negatives.COMPLEMENT
