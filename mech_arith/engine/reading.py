"""From read-outs to answers: what is written greedily, and how likely the right answer was.

The tokens of the right answer are fed behind the prompt, so that one pass gives the probability of
the whole right answer and the greedy answer too, as long as the two agree. Rows that write
something else go on by themselves, until what they have written has ended (`writing`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from mech_arith.common.digests import tensor_digest
from mech_arith.engine.answers import Answers
from mech_arith.engine.passes import Rows, Written
from mech_arith.engine.writing import Writing, likeliest
from mech_arith.models.base import AnswerReader, Model
from mech_arith.models.prompts import NO_TOKEN, Prompts
from mech_arith.problems import ProblemSet, counterfactual_answers

APART = 8
"""Problems of one layout that are worth running apart from those with longer answers."""


@dataclass(frozen=True)
class ReferenceAnswers:
    """What is right, and what would be instead, for n problems."""

    right: Float64[Tensor, " n"]
    counterfactual: Float64[Tensor, " n"]
    """NaN where there is none."""
    bound: int
    """The largest absolute right answer. Global, so the answer length does not depend on
    batching."""

    @classmethod
    def of_problems(cls, problems: ProblemSet, *, seed: int = 0) -> "ReferenceAnswers":
        """The right answers, and drawn by the seed those of other problems."""
        right = torch.from_numpy(problems.answers).double()
        other = counterfactual_answers(problems, seed=seed)
        none = torch.full_like(right, torch.nan)
        instead = none if other is None else torch.from_numpy(other).double()
        return cls(right, instead, int(np.abs(problems.answers).max()))

    def of(self, rows: Int64[Tensor, " m"]) -> "ReferenceAnswers":
        """Some of the problems."""
        return replace(self, right=self.right[rows], counterfactual=self.counterfactual[rows])

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class TeacherForced:
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

    def __len__(self) -> int:
        return len(self.right)

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return tensor_digest(*vars(self).values())

    def behind(self, n: int) -> "TeacherForced":
        """What is left of the tokens behind the first `n`."""
        return replace(
            self,
            right=self.right[:, n:],
            expected=self.expected[:, n:],
            differs_at=torch.where(self.differs_at >= n, self.differs_at - n, NO_TOKEN),
        )


@dataclass(frozen=True)
class Unedited:
    """What is read of n problems without an edit, before each token of the right answer."""

    log_prob: Float64[Tensor, "n length"]
    """Of each token of the right answer; 0 behind the last."""
    logit_difference: Float64[Tensor, " n"]
    greedy: Int64[Tensor, "n fed"]
    """The likeliest tokens."""


def force(model: Model, asked: ReferenceAnswers) -> TeacherForced:
    """The tokens of the right answers, and where the counterfactual ones part from them."""
    reader = model.reader
    if reader is None:
        nothing = torch.empty(len(asked), 0, dtype=torch.int64)
        none = torch.full((len(asked),), NO_TOKEN)
        return TeacherForced(nothing, nothing, none, none, nothing)
    right = [_tokens(reader, number) for number in asked.right.tolist()]
    other = [_tokens(reader, number) for number in asked.counterfactual.tolist()]
    differs = [_first_difference(*pair) for pair in zip(right, other, strict=True)]
    expected = [(*tokens, *reader.behind) if tokens else () for tokens in right]
    # The last token of an answer of fixed length need not be fed: nothing is read behind it.
    fed = [tokens[:-1] if tokens and reader.read(tokens)[1] else tokens for tokens in expected]
    return TeacherForced(
        right=_padded(right, fill=NO_TOKEN),
        expected=_padded(expected, fill=NO_TOKEN),
        differs_at=torch.tensor(differs),
        counterfactual=torch.tensor(
            [tokens[at] if at >= 0 else NO_TOKEN for tokens, at in zip(other, differs, strict=True)]
        ),
        fed=_padded(fed, fill=0),
    )


def of_one_length(model: Model, prompts: Prompts, asked: ReferenceAnswers) -> Prompts:
    """The same problems, those apart whose right answers have fewer tokens.

    A short answer beside longer ones would be run on at positions that nobody reads. Fewer than
    `APART` problems stay beside the next longer ones: each part has a clean pass of its own.
    """
    length = (force(model, asked).right != NO_TOKEN).sum(1)
    parted = []
    for layout in prompts.layouts:
        order = length[layout.rows].argsort(stable=True)
        _, counts = length[layout.rows].unique(return_counts=True)
        start = end = 0
        for count in counts.tolist():
            end += count
            if end - start >= APART or end == len(layout):
                parted.append(layout.part(order[start:end].sort().values))
                start = end
    return Prompts(prompts.prefix, tuple(parted))


def _tokens(reader: AnswerReader, number: float) -> Written:
    return reader.tokens(int(number)) if number == number and number == int(number) else ()


def _first_difference(right: Written, other: Written) -> int:
    """Where two answers part; `NO_TOKEN` if one of them is the beginning of the other."""
    pairs = enumerate(zip(right, other, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), NO_TOKEN)


def as_tokens(written: Sequence[Written], length: int | None = None) -> Int64[Tensor, "n length"]:
    """What rows have written; `NO_TOKEN` behind the last token.

    Args:
        written: by row.
        length: of what is kept; by default that of the longest.
    """
    tokens = _padded(written, fill=NO_TOKEN)
    if length is None:
        return tokens
    return pad(tokens[:, :length], (0, max(0, length - tokens.shape[1])), value=NO_TOKEN)


def _padded(rows: Sequence[Written], *, fill: int) -> Int64[Tensor, "n length"]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    padded = np.full((len(rows), lengths.max(initial=0)), fill, dtype=np.int64)
    known = np.arange(padded.shape[1]) < lengths[:, None]
    padded[known] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    return torch.from_numpy(padded)


@torch.inference_mode()
def read_unedited(model: Model, rows: Rows, forced: TeacherForced) -> Unedited:
    """What is read of problems by their clean pass."""
    log_prob, difference, greedy = [], [], []
    for part, read in rows.read_outs():
        problems = torch.arange(len(forced))[part]
        right = forced.right[problems].to(read.device)
        log_prob.append(_log_probs(read.log_softmax(-1), right).cpu())
        difference.append(_difference(read, forced, problems).cpu())
        greedy.append(likeliest(read).cpu())
    return Unedited(torch.cat(log_prob), torch.cat(difference), torch.cat(greedy))


@torch.inference_mode()
def read_written(
    model: Model,
    rows: Rows,
    forced: TeacherForced,
    writing: Writing | None,
    *,
    n_edits: int,
    unedited: Callable[[], Unedited] | None = None,
) -> tuple[Answers, list[Written]]:
    """The answers of a grid of problems x edits, as [edits, problems], and what was written.

    The numbers of rows that go on writing are there when `writing` has finished, and what they have
    written, as far as it was needed.

    Args:
        model: under study.
        rows: of the grid, problem by problem.
        forced: the right answers of the problems.
        writing: takes the rows that part from them; None where nothing more is to be written, so
            that a model that writes has no numbers.
        n_edits: of each problem.
        unedited: what the problems' clean pass reads; asked for where rows are edited behind the
            first token of the answer.
    """
    if model.reader is None:
        numbers = torch.cat([read[:, 0, 0].double().cpu() for _, read in rows.read_outs()])
        answers = Answers.empty(n_edits, len(forced))
        answers.numbers[:] = numbers.view(len(forced), n_edits).mT
        return answers, [()] * len(forced) * n_edits
    log_prob, difference, greedy = [], [], []
    problems = torch.arange(len(forced)).repeat_interleave(n_edits)
    left = forced.behind(rows.n_same) if rows.n_same else forced
    for part, read in rows.read_outs():
        of_right, apart = measure(read, left, problems[part], model.reader.longer)
        found = of_right.cpu(), apart.cpu(), likeliest(read).cpu()
        if rows.n_same and unedited is not None:
            found = _behind(unedited(), found, forced.differs_at, problems[part], rows.n_same)
        for kept, new in zip((log_prob, difference, greedy), found, strict=True):
            kept.append(new)
    written = _agreed(torch.cat(greedy), forced.expected[problems])
    numbers = torch.full((len(problems),), torch.nan, dtype=torch.float64)
    if writing is not None:
        numbers = writing.add(rows, written)
    parts = (numbers, torch.cat(log_prob), torch.cat(difference))
    return Answers(*(part.view(len(forced), n_edits).mT for part in parts)), written


def _agreed(
    greedy: Int64[Tensor, "rows fed"], expected: Int64[Tensor, "rows length"]
) -> list[Written]:
    """The expected tokens as far as the likeliest ones are those, and the likeliest behind."""
    expected = expected[:, : greedy.shape[1]]
    agrees = (greedy[:, : expected.shape[1]] == expected).long().cumprod(1).sum(1)
    # Where the answer's last token is not fed, there is nothing to read behind it.
    stop = torch.minimum(agrees, torch.tensor(greedy.shape[1] - 1)) + 1
    return [tuple(tokens[:end]) for tokens, end in zip(greedy.tolist(), stop.tolist(), strict=True)]


def measure(
    read: Float[Tensor, "rows read out"],
    forced: TeacherForced,
    problems: Int64[Tensor, " rows"],
    longer: Int64[Tensor, " some"] | None,
) -> tuple[Float64[Tensor, " rows"], Float64[Tensor, " rows"]]:
    """Log-probability of the right answer, and its logit difference; gradients flow through both.

    Args:
        read: at the prompt's end and behind each token that is fed.
        forced: right answers of problems.
        problems: which of them each row is about.
        longer: `AnswerReader.longer`.
    """
    device = read.device
    right = forced.right[problems].to(device)
    known = right != NO_TOKEN
    every = read.log_softmax(-1)
    log_prob = _log_probs(every, right).sum(1)
    if longer is not None:
        row = torch.arange(len(read), device=device)
        log_prob = log_prob + _log_prob_of_end(every[row, known.sum(1)], longer.to(device))
    log_prob = log_prob.masked_fill(~known.any(1), torch.nan)
    return log_prob, _difference(read, forced, problems)


def _log_probs(
    every: Float[Tensor, "rows read out"], right: Int64[Tensor, "rows length"]
) -> Float64[Tensor, "rows length"]:
    """Log-probability of each token of the right answer; 0 behind the last."""
    chosen = every[:, : right.shape[1]].gather(2, right.clamp(min=0)[..., None])[..., 0].double()
    return chosen.masked_fill(right == NO_TOKEN, 0.0)


def _difference(
    read: Float[Tensor, "rows read out"], forced: TeacherForced, problems: Int64[Tensor, " rows"]
) -> Float64[Tensor, " rows"]:
    """Right minus counterfactual answer's logit where the two part; NaN where they do not."""
    device, right = read.device, forced.right[problems].to(read.device)
    at = forced.differs_at[problems].to(device)
    row, place = torch.arange(len(read), device=device), at.clamp(min=0)
    other = forced.counterfactual[problems].to(device).clamp(min=0)
    if not right.shape[1]:
        return torch.full((len(read),), torch.nan, dtype=torch.float64, device=device)
    ours, theirs = read[row, place, right[row, place].clamp(min=0)], read[row, place, other]
    return (ours.double() - theirs.double()).masked_fill(at < 0, torch.nan)


Measured = tuple[Float64[Tensor, " rows"], Float64[Tensor, " rows"], Int64[Tensor, "rows _"]]
"""Log-probability, logit difference and likeliest tokens."""


def _behind(
    clean: Unedited,
    edited: Measured,
    differs_at: Int64[Tensor, " n"],
    problems: Int64[Tensor, " rows"],
    n: int,
) -> Measured:
    """What is read of rows that are edited behind their first `n` tokens, which are the clean
    pass's.
    """
    log_prob, difference, greedy = edited
    at = differs_at[problems]
    return (
        log_prob + clean.log_prob[problems, :n].sum(1),
        torch.where((at >= 0) & (at < n), clean.logit_difference[problems], difference),
        torch.cat([clean.greedy[problems, :n], greedy], dim=1),
    )


def _log_prob_of_end(
    log_probs: Float[Tensor, "rows out"], longer: Int64[Tensor, " some"]
) -> Float64[Tensor, " rows"]:
    """That nothing follows which would make the answer a longer number: 1 is not 12."""
    follows = log_probs[:, longer].double().exp().sum(1)
    # Near 1 the rounding of `follows` would be all that is left: there the others are added up.
    # The bound keeps the gradient of what is replaced finite.
    ends = torch.log1p(-follows.clamp(max=0.5))
    near = (follows > 0.5).nonzero()[:, 0]
    rest = log_probs[near].index_fill(1, longer, -torch.inf).logsumexp(-1)
    return ends.index_copy(0, near, rest.double())
