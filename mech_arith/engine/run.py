"""Many edits, few forward passes.

A sweep asks for sites x directions x strengths x problems edited predictions. Problems go through
in batches. Each batch has one clean pass; every edit of it starts from that pass, at the layer and
position of the edit, many edits at a time (`passes`), and ends in an answer (`reading`). Nothing is
kept from one batch to the next but the answers: memory does not grow with the problems.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith import engine, models
from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.common.progress import Progress, progress
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import batches, parts
from mech_arith.engine.edits import Edits, SiteEdits, SiteGrid, SiteVectors
from mech_arith.engine.passes import Change, Rows, Written
from mech_arith.engine.reading import (
    NO_TOKEN,
    ReferenceAnswers,
    as_tokens,
    force,
    of_one_length,
    read_written,
)
from mech_arith.engine.rows import Batch, RowsOf, opener
from mech_arith.engine.session import Session
from mech_arith.engine.writing import Writing, likeliest
from mech_arith.models.base import Model
from mech_arith.models.prompts import Layout, Prompts

__all__ = [
    "EDITS",
    "Baseline",
    "Edits",
    "ReadOut",
    "ReferenceAnswers",
    "SiteEdits",
    "SiteGrid",
    "SiteVectors",
    "edited_answers",
    "edited_read_outs",
    "longest_answer",
    "run_baseline",
    "run_edits",
    "stored_baseline",
    "write_on",
]


EDITS = "edits"
"""Where a checkpoint keeps answers under edits."""

CODE = (engine, models)
"""What an entry of the store depends on: every module of these rooms."""


@dataclass(frozen=True)
class Baseline:
    """Problems before any edit."""

    prompts: Prompts
    asked: ReferenceAnswers
    answers: Answers
    """The model's own, on the CPU."""
    written: Int64[Tensor, "n written"]
    """Their tokens, as far as it took to see what they are; `NO_TOKEN` behind the last. No columns
    for a model that regresses."""

    def take(self, n: int) -> "Baseline":
        """The first `n` problems."""
        asked, answers = self.asked.of(torch.arange(n)), self.answers.take(n)
        return Baseline(self.prompts.take(n), asked, answers, self.written[:n])

    def tokens(self, row: int) -> tuple[int, ...]:
        """What was written in answer to one of the problems."""
        return tuple(token for token in self.written[row].tolist() if token != NO_TOKEN)

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class ReadOut:
    """What some rows lead to."""

    entry: int
    """Of the plan."""
    edits: Int64[Tensor, " rows"]
    problems: Int64[Tensor, " rows"]
    logits: Float[Tensor, "rows out"]
    """At the prompt's end; the one number for a model that regresses."""


def run_baseline(session: Session, prompts: Prompts, asked: ReferenceAnswers) -> Baseline:
    """The model's answers to the problems as they are.

    What the session's checkpoint holds is not computed again.
    """
    model = session.model
    answers = Answers.empty(len(prompts))
    longest = 0 if model.reader is None else model.reader.longest(asked.bound)
    written = torch.full((len(prompts), longest), NO_TOKEN)
    opened = opener(model, prompts)
    key = asked_key(model, prompts, asked)

    def work(layout: Layout) -> dict[str, Tensor]:
        def answer() -> dict[str, Tensor]:
            here = asked.of(layout.rows)
            forced = force(model, here)
            rows = opened(layout, forced.fed)(None, 1)
            writing = Writing(model.reader, bound=asked.bound, at_once=len(layout))
            found, tokens = read_written(model, rows, forced, writing, n_edits=1)
            writing.finish()
            return {**found.at(0).tensors(), "written": as_tokens(tokens)}

        key_here = {**key, "rows": tensor_digest(layout.rows)}
        piece = session.checkpoint.piece("baseline", key_here)
        return dict(piece.fetch("answers", answer))

    parted = of_one_length(model, prompts, asked)
    with progress(len(prompts), description="baseline", unit="problems") as bar:
        for layout, part in batches(model, parted, session.batching, work):
            tokens = part.pop("written")
            written[layout.rows, : tokens.shape[1]] = tokens
            answers.put(layout.rows, Answers(**part))
            bar.advance(len(layout))
    return Baseline(prompts, asked, answers, written)


@torch.inference_mode()
def write_on(
    model: Model, prompts: Prompts, written: Mapping[int, Written], *, length: int
) -> dict[int, Written]:
    """Let some of the problems' answers go on behind what was written, up to so many tokens."""
    opened = opener(model, prompts)
    longer = dict(written)
    for layout in prompts.layouts:
        for index, row in enumerate(layout.rows.tolist()):
            if row not in longer:
                continue
            nothing = torch.empty(1, 0, dtype=torch.int64)
            only = torch.tensor([0])
            alone = opened(layout.part(slice(index, index + 1)), nothing)(None, 1).tails(only)
            while len(longer[row]) < length:
                (read,) = alone.next_read_outs(only, [longer[row]])
                longer[row] += (int(likeliest(read)),)
    return longer


def stored_baseline(session: Session, prompts: Prompts, asked: ReferenceAnswers) -> Baseline:
    """The same, out of the store if it is there."""

    def make() -> dict[str, Tensor]:
        found = run_baseline(session, prompts, asked)
        return {**found.answers.tensors(), "written": found.written}

    key = asked_key(session.model, prompts, asked)
    found = dict(session.store.fetch("baseline", key, make, code=CODE))
    written = found.pop("written")
    return Baseline(prompts, asked, Answers(**found), written)


def asked_key(model: Model, prompts: Prompts, asked: ReferenceAnswers) -> dict[str, Any]:
    """All that determines the answers to problems, apart from code."""
    return {
        **model.fingerprint,
        "prompts": prompts.digest(),
        "asked": [tensor_digest(asked.right, asked.counterfactual), asked.bound],
        "forced": force(model, asked).digest(),
    }


def run_edits(
    session: Session,
    baseline: Baseline,
    plan: Sequence[Edits],
    *,
    writes: bool = True,
    bar: Progress | None = None,
    stage: str = EDITS,
) -> list[Answers]:
    """Answers of every problem under every edit of the plan.

    Args:
        session: its checkpoint keeps answers by site and batch; what it holds is not run again.
        baseline: the problems and the model's answers to them, which stand where an edit does not
            move a problem.
        plan: the edits, site by site.
        writes: let rows write on that part from the right answer; else they have no `numbers`.
        bar: advanced by the rows done.
        stage: where the checkpoint keeps them, a plain name.

    Returns:
        For each entry of the plan the answers, [edits, n].
    """
    model = session.model
    n_tokens, n_prefix = longest_answer(model, baseline), len(baseline.prompts.prefix)
    answers = [_unedited(baseline, len(edits), n_tokens) for edits in plan]
    opened = opener(model, baseline.prompts)
    key = asked_key(model, baseline.prompts, baseline.asked) | _unless(writes)
    units = [_edits_digest(baseline.prompts, edits) for edits in plan]

    def work(layout: Layout) -> list[Answers]:
        here = baseline.asked.of(layout.rows)
        forced = force(model, here)

        @cache
        def clean() -> RowsOf:
            return opened(layout, forced.fed)

        def rows_of(change: Change | None, n_edits: int) -> Rows:
            return clean()(change, n_edits)

        batch = Batch(session, layout, forced.fed, n_prefix, rows_of, forced, n_tokens)
        piece = session.checkpoint.piece(stage, {**key, "rows": tensor_digest(layout.rows)})
        found = []
        with _counted(bar) as count:
            for unit, edits in zip(units, plan, strict=True):
                if piece.has(unit):
                    count(len(edits) * len(layout))

                def answer(edits: Edits = edits) -> dict[str, Tensor]:
                    return batch.answers(edits, here.bound if writes else None, count).tensors()

                found.append(Answers(**piece.fetch(unit, answer)))
        return found

    parted = of_one_length(model, baseline.prompts, baseline.asked)
    for layout, found in batches(model, parted, session.batching, work):
        for edits, known, part in zip(plan, answers, found, strict=True):
            known.put_moved(layout.rows, part, edits.moved(layout.rows))
    return answers


def _unless(writes: bool) -> dict[str, Any]:
    """Part of the key of edits that write nothing; those that write have none."""
    return {} if writes else {"writes": False}


def longest_answer(model: Model, baseline: Baseline) -> int:
    """Tokens of the longest right answer: as many as are kept of what is written under edits."""
    return force(model, baseline.asked).right.shape[1]


def edits_key(model: Model, baseline: Baseline, edits: Sequence[Edits]) -> dict[str, Any]:
    """All that determines the answers under edits, apart from code."""
    return {
        **asked_key(model, baseline.prompts, baseline.asked),
        "edits": [_edits_digest(baseline.prompts, of_site) for of_site in edits],
    }


def _edits_digest(prompts: Prompts, edits: Edits) -> str:
    """Of all that is done at one site."""
    return json_digest([edits.site.key(prompts), edits.digest()])


@contextmanager
def _counted(bar: Progress | None) -> Iterator[Callable[[int], None]]:
    """Advances the bar, and takes it back where the work is given up, to be done again."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if bar is not None:
            bar.advance(rows)

    try:
        yield count
    except BaseException:
        count(-done)
        raise


def edited_read_outs(
    session: Session, prompts: Prompts, plan: Sequence[Edits]
) -> Iterator[ReadOut]:
    """What is read at the prompt's end under every edit, without writing an answer."""
    opened = opener(session.model, prompts)
    for layout in parts(session.model, prompts, session.batching):
        nothing = torch.empty(len(layout), 0, dtype=torch.int64)
        rows_of = opened(layout, nothing)
        batch = Batch(session, layout, nothing, len(prompts.prefix), rows_of)
        for index, edits in enumerate(plan):
            for part, rows in batch.stacked(edits):
                problems = layout.rows.repeat_interleave(len(part))
                edits_of = part.repeat(len(layout))
                for some, read in rows.read_outs():
                    yield ReadOut(index, edits_of[some], problems[some], read[:, 0])


def edited_answers(session: Session, baseline: Baseline, edits: Edits) -> Answers:
    """Answers of every problem under every edit at one site, [edits, n]."""
    return run_edits(session, baseline, [edits])[0]


def _unedited(baseline: Baseline, n_edits: int, n_tokens: int) -> Answers:
    """The model's own answers, a row per edit, with so many of their tokens."""
    own = replace(baseline.answers, tokens=baseline.written[:, :n_tokens])
    return Answers(
        **{name: field.repeat(n_edits, *[1] * field.dim()) for name, field in own.tensors().items()}
    )
