"""How a tokenizer splits numbers, and whether it has a chat template: in words, for any model."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from mech_arith.models.language.prompting import encode

SHOWN = ("7", "42", "617", "12345", " 42", "-5")
"""Texts that are shown split."""

TRIED = (*range(10), *range(10, 100, 7), *range(100, 1000, 73), 1000, 4096, 12345, 99999, 123456)
"""Numbers by which the rule is found out."""

BORDER = "|"
"""Between two tokens."""


def number_pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """The parts of each text that its tokens cover; a blank is a part of its own or of another's.

    Raises:
        UserError: the tokenizer is a slow one, or adds a token behind the text.
    """
    found = []
    for text, encoding in zip(texts, encode(texts, "comma", tokenizer), strict=True):
        # Special tokens cover nothing, and a blank that is added covers what the next one covers.
        ends = [end for start, end in encoding.offsets if end > start]
        borders = [0, *dict.fromkeys(accumulate(ends, max))]
        found.append([text[start:end] for start, end in pairwise(borders)])
    return found


def number_rule(tokenizer: PreTrainedTokenizerBase) -> str:
    """In which pieces numbers come: digit by digit, in groups, whole, or by frequency."""
    numbers = [str(number) for number in TRIED]
    pieces = number_pieces(numbers, tokenizer)
    longest = max(len(piece) for one in pieces for piece in one)
    if longest == 1:
        return "one token per digit"
    if pieces == [[number] for number in numbers]:
        return f"one token per number, up to {longest} digits at least"
    if pieces == [_groups(number, longest) for number in numbers]:
        return f"up to {longest} digits per token, from the left"
    if pieces == [
        [part[::-1] for part in _groups(number[::-1], longest)][::-1] for number in numbers
    ]:
        return f"up to {longest} digits per token, from the right"
    return f"up to {longest} digits per token, by frequency"


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """One line."""
    split = (BORDER.join(pieces) for pieces in number_pieces(SHOWN, tokenizer))
    has = "with" if tokenizer.chat_template else "without"
    return f"{number_rule(tokenizer)} ({', '.join(map(repr, split))}); {has} a chat template"


def _groups(number: str, size: int) -> list[str]:
    return [number[start : start + size] for start in range(0, len(number), size)]
