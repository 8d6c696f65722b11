"""What a source's activation would do to the answer, at every site at once, to first order.

The exact effect of a site needs a pass of its own: the source's activation is put in place of the
base's, and the layers above are run. To first order it is (source - base) . dM/dx, where M is a
metric of the answer and x the base's activation at the site. One backward pass gives dM/dx of all
sites. Integrated gradients take the mean of dM/dx along the straight way from the base's to the
source's input embeddings.

Gradients are computed in the model's number format, those in float16 scaled (`row_scales`), and
summed up in float32.

Source: Nanda (2023), "Attribution patching: activation patching at industrial scale"; Syed, Rager &
Conmy (2023, arXiv 2310.10348), "Attribution patching outperforms automated circuit discovery";
Hanna, Pezzelle & Belinkov (2024, arXiv 2403.17806), "Have faith in faithfulness". When it misses a
site: Kramár, Lieberum, Shah & Nanda (2024, arXiv 2403.00745), "AtP*".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.engine.batching import batches
from mech_arith.engine.capture import answer_tokens
from mech_arith.engine.gradients import check_differentiable, kept_past
from mech_arith.engine.pairs import Pairs, metric_of, read_metric
from mech_arith.engine.reading import ReferenceAnswers, TeacherForced, force
from mech_arith.engine.row_scales import RowScales
from mech_arith.engine.run import CODE
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.attention import Past
from mech_arith.models.base import Model, Place, Tap, read_prefix, run_blocks, untouched
from mech_arith.models.finite import is_finite, not_finite
from mech_arith.models.kinds import Metric
from mech_arith.models.prompts import Layout

HELD = 8
"""Times the memory of a plain pass that one with gradients is taken to need."""


@dataclass(frozen=True)
class Attribution:
    """The first-order effect of every site, and of directions at some of them, by pair.

    In the unit of the metric: what M becomes minus what it is. NaN where a pair has no M.
    """

    whole: Float64[Tensor, "sites n"]
    along: dict[Site, Float64[Tensor, "k n"]] = field(default_factory=dict)
    """Of the sites that frames were given for."""


Frames = Mapping[Site, Float[Tensor, "k width"]]
"""Orthonormal directions by site."""


def attribute(
    session: Session,
    pairs: Pairs,
    sites: Sequence[Site],
    *,
    metric: Metric,
    steps: int = 0,
    frames: Frames | None = None,
) -> Attribution:
    """The first-order effect of putting each source's activation in place, for all sites.

    What the session's store or checkpoint holds is not computed again.

    Args:
        session: the model under study.
        pairs: bases and sources.
        sites: where; among them those that have frames.
        metric: of the answer. A model that regresses has its number alone.
        steps: points on the way from base to source at which gradients are taken, by the midpoint
            rule; 0 takes them at the base.
        frames: directions whose effect is wanted by itself, where the source's coordinate alone is
            put in place.

    Raises:
        UserError: the model's blocks cannot be run one by one; gradients are not finite; or base
            and source have prompts of different lengths, between which there is no way.
    """
    model, frames = session.model, frames or {}
    check_differentiable(model, instead="set screen=none")
    if steps:
        _check_way(pairs)
    key = {
        **pairs.key(model, sites),
        "metric": metric_of(model, metric).value,
        "steps": steps,
        "frames": [[site.key(pairs.base), tensor_digest(frame)] for site, frame in frames.items()],
    }

    def make() -> dict[str, Tensor]:
        return _attribute(session, pairs, _Wanted(tuple(sites), frames, metric, steps), key)

    found = session.store.fetch("screen", key, make, code=CODE)
    return Attribution(
        found["whole"], {site: found[f"site {index}"] for index, site in enumerate(frames)}
    )


def _check_way(pairs: Pairs) -> None:
    for layout in pairs.alike.layouts:
        lengths = layout.tokens.shape[1], pairs.sources_of(layout).tokens.shape[1]
        if len(set(lengths)) > 1:
            raise UserError(
                "expected prompts of one length, for gradients on the way from one to another, got "
                f"{lengths[0]} and {lengths[1]} tokens; choose operands of one length, or "
                "screen=attribution"
            )


@dataclass(frozen=True)
class _Wanted:
    """What is asked for."""

    sites: tuple[Site, ...]
    frames: Frames
    metric: Metric
    steps: int

    @cached_property
    def by_place(self) -> dict[Place, list[int]]:
        """Indices of the sites of each layer and point."""

        def place(index: int) -> Place:
            return self.sites[index].layer, self.sites[index].point

        ordered = sorted(range(len(self.sites)), key=place)
        return {at: list(group) for at, group in groupby(ordered, place)}


def _attribute(
    session: Session, pairs: Pairs, wanted: _Wanted, key: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Batch by batch."""
    model, n = session.model, len(pairs)
    found = {
        "whole": torch.full((len(wanted.sites), n), torch.nan, dtype=torch.float64),
        **{
            f"site {index}": torch.full((len(frame), n), torch.nan, dtype=torch.float64)
            for index, frame in enumerate(wanted.frames.values())
        },
    }
    pasts = [kept_past(past) for past in read_prefix(model, pairs.base.prefix)]
    n_answer = answer_tokens(pairs.base, wanted.sites)

    def work(layout: Layout) -> dict[str, Tensor]:
        def compute() -> dict[str, Tensor]:
            return _Batch(model, pairs, wanted, layout, pasts, n_answer).scores()

        key_here = {**key, "rows": tensor_digest(layout.rows)}
        return session.checkpoint.piece("screen", key_here).fetch("scores", compute)

    with progress(n, description="screening", unit="problems") as bar:
        for layout, scores in batches(model, pairs.alike, session.batching, work, held=HELD):
            for name, whole in found.items():
                whole[:, layout.rows] = scores[name]
            bar.advance(len(layout))
    return found


@dataclass(frozen=True)
class _Spots:
    """The sites of one layer and point, in prompts of one layout of bases and one of sources."""

    sites: tuple[Site, ...]
    base: list[int]
    """Positions of all sites, those of one name once, side by side."""
    source: list[int]
    """The same in the sources' prompts."""
    parts: tuple[slice, ...]
    """Of these, each site's."""
    n_heads: int
    """Into which the numbers at a position are parted; 1 for whole points."""

    @cached_property
    def _entries(self) -> tuple[Int64[Tensor, " entries"], Int64[Tensor, " entries"]]:
        """Pairs of a site and one of its position's heads, as a number among all of them."""
        of_site, entries = [], []
        for index, (site, part) in enumerate(zip(self.sites, self.parts, strict=True)):
            heads = range(self.n_heads) if site.head is None else [site.head]
            own = [
                at * self.n_heads + head for at in range(part.start, part.stop) for head in heads
            ]
            entries += own
            of_site += [index] * len(own)
        return torch.tensor(of_site), torch.tensor(entries)

    def sums(self, product: Float[Tensor, "rows at width"]) -> Float[Tensor, "sites rows"]:
        """Of the numbers of each site."""
        by_head = product.unflatten(2, (self.n_heads, -1)).sum(3).flatten(1).mT
        of_site, entries = (index.to(product.device) for index in self._entries)
        sums = by_head.new_zeros(len(self.sites), len(product))
        return sums.index_add_(0, of_site, by_head[entries])

    def vectors(
        self, index: int, activation: Float[Tensor, "rows at width"]
    ) -> Float[Tensor, "rows all"]:
        """One site's, side by side."""
        own = self.sites[index].entries(activation.shape[2] // self.n_heads)
        return activation[:, self.parts[index], own].flatten(1)


@dataclass(frozen=True)
class _Batch:
    """Pairs of one layout of bases and one of sources."""

    model: Model
    pairs: Pairs
    wanted: _Wanted
    layout: Layout
    """Of the bases."""
    pasts: Sequence[Past]
    """What the shared prefix offers, by layer."""
    n_answer: int
    """Tokens of the sources' right answers that are read too."""

    @cached_property
    def sources(self) -> Layout:
        return self.pairs.sources_of(self.layout)

    @cached_property
    def asked(self) -> ReferenceAnswers:
        return self.pairs.asked.of(self.layout.rows)

    @cached_property
    def forced(self) -> TeacherForced:
        return force(self.model, self.asked)

    @property
    def start(self) -> int:
        """The first position behind the prefix."""
        return len(self.pairs.base.prefix)

    @cached_property
    def spots(self) -> dict[Place, _Spots]:
        """By layer and point."""
        names = dict.fromkeys(site.position for site in self.wanted.sites)
        base = {name: self.layout.positions(name) for name in names}
        source = {name: self.sources.positions(name) for name in names}
        found = {}
        for place, indices in self.wanted.by_place.items():
            sites = tuple(self.wanted.sites[index] for index in indices)
            parts: dict[str, slice] = {}
            ours: list[int] = []
            theirs: list[int] = []
            for name in dict.fromkeys(site.position for site in sites):
                parts[name] = slice(len(ours), len(ours) + len(base[name]))
                ours += base[name]
                theirs += source[name]
            of_heads = any(site.head is not None for site in sites)
            own = tuple(parts[site.position] for site in sites)
            n_heads = self.model.n_heads if of_heads else 1
            found[place] = _Spots(sites, ours, theirs, own, n_heads)
        return found

    def scores(self) -> dict[str, Tensor]:
        """`whole` [sites, rows], and `site i` [k, rows] of the sites with frames; on the CPU."""
        theirs = self._read(self.sources.with_answer(self.n_answer), of_sources=True)
        sums = _Sums(self, theirs)
        base = self._embed(torch.cat([self.layout.tokens, self.forced.fed], dim=1))
        if not self.wanted.steps:
            values = self._differentiate(base, sums)
            return sums.scores(values)
        ours = self._read(torch.cat([self.layout.tokens, self.forced.fed], dim=1))
        sums = replace(sums, ours=ours)
        n_prompt, steps = self.layout.tokens.shape[1], self.wanted.steps
        apart = self._embed(self.sources.tokens) - base[:, :n_prompt]
        values = base.new_zeros(len(self.layout))
        for step in range(steps):
            on_the_way = base.clone()
            on_the_way[:, :n_prompt] += (step + 0.5) / steps * apart
            values = self._differentiate(on_the_way, sums)
        return sums.scores(values)

    @torch.no_grad()
    def _embed(self, tokens: Int64[Tensor, "rows new"]) -> Float[Tensor, "rows new d"]:
        """The residual stream before layer 0."""
        return self.model.embed(tokens.to(self.model.device), start=self.start)

    def _read(
        self, tokens: Int64[Tensor, "rows new"], *, of_sources: bool = False
    ) -> dict[Place, Float[Tensor, "rows at width"]]:
        """The activations at all sites, by layer and point."""
        found: dict[Place, Tensor] = {}

        def tap_of(layer: int) -> Tap:
            def tap(point: str, activation: Tensor) -> Tensor:
                spots = self.spots.get((layer, point))
                if spots is not None:
                    at = spots.source if of_sources else spots.base
                    found[layer, point] = activation[:, at]
                return activation

            return tap

        stop = 1 + max(layer for layer, _ in self.spots)
        resids, _ = run_blocks(
            self.model,
            self._embed(tokens),
            start=self.start,
            pasts=self.pasts,
            tap=tap_of,
            stop=stop,
        )
        if not is_finite(resids[-1]):
            prefix = self.pairs.base.prefix.expand(len(tokens), -1)
            raise not_finite(self.model, torch.cat([prefix, tokens], dim=1))
        return found

    def _differentiate(
        self, resid: Float[Tensor, "rows new d"], sums: "_Sums"
    ) -> Float64[Tensor, " rows"]:
        """One pass forward and backward; the values of the metric."""
        model = self.model
        with torch.inference_mode(False), torch.enable_grad():
            leaf, scales = resid.clone().requires_grad_(), RowScales(model.dtype)
            resid = leaf.clone()
            for layer in range(model.n_layers):
                tap = sums.tap(layer, scales)
                resid, _ = model.run_block(
                    layer,
                    tap("resid_pre", resid),
                    start=self.start,
                    past=self.pasts[layer],
                    tap=tap,
                )
            if not is_finite(resid.detach()):
                whole = self.pairs.base.whole(self.layout)
                raise not_finite(model, torch.cat([whole, self.forced.fed], dim=1))
            fed = self.forced.fed.shape[1]
            wanted = slice(-(1 + fed), None) if model.causal else model.answers_at
            read = scales.up(model.read_out(resid[:, wanted]))
            values = read_metric(model, read, self.asked, self.forced, self.wanted.metric)
            torch.autograd.grad(values.nansum(), leaf)
        return values.detach()


@dataclass(frozen=True)
class _Sums:
    """Scores of a batch, added up as the backward pass gets to each place."""

    batch: _Batch
    theirs: Mapping[Place, Float[Tensor, "rows at width"]]
    """The sources' activations."""
    ours: Mapping[Place, Float[Tensor, "rows at width"]] = field(default_factory=dict)
    """The bases', where the pass that is differentiated is not theirs."""
    whole: dict[int, Float[Tensor, " rows"]] = field(default_factory=dict)
    """By the index of the site."""
    along: dict[Site, Float[Tensor, "rows k"]] = field(default_factory=dict)

    def tap(self, layer: int, scales: RowScales) -> Tap:
        """What keeps an eye on the gradients of a layer's activations, which are scaled."""
        if not any(place[0] == layer for place in self.batch.spots):
            return untouched

        def tap(point: str, activation: Tensor) -> Tensor:
            place, spots = (layer, point), self.batch.spots.get((layer, point))
            # What does not depend on the input is the source's already.
            if spots is not None and activation.requires_grad:
                ours = self.ours.get(place)
                ours = activation.detach()[:, spots.base] if ours is None else ours
                apart = self.theirs[place].float() - ours.float()

                def add(gradient: Tensor) -> None:
                    self._add(place, spots, apart, scales.down(gradient[:, spots.base]))

                activation.register_hook(add)
            return activation

        return tap

    def _add(
        self,
        place: Place,
        spots: _Spots,
        apart: Float[Tensor, "rows at width"],
        gradient: Float[Tensor, "rows at width"],
    ) -> None:
        """Add what one place gives."""
        sums = spots.sums(apart * gradient)
        for index, score in zip(self.batch.wanted.by_place[place], sums, strict=True):
            self.whole[index] = self.whole.get(index, 0.0) + score
        for index, site in enumerate(spots.sites):
            frame = self.batch.wanted.frames.get(site)
            if frame is None:
                continue
            frame = frame.to(apart)
            far, slope = (spots.vectors(index, one) @ frame.mT for one in (apart, gradient))
            self.along[site] = self.along.get(site, 0.0) + far * slope

    def scores(self, values: Float64[Tensor, " rows"]) -> dict[str, Tensor]:
        """The means over the passes, on the CPU; of pairs that have no metric NaN.

        Raises:
            UserError: gradients are not finite.
        """
        wanted, n = self.batch.wanted, len(self.batch.layout)
        nothing = torch.zeros(n, device=values.device)
        none = values.isnan().cpu()
        passes = max(1, wanted.steps)
        found = {
            "whole": torch.stack(
                [self.whole.get(index, nothing) for index in range(len(wanted.sites))]
            ),
            **{
                f"site {index}": self.along.get(site, nothing[:, None].expand(-1, len(frame))).mT
                for index, (site, frame) in enumerate(wanted.frames.items())
            },
        }
        ended = {name: scores.double().cpu() / passes for name, scores in found.items()}
        if not all(map(is_finite, ended.values())):
            model = self.batch.model
            dtype = str(model.dtype).removeprefix("torch.")
            raise UserError(
                f"expected finite gradients of {model.name}, got some in {dtype} that are not; "
                "set dtype=float32, or screen=none"
            )
        return {name: scores.masked_fill(none, torch.nan) for name, scores in ended.items()}
