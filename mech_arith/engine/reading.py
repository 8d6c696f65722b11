"""From read-outs to answers: what is written greedily, and how likely the right answer was.

The tokens of the right answer are fed behind the prompt, so that one pass gives the probability of
the whole right answer and the greedy answer too, as long as the two agree. Rows that write
something else go on by themselves, until what they have written has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.answers import Answers
from mech_arith.digests import tensor_digest
from mech_arith.engine.passes import READ_OUT_ELEMENTS, Rows, Written
from mech_arith.problems import ProblemSet, counterfactual_answers
from mech_arith.solvers.base import AnswerReader, Solver
from mech_arith.solvers.numerals import most_digits

NO_TOKEN = -1


@dataclass(frozen=True)
class Asked:
    """What is right, and what would be instead, for n problems."""

    right: Float64[Tensor, " n"]
    counterfactual: Float64[Tensor, " n"]
    """NaN where there is none."""
    bound: int
    """No right answer among all problems is larger. It does not follow the batch, so that how long
    an answer may be does not either."""

    @classmethod
    def of_problems(cls, problems: ProblemSet, *, seed: int = 0) -> "Asked":
        """The right answers, and drawn by the seed those of other problems."""
        right = torch.from_numpy(problems.answers).double()
        other = counterfactual_answers(problems, seed=seed)
        none = torch.full_like(right, torch.nan)
        instead = none if other is None else torch.from_numpy(other).double()
        return cls(right, instead, int(np.abs(problems.answers).max()))

    def of(self, rows: Int64[Tensor, " m"]) -> "Asked":
        """Some of the problems."""
        return replace(self, right=self.right[rows], counterfactual=self.counterfactual[rows])

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Forced:
    """The right answers of n problems as tokens."""

    right: Int64[Tensor, "n length"]
    """`NO_TOKEN` behind the last."""
    expected: Int64[Tensor, "n expected"]
    """Those, and what usually follows them; `NO_TOKEN` behind the last."""
    differs_at: Int64[Tensor, " n"]
    """The first token in which the counterfactual answer is another; `NO_TOKEN` for none."""
    counterfactual: Int64[Tensor, " n"]
    """That token of the counterfactual answer."""
    fed: Int64[Tensor, "n fed"]
    """What is fed behind the prompt: as much as it takes to see where the right answer ends."""

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return tensor_digest(*vars(self).values())


def force(solver: Solver, asked: Asked) -> Forced:
    """The tokens of the right answers, and where the counterfactual ones part from them."""
    reader = solver.reader
    if reader is None:
        nothing = torch.empty(len(asked), 0, dtype=torch.int64)
        none = torch.full((len(asked),), NO_TOKEN)
        return Forced(nothing, nothing, none, none, nothing)
    right = [_tokens(reader, number) for number in asked.right.tolist()]
    other = [_tokens(reader, number) for number in asked.counterfactual.tolist()]
    differs = [_first_difference(*pair) for pair in zip(right, other, strict=True)]
    expected = [(*tokens, *reader.behind) if tokens else () for tokens in right]
    # The last token of an answer of fixed length need not be fed: nothing is read behind it.
    fed = [tokens[:-1] if tokens and reader.read(tokens)[1] else tokens for tokens in expected]
    return Forced(
        right=_padded(right, fill=NO_TOKEN),
        expected=_padded(expected, fill=NO_TOKEN),
        differs_at=torch.tensor(differs),
        counterfactual=torch.tensor(
            [tokens[at] if at >= 0 else NO_TOKEN for tokens, at in zip(other, differs, strict=True)]
        ),
        fed=_padded(fed, fill=0),
    )


def _tokens(reader: AnswerReader, number: float) -> Written:
    return reader.tokens(int(number)) if number == number and number == int(number) else ()


def _first_difference(right: Written, other: Written) -> int:
    """Where two answers part; `NO_TOKEN` if one of them is the beginning of the other."""
    pairs = enumerate(zip(right, other, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), NO_TOKEN)


def _padded(rows: Sequence[Written], *, fill: int) -> Int64[Tensor, "n length"]:
    length = max((len(row) for row in rows), default=0)
    filled = [[*row, *[fill] * (length - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int64).view(len(rows), length)


@torch.inference_mode()
def read_answers(
    solver: Solver, rows: Rows, forced: Forced, asked: Asked, *, n_edits: int
) -> Answers:
    """The answers of a grid of problems x edits, as [edits, problems]."""
    return read_written(solver, rows, forced, asked, n_edits=n_edits)[0]


@torch.inference_mode()
def read_written(
    solver: Solver, rows: Rows, forced: Forced, asked: Asked, *, n_edits: int
) -> tuple[Answers, Int64[Tensor, "rows written"]]:
    """The same, and what was written, as far as it was needed: `NO_TOKEN` behind the last token."""
    n = len(asked)
    if solver.reader is None:
        numbers = torch.cat([read[:, 0, 0].double().cpu() for _, read in rows.read_outs()])
        answers = Answers.empty(n_edits, n)
        answers.numbers[:] = numbers.view(n, n_edits).mT
        return answers, torch.empty(n * n_edits, 0, dtype=torch.int64)
    log_prob, difference, greedy = [], [], []
    for part, read in rows.read_outs():
        problems = torch.arange(n * n_edits)[part] // n_edits
        found = _measure(read, forced, problems, solver.reader.longer)
        for kept, new in zip((log_prob, difference, greedy), found, strict=True):
            kept.append(new)
    at_a_time = max(1, READ_OUT_ELEMENTS // solver.width_out)
    writing = _Writing(solver.reader, rows, forced, n_edits, asked.bound, at_a_time)
    numbers, written = writing.finish(torch.cat(greedy))
    parts = (numbers, torch.cat(log_prob), torch.cat(difference))
    answers = Answers(*(part.view(n, n_edits).mT for part in parts))
    return answers, _padded(written, fill=NO_TOKEN)


def _measure(
    read: Tensor,
    forced: Forced,
    problems: Int64[Tensor, " rows"],
    longer: Int64[Tensor, " some"] | None,
) -> tuple[Float64[Tensor, " rows"], Float64[Tensor, " rows"], Int64[Tensor, "rows fed"]]:
    """Log-probability of the right answer, its logit difference, and the likeliest tokens."""
    device = read.device
    right = forced.right[problems].to(device)
    length, known = right.shape[1], right != NO_TOKEN
    logits = read[:, :length].gather(2, right.clamp(min=0)[..., None])[..., 0].double()
    log_prob = (logits - read[:, :length].logsumexp(-1).double()).masked_fill(~known, 0.0).sum(1)
    if longer is not None:
        log_prob += _log_prob_of_end(read, known.sum(1), longer.to(device))
    log_prob = log_prob.masked_fill(~known.any(1), torch.nan)

    at = forced.differs_at[problems].to(device)
    row, place = torch.arange(len(read), device=device), at.clamp(min=0)
    other = forced.counterfactual[problems].to(device).clamp(min=0)
    if length:
        difference = logits[row, place] - read[row, place, other].double()
    else:
        difference = torch.full_like(log_prob, torch.nan)
    difference = difference.masked_fill(at < 0, torch.nan)
    return log_prob.cpu(), difference.cpu(), read.argmax(-1).cpu()


def _log_prob_of_end(
    read: Tensor, lengths: Int64[Tensor, " rows"], longer: Int64[Tensor, " some"]
) -> Float64[Tensor, " rows"]:
    """That nothing follows which would make the answer a longer number: 1 is not 12."""
    behind = read[torch.arange(len(read), device=read.device), lengths]
    whole = behind.logsumexp(-1).double()
    return behind.index_fill(1, longer, -torch.inf).logsumexp(-1).double() - whole


class _Writing:
    """Greedy answers, from where they part from the right ones."""

    def __init__(
        self,
        reader: AnswerReader,
        rows: Rows,
        forced: Forced,
        n_edits: int,
        bound: int,
        at_a_time: int,
    ) -> None:
        self._read = lru_cache(maxsize=None)(reader.read)
        self._rows = rows
        self._forced = forced
        self._n_edits = n_edits
        self._longest = reader.longest(bound)
        self._too_large = 10 ** most_digits(bound)
        self._at_a_time = at_a_time

    def finish(
        self, greedy: Int64[Tensor, "rows fed"]
    ) -> tuple[Float64[Tensor, " rows"], list[Written]]:
        """The numbers, NaN where what was written is none or does not end, and what was written."""
        written = self._agreed(greedy)
        numbers = torch.full((len(written),), torch.nan, dtype=torch.float64)
        open_rows = self._settle(range(len(written)), written, numbers)
        for length in range(1, self._longest):
            now = [row for row in open_rows if len(written[row]) == length]
            if not now:
                continue
            for start in range(0, len(now), self._at_a_time):
                some = now[start : start + self._at_a_time]
                read = self._rows.next_read_out(torch.tensor(some), [written[r] for r in some])
                for row, token in zip(some, read.argmax(-1).tolist(), strict=True):
                    written[row] += (token,)
            ended = set(now) - set(self._settle(now, written, numbers))
            open_rows = [row for row in open_rows if row not in ended]
        return numbers, written

    def _agreed(self, greedy: Int64[Tensor, "rows fed"]) -> list[Written]:
        """The expected tokens as far as the likeliest ones are those, and the likeliest behind."""
        problems = torch.arange(len(greedy)) // self._n_edits
        expected = self._forced.expected[problems][:, : greedy.shape[1]]
        agrees = (greedy[:, : expected.shape[1]] == expected).long().cumprod(1).sum(1)
        # Where the answer's last token is not fed, there is nothing to read behind it.
        stop = torch.minimum(agrees, torch.tensor(greedy.shape[1] - 1)) + 1
        return [
            tuple(tokens[:end]) for tokens, end in zip(greedy.tolist(), stop.tolist(), strict=True)
        ]

    def _settle(
        self, rows: Sequence[int], written: list[Written], numbers: Float64[Tensor, " rows"]
    ) -> list[int]:
        """Put down the numbers that have ended; the rows that have not.

        A number that is too long already is given up: a row that repeats a digit has no end.
        """
        still = []
        for row in rows:
            number, ended = self._read(written[row])
            if not ended and number is not None and abs(number) >= self._too_large:
                continue
            if not ended:
                still.append(row)
            elif number is not None:
                numbers[row] = number
        return still
