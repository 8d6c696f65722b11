"""Problems as a model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import pad

from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError, unknown
from mech_arith.models.kinds import ANSWER, EACH, EACH_ANSWER, PROMPT_AND_ANSWER

NO_TOKEN = -1
"""Where a row of tokens has ended."""

_ONE = f"{ANSWER}."
"""Before t: the position from which token t of the answer is read."""


def names_answer(position: str) -> bool:
    """Whether positions are named by the answer's tokens that are read there."""
    return position in (ANSWER, PROMPT_AND_ANSWER) or position.startswith(_ONE)


@dataclass(frozen=True)
class Layout:
    """Problems whose prompts have their parts at the same positions.

    Prompts are never padded: a set of problems whose numbers take one or two tokens has several
    layouts, and each is run by itself.
    """

    rows: Int64[Tensor, " rows"]
    """Which of the problems these are."""
    tokens: Int64[Tensor, "rows pos"]
    """What follows the shared prefix. Position 0 is the first token behind it."""
    labels: tuple[str, ...]
    """What stands at each position: the token's text, or an operand's digit such as 'a·100'."""
    spans: dict[str, tuple[int, ...]]
    """Value name -> positions of its tokens."""
    answer: Int64[Tensor, "rows length"] | None = None
    """Tokens of the right answers, `NO_TOKEN` behind the last, where positions of the answer are
    asked for: token t - 1 stands at `answer.t`, where token t is read. `labels` go on with them."""

    def __len__(self) -> int:
        return len(self.rows)

    def positions(self, name: str) -> tuple[int, ...]:
        """Token positions by name.

        Raises:
            UserError: no such position.
        """
        n_positions = self.tokens.shape[1]
        if names_answer(name):
            return self._answer_positions(name)
        operands = {i for value, span in self.spans.items() if value.isalpha() for i in span}
        named = {
            "all": tuple(range(n_positions)),
            "first": (0,),
            "last": (n_positions - 1,),
            "operands": tuple(sorted(operands)),
            **self.spans,
            **{f"{value}.last": span[-1:] for value, span in self.spans.items()},
        }
        if name in named:
            return named[name]
        if name.lstrip("-").isdigit() and -n_positions <= int(name) < n_positions:
            return (int(name) % n_positions,)
        if self.answer is not None and name.isdecimal():
            return self._answer_positions(f"{_ONE}{int(name) - n_positions + 1}")
        answer = (ANSWER, EACH_ANSWER, f"{_ONE}0", PROMPT_AND_ANSWER)
        raise unknown("position", name, [EACH, *named, f"0..{n_positions - 1}", *answer])

    def _answer_positions(self, name: str) -> tuple[int, ...]:
        """Token positions, on from the prompt's last one, from which the answer's tokens are read.

        Raises:
            UserError: not all answers are as long as that, or no such position.
            ValueError: nobody has put right answers behind these prompts.
        """
        last = self.tokens.shape[1] - 1
        shortest, longest = self.answer_lengths
        if name in (ANSWER, PROMPT_AND_ANSWER):
            if shortest < longest:
                raise UserError(
                    f"expected right answers of one length for positions {name!r}, got {shortest} "
                    f"to {longest} tokens; choose {_listed(shortest)}, which all problems have, or "
                    "problems.constraints that leave answers of one length"
                )
            start = last if name == ANSWER else 0
            return tuple(range(start, last + max(1, longest)))
        number = name.removeprefix(_ONE)
        if not number.isdecimal():
            known = [
                ANSWER,
                EACH_ANSWER,
                PROMPT_AND_ANSWER,
                f"{_ONE}0..{_ONE}{max(0, shortest - 1)}",
            ]
            raise unknown("position of the answer", name, known)
        if int(number) >= max(1, shortest):
            lengths = str(longest) if shortest == longest else f"{shortest} to {longest}"
            raise UserError(
                f"expected a position that the right answer of every problem has, of {lengths} "
                f"tokens, got {name!r}; choose {_listed(shortest)}"
            )
        return (last + int(number),)

    @property
    def answer_lengths(self) -> tuple[int, int]:
        """Tokens of the shortest and of the longest right answer."""
        if self.answer is None:
            raise ValueError("expected right answers behind the prompts, got none; use encode_for")
        lengths = (self.answer != NO_TOKEN).sum(1)
        return int(lengths.min()), int(lengths.max())

    def n_before(self, name: str) -> int:
        """Tokens of the right answer that stand behind the prompt, up to the last position."""
        return max(0, max(self.positions(name)) - self.tokens.shape[1] + 1)

    def n_ahead(self, name: str) -> int:
        """Tokens of the answer that are written before the model gets to the first position."""
        return max(0, min(self.positions(name)) - self.tokens.shape[1] + 1)

    def fits(self, name: str, length: int) -> bool:
        """Whether an answer of so many tokens has the positions, as many as these answers have."""
        needed = self.n_before(name) + 1
        return length == needed if name in (ANSWER, PROMPT_AND_ANSWER) else length >= needed

    def with_answer(self, n: int) -> Int64[Tensor, "rows all"]:
        """The prompts, and the first `n` tokens of their right answers behind them."""
        if n == 0:
            return self.tokens
        assert self.answer is not None
        return torch.cat([self.tokens, self.answer[:, :n]], dim=1)

    def is_like(self, other: "Layout") -> bool:
        """Whether both have their parts at the same positions."""
        return self.spans == other.spans and self.tokens.shape[1] == other.tokens.shape[1]

    def part(self, rows: slice | Tensor) -> "Layout":
        """Some of the problems."""
        answer = None if self.answer is None else self.answer[rows]
        return replace(self, rows=self.rows[rows], tokens=self.tokens[rows], answer=answer)


@dataclass(frozen=True)
class Prompts:
    """n problems as tokens: a prefix that all of them share, and layouts of the rest."""

    prefix: Int64[Tensor, " prefix"]
    """The first tokens of every prompt (few-shot examples); may be empty."""
    layouts: tuple[Layout, ...]

    def __len__(self) -> int:
        return sum(len(layout) for layout in self.layouts)

    def positions(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Token positions by name, for each layout; as many in each.

        Raises:
            UserError: no such position, or not the same number of tokens in all layouts.
        """
        if names_answer(name):
            self._all_answers().positions(name)
        found = tuple(layout.positions(name) for layout in self.layouts)
        widths = sorted({len(indices) for indices in found})
        if len(widths) > 1:
            raise UserError(
                f"expected positions {name!r} with as many tokens in every prompt, got "
                f"{' or '.join(map(str, widths))}; choose last, a value's last token (as in "
                "'a.last'), or operands of one length"
            )
        return found

    @property
    def answers(self) -> Int64[Tensor, "n length"] | None:
        """Tokens of the right answers, where they stand behind the prompts; `NO_TOKEN` behind the
        last.
        """
        parts = [layout.answer for layout in self.layouts if layout.answer is not None]
        if not parts:
            return None
        order = torch.cat([layout.rows for layout in self.layouts]).argsort()
        return _stacked(parts)[order]

    def digest(self) -> str:
        """SHA-256 of all tokens."""
        parts = [part for layout in self.layouts for part in (layout.rows, layout.tokens)]
        return tensor_digest(self.prefix, *parts)

    def _all_answers(self) -> Layout:
        """The right answers of all layouts, behind the prompts of the first one: for messages."""
        first = self.layouts[0]
        every = [layout.answer for layout in self.layouts if layout.answer is not None]
        if not every:
            return first
        tokens = first.tokens[:1].expand(len(self), -1)
        return replace(first, rows=torch.arange(len(self)), tokens=tokens, answer=_stacked(every))

    def positions_key(self, name: str) -> list[Any]:
        """The positions as plain data, with the tokens of the right answers that stand there."""
        indices = [list(indices) for indices in self.positions(name)]
        before = [layout.with_answer(layout.n_before(name)) for layout in self.layouts]
        reaches = any(
            tokens.shape[1] > layout.tokens.shape[1]
            for tokens, layout in zip(before, self.layouts, strict=True)
        )
        return [*indices, tensor_digest(*before)] if reaches else indices

    def single(self, name: str) -> tuple[int, str]:
        """Index and label of a position that is the same single token in all prompts.

        -1 and nothing where it is several tokens, or stands elsewhere in some prompts.
        """
        found = set(self.positions(name))
        indices = found.pop()
        if found or len(indices) != 1:
            return -1, ""
        labels = {layout.labels[indices[0]] for layout in self.layouts}
        return indices[0], labels.pop() if len(labels) == 1 else ""

    def joined(self, other: "Prompts") -> "Prompts":
        """These problems and others behind them."""
        layouts = list(self.layouts)
        for layout in other.layouts:
            moved = replace(layout, rows=layout.rows + len(self))
            same = [i for i, known in enumerate(layouts) if known.is_like(layout)]
            if same:
                known = layouts[same[0]]
                answers = [one.answer for one in (known, moved) if one.answer is not None]
                layouts[same[0]] = replace(
                    known,
                    rows=torch.cat([known.rows, moved.rows]),
                    tokens=torch.cat([known.tokens, moved.tokens]),
                    answer=_stacked(answers) if answers else None,
                )
            else:
                layouts.append(moved)
        return Prompts(self.prefix, tuple(layouts))

    def whole(self, layout: Layout, *, n_answer: int = 0) -> Int64[Tensor, "rows all"]:
        """The prompts of some of the problems with their prefix, and so many tokens behind them."""
        return torch.cat([self.prefix.expand(len(layout), -1), layout.with_answer(n_answer)], dim=1)

    def answered(self, answers: Sequence[Sequence[int]], labels: Sequence[str]) -> "Prompts":
        """The same prompts, with the tokens of their right answers behind them.

        Args:
            answers: of each problem; none where the model cannot write it.
            labels: what the tokens of an answer are, from the first on.
        """
        longest = max((len(tokens) for tokens in answers), default=0)
        padded = [[*tokens, *[NO_TOKEN] * (longest - len(tokens))] for tokens in answers]
        every = torch.tensor(padded, dtype=torch.int64).view(len(answers), longest)
        return Prompts(
            self.prefix,
            tuple(
                replace(layout, labels=(*layout.labels, *labels), answer=every[layout.rows])
                for layout in self.layouts
            ),
        )

    def take(self, n: int) -> "Prompts":
        """The first `n` problems."""
        parts = [layout.part(layout.rows < n) for layout in self.layouts]
        return Prompts(self.prefix, tuple(part for part in parts if len(part)))

    @classmethod
    def uniform(
        cls,
        tokens: Int64[Tensor, "n pos"],
        labels: Sequence[str],
        spans: dict[str, tuple[int, ...]],
    ) -> "Prompts":
        """Prompts of one layout, without a shared prefix."""
        layout = Layout(torch.arange(len(tokens)), tokens, tuple(labels), spans)
        return cls(torch.empty(0, dtype=torch.int64), (layout,))


def _stacked(answers: Sequence[Int64[Tensor, "_ _"]]) -> Int64[Tensor, "all longest"]:
    """Answers below each other, all as wide as the widest."""
    longest = max(tokens.shape[1] for tokens in answers)
    return torch.cat(
        [pad(tokens, (0, longest - tokens.shape[1]), value=NO_TOKEN) for tokens in answers]
    )


def _listed(shortest: int) -> str:
    """The positions that the answers of all problems have."""
    return f"{_ONE}0" if shortest <= 1 else f"{_ONE}0 to {_ONE}{shortest - 1}"
