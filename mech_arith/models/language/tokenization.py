"""Prompts of language models as tokens, and the numbers that they write."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, takewhile
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mech_arith.common.errors import UserError
from mech_arith.models.language.numerals import longest_text, read_numeral
from mech_arith.models.language.prompting import (
    PROBES,
    Frame,
    Prompting,
    build_frame,
    encode,
    probe_prompts,
    questions,
)
from mech_arith.models.language.styles import STYLES
from mech_arith.models.prompts import Layout, Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.templates import Prompt, Span, Template, build_template, spans_to_tokens

BLANK = "␣"
"""The label of a token of spaces."""

Tokens = tuple[int, ...]
_Places = tuple[tuple[int, ...], ...]

_CHUNK = 1024
_EQUATION = build_template("equation", "a-b")


def tokenize(
    problems: ProblemSet, prompting: Prompting, tokenizer: PreTrainedTokenizerBase
) -> Prompts:
    """Problems as tokens: the shared prefix cut off, the rest in layouts.

    The prefix ends at or before the question's first character, and is the same for all problems
    of a template, drawn or not. Layouts come in order of their number of tokens, then of their
    values' positions. The tokens of an operand are labelled with its name (`a`; `a·0`, `a·1`, ...
    where a number takes several), all others with their text.

    Raises:
        UserError: as `build_frame`; an operand shares a token with its surroundings; or answers
            are negative where the tokenizer merges their sign with the prompt.
    """
    frame = build_frame(problems.template, prompting, tokenizer)
    _check_answers(problems, frame, prompting.style)
    codec = _Codec(tokenizer, prompting.style)
    prefix = _prefix(frame, problems.template, codec)
    prompts = [frame.write(question) for question in questions(problems, prompting.style)]
    layouts: dict[tuple[int, _Places], list[_Cut]] = {}
    for cut in _cuts(prompts, prefix, codec):
        places = _places(cut, problems.template, codec)
        _check_answer(cut, problems, frame, prefix, codec)
        layouts.setdefault((len(cut.offsets), places), []).append(cut)
    return Prompts(
        torch.tensor(prefix, dtype=torch.int64),
        tuple(_layout(layouts[key], key[1], problems.template) for key in sorted(layouts)),
    )


class AnswerReader:
    """How a model writes numbers behind its prompts, and how they are read: see `numerals`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompting: Prompting,
        *,
        template: Template | None = None,
    ) -> None:
        """Find out how this tokenizer writes numbers behind prompts of this style.

        Args:
            tokenizer: the model's.
            prompting: how it is asked.
            template: the problems'; by default the examples', or else the expression `a-b`.

        Raises:
            UserError: as `build_frame`, or the tokenizer does not give back what it is given.
        """
        if template is None:
            template = _EQUATION if prompting.shots is None else prompting.shots.template
        frame = build_frame(template, prompting, tokenizer)
        self._codec = _Codec(tokenizer, prompting.style)
        self._pad = frame.pad
        self._prompt = probe_prompts(frame, template, prompting.style, PROBES[:1])[0]
        self._start = self._codec.ids(self._prompt)
        self._written = lru_cache(maxsize=2**16)(self._tokens)
        for number in PROBES:
            tokens = self.tokens(number)
            if tokens and self.read(tokens) != (number, False):
                raise UserError(
                    f"expected a tokenizer that decodes the tokens of {number} to itself, got "
                    f"{self._codec.decode(tokens)!r}; choose another model or repair its tokenizer"
                )
        self._fed_behind = self._expected_behind(STYLES[prompting.style].end)

    @property
    def behind(self) -> Tokens:
        """What the examples write behind an answer, as far as it takes to see that it has ended."""
        return self._fed_behind

    def tokens(self, number: int) -> Tokens:
        """The tokens behind the prompt when the answer is `number`, without what ends it.

        None of them where the tokenizer merges the number (a minus sign) with the prompt.
        """
        return self._written(number)

    def _tokens(self, number: int) -> Tokens:
        ids = self._codec.ids(f"{self._prompt}{self._pad}{number}")
        return ids[len(self._start) :] if ids[: len(self._start)] == self._start else ()

    def read(self, tokens: Sequence[int]) -> tuple[int | None, bool]:
        """The number written so far, and whether it has ended.

        None is no number: not yet, or, if that has ended, never.
        """
        numeral = read_numeral(self.text(tokens))
        return numeral.number, numeral.ended

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Whether a separator ended the number with digits behind it that make no group of three.

        A person might read another number there.
        """
        return read_numeral(self.text(tokens)).is_cut

    def text(self, tokens: Sequence[int]) -> str:
        """What has been written, as text."""
        return self._codec.decode(tuple(tokens))

    def _expected_behind(self, end: str) -> Tokens:
        answer = self.tokens(PROBES[0])
        ids = self._codec.ids(f"{self._prompt}{self._pad}{PROBES[0]}{end}")[len(self._start) :]
        if ids[: len(answer)] != answer:
            return ()
        behind = ids[len(answer) :]
        needed = (n for n in range(len(behind)) if self.read(answer + behind[: n + 1])[1])
        # The last of them need not be fed: it is read behind the others.
        return behind[: next(needed, len(behind))]

    @property
    def longer(self) -> Int64[Tensor, " some"]:
        """The tokens that begin with a digit: behind a number they make it a longer one."""
        return self._codec.digits

    def longest(self, bound: int) -> int:
        """Tokens within which every answer has ended that is read: no more than characters."""
        return longest_text(bound)


class _Codec:
    """A tokenizer as one style uses it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str) -> None:
        self.decode = lru_cache(maxsize=2**16)(self._decode)
        self.digits = _digits(tokenizer)
        self.style = style
        self._tokenizer = tokenizer

    def ids(self, text: str) -> Tokens:
        """One text's tokens."""
        return tuple(encode([text], self.style, self._tokenizer)[0].ids)

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Tokens, tuple[Span, ...]]]:
        """Each text's tokens and the characters that they cover."""
        for encoding in encode(texts, self.style, self._tokenizer):
            ids, offsets = tuple(encoding.ids), list(encoding.offsets)
            for index, ((start, end), (after, _)) in enumerate(pairwise(encoding.offsets)):
                # A space that a tokenizer of SentencePiece's kind puts before a text is no part of
                # it, but is said to cover its first character.
                if start == after < end and not self.decode((ids[index],)).strip():
                    offsets[index] = (start, start)
            yield ids, tuple(offsets)

    def _decode(self, tokens: Tokens) -> str:
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)  # a list only for a batch
        return text


_known_digits: WeakKeyDictionary[PreTrainedTokenizerBase, Int64[Tensor, " some"]] = (
    WeakKeyDictionary()
)
"""Of each tokenizer, whose vocabulary takes longer to look through than problems to encode."""


def _digits(tokenizer: PreTrainedTokenizerBase) -> Int64[Tensor, " some"]:
    """The tokens that begin with a digit."""
    if tokenizer not in _known_digits:
        vocabulary = tokenizer.get_vocab().items()
        found = sorted(token for text, token in vocabulary if re.match("[0-9]", text))
        _known_digits[tokenizer] = torch.tensor(found, dtype=torch.int64)
    return _known_digits[tokenizer]


@dataclass
class _Cut:
    """Problems whose prompts are cut into tokens at the same characters."""

    offsets: tuple[Span, ...]
    """Of the tokens behind the prefix, in characters of the whole prompt."""

    prompts: list[Prompt] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)

    def covering(self, span: Span) -> list[int]:
        """The tokens that hold a character of `span`."""
        return spans_to_tokens({"": [span]}, self.offsets)[""]


def _prefix(frame: Frame, template: Template, codec: _Codec) -> Tokens:
    """The tokens before the question that are the same whatever its numbers are."""
    start = len(frame.literals[0])
    probes = probe_prompts(frame, template, codec.style, PROBES)
    before = [
        ids[: sum(end <= start for _, end in offsets)] for ids, offsets in codec.encode(probes)
    ]
    # Probes differ in length: the columns end with the shortest.
    columns = zip(*before, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def _cuts(prompts: Sequence[Prompt], prefix: Tokens, codec: _Codec) -> list[_Cut]:
    """The prompts' tokens behind the prefix.

    Raises:
        UserError: a prompt does not begin with the prefix.
    """
    cuts: dict[tuple, _Cut] = {}
    n_prefix = len(prefix)
    for first in range(0, len(prompts), _CHUNK):
        chunk = prompts[first : first + _CHUNK]
        encoded = codec.encode([prompt.text for prompt in chunk])
        for row, (prompt, (ids, offsets)) in enumerate(zip(chunk, encoded, strict=True), first):
            if ids[:n_prefix] != prefix:
                raise UserError(
                    "expected the examples to have the same tokens before every problem, got "
                    f"others before {prompt.text[-40:]!r}; choose another prompt.style"
                )
            offsets = offsets[n_prefix:]
            key = (offsets, *map(tuple, prompt.spans.values()))
            cut = cuts.setdefault(key, _Cut(offsets))
            cut.prompts.append(prompt)
            cut.rows.append(row)
            cut.tokens.append(ids[n_prefix:])
    return list(cuts.values())


def _places(cut: _Cut, template: Template, codec: _Codec) -> _Places:
    """Each value's token positions; every operand has tokens of its own.

    A token of a larger value may hold its surroundings too (`-(` or `)=`), but never another
    operand: that one would have no token of its own.

    Raises:
        UserError: an operand shares a token with its surroundings.
    """
    for operand in template.expression.operands:
        for span in cut.prompts[0].spans[operand]:
            held = cut.covering(span)
            start, end = cut.offsets[held[0]][0], cut.offsets[held[-1]][1]
            for prompt, tokens in zip(cut.prompts, cut.tokens, strict=True):
                wanted = prompt.text[slice(*span)]
                written = codec.decode(tokens[held[0] : held[-1] + 1])
                if not prompt.text[start:end].lstrip() == wanted == written.strip():
                    raise UserError(
                        f"expected operand {operand!r} ({wanted}) as tokens of its own, got the "
                        f"token text {prompt.text[start:end]!r} (decoded {written!r}); choose "
                        "another prompt.style, such as spaced, or another model"
                    )
    found = spans_to_tokens(cut.prompts[0].spans, cut.offsets)
    return tuple(tuple(found[value]) for value in template.expression.values)


def _layout(cuts: Sequence[_Cut], places: _Places, template: Template) -> Layout:
    rows = torch.tensor([row for cut in cuts for row in cut.rows])
    tokens = torch.tensor([tokens for cut in cuts for tokens in cut.tokens])
    order = rows.argsort()
    columns = zip(*(_labels(cut, template) for cut in cuts), strict=True)
    return Layout(
        rows[order],
        tokens[order],
        tuple("|".join(sorted(set(column))) for column in columns),
        dict(zip(template.expression.values, places, strict=True)),
    )


def _labels(cut: _Cut, template: Template) -> list[str]:
    prompt = cut.prompts[0]
    labels = [repr(prompt.text[start:end].strip(" ") or BLANK)[1:-1] for start, end in cut.offsets]
    for operand in template.expression.operands:
        for span in prompt.spans[operand]:
            held = cut.covering(span)
            for index, position in enumerate(held):
                labels[position] = operand if len(held) == 1 else f"{operand}·{index}"
    return labels


def _check_answers(problems: ProblemSet, frame: Frame, style: str) -> None:
    """Refuse negative answers where no prompt of theirs ends with tokens of its own."""
    n_negative = int((problems.answers < 0).sum())
    if n_negative and not frame.takes_negatives:
        raise UserError(
            f"expected no negative answers in prompt style {style!r}, where the tokenizer merges "
            f"the end of the prompt with a minus sign, got {n_negative} of {len(problems)}; choose "
            "prompt.style=spaced, show one in an example, or set problems.constraints"
        )


def _check_answer(
    cut: _Cut, problems: ProblemSet, frame: Frame, prefix: Tokens, codec: _Codec
) -> None:
    """The first problem's answer leaves the prompt's tokens as they are."""
    text = cut.prompts[0].text + frame.pad + str(problems.answers[cut.rows[0]])
    prompt = prefix + cut.tokens[0]
    if codec.ids(text)[: len(prompt)] != prompt:
        raise UserError(
            f"expected the answer's tokens behind the prompt's, but the tokenizer merges the two "
            f"in {text[-40:]!r}; choose another prompt.style"
        )
