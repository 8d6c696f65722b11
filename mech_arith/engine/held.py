"""Coordinates at several sites held in one pass, whatever is done at the sites below.

An edit at one site adds what is known beforehand (`edits`). Of several sites the upper ones see
what the lower ones have changed: there a coordinate has to be put where it is wanted while the pass
runs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.common.progress import progress
from mech_arith.engine.batching import batches
from mech_arith.engine.passes import Written, rows_read_at_once
from mech_arith.engine.reading import force, of_one_length, read_written
from mech_arith.engine.run import Baseline, asked_key
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.engine.writing import Writing
from mech_arith.models.attention import Past
from mech_arith.models.base import Model, Place, Tap, read_prefix, run_blocks
from mech_arith.models.finite import is_finite, not_finite
from mech_arith.models.prompts import Layout


@dataclass(frozen=True)
class Held:
    """Coordinates of n problems at one site, and where they are to be under each edit."""

    site: Site
    frame: Float[Tensor, "k width"]
    """Linearly independent directions."""
    mean: Float[Tensor, " width"]
    """Where coordinates are 0."""
    to: Float[Tensor, "edits n k"]
    """NaN for a coordinate that stays as it is."""


def run_held(
    session: Session, baseline: Baseline, held: Sequence[Held]
) -> Float64[Tensor, "edits n"]:
    """The answer to every problem while the coordinates at all sites are held.

    Every pass is a whole one behind the shared prefix. A site in the answer is held behind the
    tokens that the model has written. What the session's checkpoint has is not run again.

    Args:
        session: the model under study.
        baseline: the problems.
        held: no two of one site; at a single position where that is in the answer.
    """
    model, prompts = session.model, baseline.prompts
    n_edits = len(held[0].to)
    numbers = torch.full((n_edits, len(baseline)), torch.nan, dtype=torch.float64)
    prefix = read_prefix(model, prompts.prefix) if model.replays else []
    places = [[one.site.key(prompts), tensor_digest(one.frame, one.mean, one.to)] for one in held]
    key = {**asked_key(model, prompts, baseline.asked), "held": json_digest(places)}

    def work(layout: Layout) -> Float64[Tensor, "edits n"]:
        here = baseline.asked.of(layout.rows)
        forced = force(model, here)
        tokens = prompts.whole(layout)

        def answer(edit: int) -> dict[str, Tensor]:
            holds = tuple(_Hold.of(one, edit, layout) for one in held)
            rows = _Rows(model, len(prompts.prefix), prefix, tokens, holds, forced.fed)
            writing = Writing(model.reader, bound=here.bound, at_once=len(layout))
            found, _ = read_written(model, rows, forced, writing, n_edits=1)
            writing.finish()
            return {"numbers": found.numbers[0]}

        piece = session.checkpoint.piece("held", {**key, "rows": tensor_digest(layout.rows)})
        found = [piece.fetch(f"{edit}", lambda edit=edit: answer(edit)) for edit in range(n_edits)]
        return torch.stack([of_edit["numbers"] for of_edit in found])

    parted = of_one_length(model, prompts, baseline.asked)
    with progress(n_edits * len(baseline), description="all steps", unit="edits") as bar:
        for layout, found in batches(model, parted, session.batching, work):
            numbers[:, layout.rows] = found
            bar.advance(found.numel())
    return numbers


@dataclass(frozen=True)
class _Hold:
    """What is done to some rows at one site."""

    site: Site
    indices: tuple[int, ...]
    """Of its positions, counted behind the prefix."""
    frame: Float[Tensor, "k width"]
    back: Float[Tensor, "k width"]
    """What a step along each coordinate alone adds: the dual frame."""
    mean: Float[Tensor, " width"]
    to: Float[Tensor, "rows k"]

    @classmethod
    def of(cls, held: Held, edit: int, layout: Layout) -> "_Hold":
        """Of the problems of one layout under one edit."""
        frame, to = held.frame.double(), held.to[edit, layout.rows]
        back = torch.linalg.pinv(frame).mT
        indices = layout.positions(held.site.position)
        parts = (part.float() for part in (frame, back, held.mean, to))
        return cls(held.site, indices, *parts)

    def rows(self, some: Int64[Tensor, " some"]) -> "_Hold":
        """The same for some of the rows."""
        return replace(self, to=self.to[some])

    def put(self, activation: Float[Tensor, "rows pos d"], *, first: int) -> Tensor:
        """The activation with its coordinates where they are wanted; as it is where the site's
        positions are not yet there. `first` is where the positions behind the prefix begin.
        """
        at = [first + index for index in self.indices]
        if max(at) >= activation.shape[1]:
            return activation
        device = activation.device
        own = self.site.entries(len(self.mean) // len(at))
        found = activation[:, at, own].flatten(1).float() - self.mean.to(device)
        apart = (self.to.to(device) - found @ self.frame.to(device).mT).nan_to_num(0)
        edited = activation.clone()
        added = (apart @ self.back.to(device)).unflatten(1, (len(at), -1))
        edited[:, at, own] += added.to(activation)
        return edited


@dataclass(frozen=True)
class _Rows:
    """Problems under one edit, a row each: `passes.Rows`, and `passes.Tails` to write on."""

    model: Model
    n_prefix: int
    prefix: Sequence[Past]
    """What the shared prefix offers, by layer; none for a model that makes whole passes alone."""
    tokens: Int64[Tensor, "rows all"]
    """The prompts with their prefix."""
    holds: tuple[_Hold, ...]
    fed: Int64[Tensor, "rows fed"]
    n_same: int = 0

    def read_outs(self) -> Iterator[tuple[slice, Float[Tensor, "rows read out"]]]:
        """What is read at the prompt's end and behind each fed token."""
        start = 0
        for read in self._pass(self.fed, last=1 + self.fed.shape[1]):
            yield slice(start, start + len(read)), read
            start += len(read)

    def tails(self, rows: Int64[Tensor, " some"]) -> "_Rows":
        """Some of the rows, to write on by themselves."""
        holds = tuple(hold.rows(rows) for hold in self.holds)
        return replace(self, tokens=self.tokens[rows], fed=self.fed[rows], holds=holds)

    def joined(self, others: Sequence["_Rows"]) -> "_Rows":
        """Rows are never of several batches."""
        assert not others
        return self

    def next_read_outs(
        self, rows: Int64[Tensor, " some"], written: Sequence[Written]
    ) -> Iterator[Float[Tensor, "few out"]]:
        """What is read behind the last token that rows have written."""
        for read in self.tails(rows)._pass(torch.tensor(written), last=1):
            yield read[:, 0]

    @torch.inference_mode()
    def _pass(
        self, behind: Int64[Tensor, "rows more"], *, last: int
    ) -> Iterator[Float[Tensor, "few last out"]]:
        """A pass over all rows with tokens behind them; read-outs at the last positions."""
        model, tokens = self.model, torch.cat([self.tokens, behind], dim=1)
        if model.replays:
            new = tokens[:, self.n_prefix :].to(model.device)
            resids, _ = run_blocks(
                model,
                model.embed(new, start=self.n_prefix),
                start=self.n_prefix,
                pasts=self.prefix,
                tap=self._tap_of,
            )
            at = slice(-last, None) if model.causal else model.answers_at
            found, read = resids[-1][:, at], model.read_out
        else:
            taps = self._taps()
            found, read = model.full_pass(tokens.to(model.device), taps, last=last), _as_it_is
        if not is_finite(found.amax(-1)):  # some of a vocabulary may be ruled out by -inf
            raise not_finite(model, tokens, self._taps())
        yield from map(read, found.split(rows_read_at_once(model, last)))

    def _tap_of(self, layer: int) -> Tap:
        def tap(point: str, activation: Tensor) -> Tensor:
            for hold in self._at((layer, point)):
                activation = hold.put(activation, first=0)
            return activation

        return tap

    def _taps(self) -> dict[Place, Callable[[Tensor], Tensor]]:
        """The same as hooks on whole passes, which run the prefix with every row."""

        def tap_of(place: Place) -> Callable[[Tensor], Tensor]:
            def tap(activation: Tensor) -> Tensor:
                for hold in self._at(place):
                    activation = hold.put(activation, first=self.n_prefix)
                return activation

            return tap

        places = dict.fromkeys((hold.site.layer, hold.site.point) for hold in self.holds)
        return {place: tap_of(place) for place in places}

    def _at(self, place: Place) -> Iterator[_Hold]:
        return (hold for hold in self.holds if (hold.site.layer, hold.site.point) == place)


def _as_it_is(read: Tensor) -> Tensor:
    return read
