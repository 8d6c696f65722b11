"""How a GGUF file splits numbers into tokens, and whether a tokenizer does the same.

transformers rebuilds a tokenizer from the file's tokens and merges. The rule by which text is cut
before that has a name in the file, `tokenizer.ggml.pre`. transformers does not know all names; for
the others it takes GPT-2's rule. What is computed here comes from the file alone.

Source: llama.cpp, `llama-vocab.cpp`, has the rule of each name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import transformers
from tokenizers import decoders
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Sequence
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mech_arith.common.errors import UserError
from mech_arith.models.language.gguf_file import GGUFFile

BYTE_LEVEL = "gpt2"
"""What `tokenizer.ggml.model` calls byte-level BPE; the others are SentencePiece's."""


class DigitRule(StrEnum):
    """How a number is cut before its pieces are merged."""

    APART = "each digit apart"
    THREES = "three digits at a time"
    RUNS = "whole, with the blank before it"


MENDED = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Names whose rule transformers does not know: each digit apart, then GPT-2's."""

LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2")
"""Names whose tokenizer takes what is a token as it is, and puts a BOS before every text unless the
file says otherwise."""

RULES: dict[str, DigitRule] = {
    **dict.fromkeys(MENDED, DigitRule.APART),
    **dict.fromkeys(("qwen2", "qwen35", "tekken", "deepseek-r1-qwen", "megrez"), DigitRule.APART),
    **dict.fromkeys(("deepseek-coder", "viking", "stablelm2"), DigitRule.APART),
    **dict.fromkeys(LLAMA3, DigitRule.THREES),
    **dict.fromkeys(("dbrx", "smaug-bpe", "gpt-4o", "llama4"), DigitRule.THREES),
    **dict.fromkeys(("deepseek-v3", "chatglm-bpe", "minimax-m2"), DigitRule.THREES),
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "phi-2", "jais", "roberta-bpe"), DigitRule.RUNS),
}
"""By the name in `tokenizer.ggml.pre`."""

NUMBERS = (
    *map(str, range(1000)),
    *("1000", "1001", "1234", "2048", "5000", "9999"),
    *("10000", "12345", "99999", "100000", "123456", "999999", "1234567"),
)
"""That are split to compare."""


@dataclass(frozen=True)
class DigitTable:
    """The tokens of a file that are digits, perhaps after a blank, and how they are merged."""

    tokens: frozenset[str]
    blank: str
    """How a blank is written: Ġ or ▁."""
    ranks: Mapping[tuple[str, str], float]
    """The pair with the lowest is merged first."""
    rule: DigitRule
    whole: bool
    """A piece that is a token is taken as it is."""

    def split(self, number: str, *, after_blank: bool) -> list[str]:
        """The tokens of a number."""
        blank = self.blank if after_blank else ""
        pieces = {
            DigitRule.APART: [blank, *number],
            DigitRule.THREES: [blank, *(number[i : i + 3] for i in range(0, len(number), 3))],
            DigitRule.RUNS: [blank + number],
        }[self.rule]
        return [token for piece in pieces for token in self._merged(piece)]

    def _merged(self, piece: str) -> list[str]:
        if self.whole and piece in self.tokens:
            return [piece]
        parts = list(piece)
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            rank, at = min((self.ranks.get(pair, float("inf")), i) for i, pair in enumerate(pairs))
            if rank == float("inf"):
                break
            parts[at : at + 2] = ["".join(pairs[at])]
        return parts


def read_digits(file: GGUFFile) -> DigitTable:
    """What a file's own tokens and merges say.

    Raises:
        UserError: a digit is no token, or tokens of several digits are put together by a rule that
            is not known here.
    """
    byte_level = file.metadata["tokenizer.ggml.model"] == BYTE_LEVEL
    blank = "Ġ" if byte_level else "▁"
    ids = {token: i for i, token in enumerate(file.texts("tokenizer.ggml.tokens") or [])}
    tokens = frozenset(token for token in ids if _is_number(token.removeprefix(blank)))
    missing = sorted(set("0123456789") - tokens)
    if missing:
        raise UserError(
            f"expected a token for each digit in {file.path}, found none for {missing[0]}; choose "
            "a model that reads numbers by their digits"
        )
    merges = file.texts("tokenizer.ggml.merges")
    if merges is not None:
        split = (merge.partition(" ") for merge in merges)
        ranks = {(left, right): float(rank) for rank, (left, _, right) in enumerate(split)}
    else:
        scores = file.metadata.get("tokenizer.ggml.scores") or [0.0] * len(ids)
        ranks = {
            (token[:i], token[i:]): -scores[ids[token]]
            for token in tokens
            for i in range(1, len(token))
        }
    ranks = {pair: rank for pair, rank in ranks.items() if "".join(pair) in tokens}
    whole = file.metadata.get("tokenizer.ggml.pre") in LLAMA3
    return DigitTable(tokens, blank, ranks, _rule(file, tokens, byte_level), whole)


def _rule(file: GGUFFile, tokens: frozenset[str], byte_level: bool) -> DigitRule:
    if max(map(len, tokens)) == 1:
        return DigitRule.APART  # whatever is cut before: nothing can be merged
    if not byte_level:
        return DigitRule.RUNS  # SentencePiece cuts nothing before
    name = file.metadata.get("tokenizer.ggml.pre")
    if name not in RULES:
        longest = max(tokens, key=len)
        raise UserError(
            f"expected a file whose rule for digits is known ({', '.join(sorted(RULES))}), got "
            f"tokenizer.ggml.pre={name!r} and tokens such as {longest!r} in {file.path}; take the "
            "Hugging Face directory that the file was made from, with model=hf_dir"
        )
    return RULES[name]


def mend(tokenizer: PreTrainedTokenizerBase, file: GGUFFile) -> None:
    """Cut text as the file says, where transformers does not do so by itself."""
    backend: Any = tokenizer.backend_tokenizer
    name = file.metadata.get("tokenizer.ggml.pre")
    if name in LLAMA3:
        backend.model.ignore_merges = True
        if "tokenizer.ggml.add_bos_token" not in file.metadata:
            tokenizer.add_bos_token = True
    if isinstance(backend.pre_tokenizer, Metaspace) and not _begins_with_blank(file):
        backend.pre_tokenizer = Metaspace(prepend_scheme="never", split=False)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if name in MENDED:
        backend.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )


def check_digits(tokenizer: PreTrainedTokenizerBase, file: GGUFFile) -> None:
    """Compare how numbers are split: at the beginning of a text, behind a sign, behind a blank.

    Raises:
        UserError: one of them is split otherwise than the file says.
    """
    table = read_digits(file)
    for before, after_blank in (("", _begins_with_blank(file)), ("x =", False), ("x = ", True)):
        texts = [f"{before}{number}" for number in NUMBERS]
        split = tokenizer(texts, add_special_tokens=False).input_ids
        for number, text, ids in zip(NUMBERS, texts, split, strict=True):
            ours = table.split(number, after_blank=after_blank)
            theirs = list(tokenizer.convert_ids_to_tokens(ids))
            if before:  # what stands before may have been merged with the blank
                ours, theirs = _with_digits(ours), _with_digits(theirs)
            if theirs != ours:
                raise UserError(
                    f"expected the number in {text!r} as {' '.join(ours)}, which the tokens and "
                    f"merges in {file.path} say, got {' '.join(theirs)} from the tokenizer that "
                    f"transformers {transformers.__version__} makes of it (tokenizer.ggml.pre="
                    f"{file.metadata.get('tokenizer.ggml.pre')!r}); take the Hugging Face "
                    "directory that the file was made from, with model=hf_dir"
                )


def _begins_with_blank(file: GGUFFile) -> bool:
    """Whether a text gets a blank before it, as SentencePiece's do unless the file says no."""
    is_spm = file.metadata["tokenizer.ggml.model"] != BYTE_LEVEL
    return is_spm and file.metadata.get("tokenizer.ggml.add_space_prefix", True)


def _with_digits(words: list[str]) -> list[str]:
    return [word for word in words if any(character.isdigit() for character in word)]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
