"""The rows of one batch: each an edit of a problem, as many at a time as fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from jaxtyping import Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.edits import Edits
from mech_arith.engine.passes import Change, Hooked, Resumed, Rows, run_clean
from mech_arith.engine.reading import (
    TeacherForced,
    Unedited,
    as_tokens,
    read_unedited,
    read_written,
)
from mech_arith.engine.rules import Rule
from mech_arith.engine.session import Session
from mech_arith.engine.writing import Writing
from mech_arith.models.base import Model, read_prefix
from mech_arith.models.prompts import Layout, Prompts

RowsOf = Callable[[Change | None, int], Rows]
"""The rows of so many edits per problem of one batch."""


def opener(model: Model, prompts: Prompts) -> Callable[[Layout, Tensor], RowsOf]:
    """How problems, with tokens fed behind them, are opened: by a clean pass where it can be."""
    if not model.replays:

        def hooked(layout: Layout, fed: Tensor) -> RowsOf:
            return lambda change, n_edits: Hooked(
                model, prompts, layout, fed, change, n_edits=n_edits
            )

        return hooked
    prefix = read_prefix(model, prompts.prefix)

    def resumed(layout: Layout, fed: Tensor) -> RowsOf:
        clean = run_clean(model, prompts, prefix, layout, fed)
        return lambda change, n_edits: Resumed(clean, change, n_edits=n_edits)

    return resumed


@dataclass(frozen=True)
class Batch:
    """Problems of one layout, with the tokens that are fed behind them."""

    session: Session
    layout: Layout
    fed: Int64[Tensor, "n fed"]
    n_prefix: int
    rows_of: RowsOf
    forced: TeacherForced | None = None
    """The right answers, where answers are read."""
    n_tokens: int = 0
    """Tokens of each answer that are kept."""

    def rows_at_once(self, edits: Edits) -> int:
        """How many rows, each an edit of a problem, are run at a time."""
        model, layout = self.session.model, self.layout
        positions = layout.tokens.shape[1] + self.fed.shape[1]
        # Full passes run the prefix and all positions of every row.
        if not model.replays:
            positions += self.n_prefix
        elif model.causal:
            positions -= min(layout.positions(edits.site.position))
        return self.session.batching.rows(model, positions)

    def stacked(self, edits: Edits) -> Iterator[tuple[Int64[Tensor, " some"], Rows]]:
        """Some of a site's edits after others, and their rows; without those that move nothing."""
        model, layout = self.session.model, self.layout
        indices = layout.positions(edits.site.position)
        moved = edits.moved(layout.rows).any(1).nonzero()[:, 0]
        size = max(1, self.rows_at_once(edits) // len(layout))
        for part in moved.tensor_split(ceil(len(moved) / size)) if len(moved) else ():
            vectors = edits.vectors(part, layout.rows, device=model.device).to(model.dtype)
            by_row = vectors.flatten(0, 1).unflatten(1, (len(indices), -1))
            change = Change(edits.site, indices, by_row, self._rule(edits, part, indices))
            yield part, self.rows_of(change, len(part))

    def _rule(
        self, edits: Edits, part: Int64[Tensor, " some"], indices: tuple[int, ...]
    ) -> Rule | None:
        """What rows do behind other tokens than the right answer's, where they are edited there."""
        if max(indices) < self.layout.tokens.shape[1]:
            return None
        device = self.session.model.device
        rule = edits.rule(part, n_positions=len(indices), device=device)
        return None if rule is None else rule.of(torch.arange(len(part)).repeat(len(self.layout)))

    @cached_property
    def unedited(self) -> Unedited:
        """What the clean pass reads."""
        assert self.forced is not None
        return read_unedited(self.session.model, self.rows_of(None, 1), self.forced)

    def answers(self, edits: Edits, bound: int | None, count: Callable[[int], None]) -> Answers:
        """Of all edits at one site, as many at a time as fit; `count` is told the rows done.

        Without a bound of right answers nothing is written: how likely they are is all that is
        read.
        """
        model, forced, writing = self.session.model, self.forced, None
        assert forced is not None
        if bound is not None:
            writing = Writing(model.reader, bound=bound, at_once=self.rows_at_once(edits))
        found, done = [], 0
        for part, rows in self.stacked(edits):
            found.append(
                (
                    part,
                    *read_written(
                        model,
                        rows,
                        forced,
                        writing,
                        n_edits=len(part),
                        unedited=lambda: self.unedited,
                    ),
                )
            )
            done += len(part)
            count(len(part) * len(self.layout))
        if writing is not None:
            writing.finish()
        answers = Answers.empty(len(edits), len(self.layout), n_tokens=self.n_tokens)
        for part, of_part, written in found:
            tokens = as_tokens(written, self.n_tokens).view(len(self.layout), len(part), -1)
            answers.put(part, replace(of_part, tokens=tokens.transpose(0, 1)))
        count((len(edits) - done) * len(self.layout))
        return answers
