"""Which passes a cell makes: rows, layers and positions, and what they come to in multiply-adds."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mech_arith.directions.rotation import EVALUATED_EVERY, RELAXED_STEPS
from mech_arith.engine import batch_effect
from mech_arith.engine.guard import EDITS, PROBLEMS, SITES
from mech_arith.engine.reading import ReferenceAnswers, force
from mech_arith.engine.sites import Site
from mech_arith.experiment.cell import CellPlan
from mech_arith.interventions.rehearsal import Rehearsed
from mech_arith.models.base import Model
from mech_arith.models.kinds import HEADS_AT
from mech_arith.models.prompts import Layout, Prompts
from mech_arith.models.stand_in import StandIn
from mech_arith.problems import ProblemSet

PARTED = 0.1
"""Share of edited rows that part from the right answer and write on: .02 to .1 in small cells of
the shipped decoder and of SmolLM2."""

WRITTEN = 2
"""Tokens that such a row goes on to write."""

GRADIENT = 3.0
"""What a pass forward and backward takes, in passes forward."""

FEW = 64
"""Problems by whose answers it is told how many tokens are fed."""

TRAINED = 0.6
"""Share of the steps of a training until it ends by patience."""


Number = int | float


@dataclass(frozen=True)
class Passes:
    """Rows that go through as many layers on as many positions."""

    stage: str
    rows: Number
    layers: Number
    """That each row runs."""
    positions: Number
    """Of each row, behind what it shares with others."""
    before: Number = 0.0
    """Positions that these attend to besides themselves."""
    read: Number = 0.0
    """Positions that are read out."""
    is_edited: bool = False
    """Rows are edits of problems."""
    times: Number = 1.0
    """In passes forward."""


@dataclass(frozen=True)
class Costs:
    """Multiply-adds of a model's parts, counted on its stand-in."""

    block: float
    """Of one layer at one position."""
    attention: float
    """Of one layer for one pair of positions."""
    read_out: float
    """Of one position."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model) -> "Costs":
        """Count what one row makes of one token."""
        resid = model.embed(torch.zeros(1, 1, dtype=torch.int64, device=model.device))
        with FlopCounterMode(display=False) as of_block:
            after, _ = model.run_block(0, resid)
        with FlopCounterMode(display=False) as of_reading:
            model.read_out(after)
        heads = model.width_at(0, HEADS_AT) if HEADS_AT in model.points else model.d_model
        # A query times a key, and a weight times what stands there.
        return cls(of_block.get_total_flops() / 2, 2.0 * heads, of_reading.get_total_flops() / 2)

    def macs(self, passes: Passes) -> float:
        """Multiply-adds of all rows."""
        p = passes.positions
        layer = p * self.block + p * (p + passes.before) * self.attention
        one = passes.layers * layer + passes.read * self.read_out
        return passes.rows * passes.times * one


@dataclass(frozen=True)
class Asked:
    """A cell by its prompts: all that its passes follow from."""

    stand_in: StandIn
    plan: CellPlan
    fit: ProblemSet
    report: ProblemSet
    prompts_fit: Prompts
    prompts: Prompts
    sites: Sequence[Site]
    """That are traced and edited: all candidates where they are screened."""
    mapped: Sequence[Site]
    """That are traced alone."""
    rehearsed: Rehearsed

    @property
    def n_edited(self) -> int:
        """Problems that are edited."""
        return 0 if self.plan.intervention is None else len(self.plan.edited(self.report))

    @property
    def n_sites(self) -> int:
        """Sites that are edited."""
        return self.plan.n_traced(self.sites)

    @property
    def edits(self) -> float:
        """Of one problem."""
        return self.rehearsed.edits * self.n_sites

    @cached_property
    def n_fed(self) -> int:
        """Tokens of the right answers that are fed behind the prompts."""
        some = self.report.take(np.arange(min(FEW, len(self.report))))
        asked = ReferenceAnswers.of_problems(some, seed=self.plan.seed)
        return force(self.stand_in.model, asked).fed.shape[1]

    @property
    def widths(self) -> Counter[int]:
        """Of all sites that are traced the number of their coordinates, and how many have it."""
        layout = self.prompts.layouts[0]
        traced = [*self.sites[: self.n_sites], *self.mapped]
        return Counter(
            len(layout.positions(site.position))
            * self.stand_in.width_at(site.layer, site.point)
            // (1 if site.head is None else self.stand_in.n_heads)
            for site in traced
        )

    @cached_property
    def shape(self) -> "Shape":
        """Of the prompts, as they are on average."""
        n = sum(len(layout) for layout in self.prompts.layouts)
        tokens = sum(len(layout) * layout.tokens.shape[1] for layout in self.prompts.layouts) / n
        return Shape(len(self.prompts.prefix), tokens, self.n_fed, len(self.prompts.layouts))

    def layers_above(self, site: Site) -> int:
        """That an edit at a site runs."""
        if not self.stand_in.model.replays:
            return self.stand_in.n_layers
        return self.stand_in.n_layers - site.layer - (site.point == "resid_post")

    def positions_from(self, site: Site) -> Number:
        """From the first edited position on, with the answer's tokens; on average."""
        if not self.stand_in.model.replays:
            return self.shape.prefix + self.shape.whole
        if not self.stand_in.model.causal:
            return self.shape.tokens
        first = [len(x) * min(x.positions(site.position)) for x in self._layouts]
        return self.shape.tokens + self.n_fed - sum(first) / sum(map(len, self._layouts))

    @property
    def _layouts(self) -> tuple[Layout, ...]:
        return self.prompts.layouts


@dataclass(frozen=True)
class Shape:
    """Positions of prompts."""

    prefix: int
    """That all share."""
    tokens: float
    """Behind the prefix."""
    fed: int
    """Of the right answer, fed behind them."""
    layouts: int

    @property
    def whole(self) -> float:
        """Prompt and answer."""
        return self.tokens + self.fed


def passes_of(asked: Asked) -> list[Passes]:
    """All passes of a cell, stage by stage."""
    return [
        *_check(asked),
        *_batch_effect(asked),
        *_baseline(asked, "baseline", len(asked.report)),
        *_tracing(asked),
        *_training(asked),
        *_screen(asked),
        *_intervention(asked),
        *_locality(asked),
    ]


def _check(asked: Asked) -> Iterator[Passes]:
    """The guard's: whole passes and resumed ones, of a few problems at a few sites."""
    shape, layers = asked.shape, asked.stand_in.n_layers
    sites = min(SITES, len({(site.layer, site.point) for site in asked.sites}))
    rows = PROBLEMS * min(2, shape.layouts)
    whole = rows * (2 + EDITS + sites * 2 * EDITS)
    positions = shape.prefix + shape.whole
    yield Passes("check", whole, layers, positions, read=1 + shape.fed)
    resumed = rows * sites * 2 * EDITS
    yield Passes("check", resumed, layers / 2, shape.whole, shape.prefix, read=1 + shape.fed)


def _batch_effect(asked: Asked) -> Iterator[Passes]:
    """In half precision: a few problems and edits of them, in batches and alone."""
    if asked.stand_in.model.dtype not in batch_effect.HALF:
        return
    few = min(batch_effect.PROBLEMS, len(asked.report))
    rows = min(batch_effect.MOST_PROBLEMS, len(asked.report)) + few
    lowest = min(asked.sites, key=lambda site: site.layer)
    yield from _captured(asked, "check", rows, [lowest])
    yield from _baseline(asked, "check", rows)
    edited = batch_effect.MOST_ROWS + few * batch_effect.EDITS
    for some in _edited(asked, "check", [lowest], edited):
        yield replace(some, is_edited=False)


def _prefix(asked: Asked, stage: str, times: Number) -> Passes:
    """The examples before the prompts, in a row of their own."""
    return Passes(stage, times, asked.stand_in.n_layers, asked.shape.prefix)


def _baseline(asked: Asked, stage: str, rows: Number) -> Iterator[Passes]:
    """Clean passes to an answer."""
    shape, layers = asked.shape, asked.stand_in.n_layers
    yield _prefix(asked, stage, 1)
    yield Passes(stage, rows, layers, shape.whole, shape.prefix, read=1 + shape.fed)
    yield from _written(asked, stage, rows, layers)


def _written(asked: Asked, stage: str, rows: Number, layers: Number) -> Iterator[Passes]:
    """Tokens that rows write that part from the right answer."""
    if not asked.stand_in.model.regresses:
        before = asked.shape.prefix + asked.shape.whole
        yield Passes(stage, PARTED * WRITTEN * rows, layers, 1, before, read=1)


def _captured(asked: Asked, stage: str, rows: Number, sites: Sequence[Site]) -> Iterator[Passes]:
    """Passes that read activations, up to the last site."""
    stop = 1 + max((site.layer for site in sites), default=-1)
    answer = asked.shape.fed if any(site.in_answer for site in sites) else 0
    yield _prefix(asked, stage, 1)
    yield Passes(stage, rows, stop, asked.shape.tokens + answer, asked.shape.prefix)


def _tracing(asked: Asked) -> Iterator[Passes]:
    n = len(asked.fit) + len(asked.report)
    for _ in range(1 + asked.plan.untrained_twins):
        yield from _captured(asked, "tracing", n, [*asked.sites, *asked.mapped])


def _training(asked: Asked) -> Iterator[Passes]:
    """Passes with gradients of a method that is trained: of one without steps a single pass over
    its pairs for each value, otherwise `rotation`, for each value and rank. All once more for its
    control task.
    """
    method = asked.plan.method
    if not method.is_trained:
        return
    options = method.options
    names = options.get("values") or asked.fit.hypothesis.values
    pairs = min(float(options.get("pairs", len(asked.fit))), 2.0 * len(asked.fit))
    held_out = float(options.get("holdout", 0.2)) * pairs
    trained = pairs - held_out
    steps = TRAINED * float(options.get("steps", 0))
    gradients = min(float(options.get("batch", pairs)), trained) * steps + trained * RELAXED_STEPS
    plain = held_out * steps / EVALUATED_EVERY + trained * (RELAXED_STEPS + 2)
    n = 2.0 * len(names) * len(method.ranks or (1,)) * float(options.get("seeds", 1))
    if "steps" not in options:
        gradients, plain, n = pairs, 0.0, 2.0 * len(names)
    every = [*asked.sites[: asked.n_sites], *asked.mapped]
    for site in every:
        layers, positions = asked.layers_above(site), asked.positions_from(site)
        before = asked.shape.prefix + asked.shape.whole - positions
        read = 1 + asked.shape.fed
        yield Passes("training", n * gradients, layers, positions, before, read, times=GRADIENT)
        yield Passes("training", n * plain, layers, positions, before, read)
        opened = 2.0 * len(names) * pairs * 3
        yield Passes("training", opened, asked.stand_in.n_layers, asked.shape.whole)


def _screen(asked: Asked) -> Iterator[Passes]:
    """Scores of all candidates, exact effects of some, and the same of directions."""
    plan = asked.plan.screen
    if plan is None:
        return
    shape, layers, n_fit = asked.shape, asked.stand_in.n_layers, len(asked.fit)
    read = 1 + shape.fed
    for _ in range(2):  # of the sites, and of the directions at those that are kept
        sources = n_fit * (2 if plan.steps else 1)
        yield Passes("screen", sources, layers, shape.whole, shape.prefix)
        rows = n_fit * max(1, plan.steps)
        yield Passes("screen", rows, layers, shape.whole, shape.prefix, read, times=GRADIENT)
    n = len(asked.plan.edited(asked.report))
    sampled = screened_exactly(asked)
    yield Passes("exact effects", 5 * n, layers, shape.whole, shape.prefix, read)
    k = asked.plan.method.n_components
    each = (sampled + k * plan.keep) / len(asked.sites)
    yield from _edited(asked, "exact effects", asked.sites, each * n, writes=False)


def screened_exactly(asked: Asked) -> float:
    """Candidates whose exact effect is measured: those kept, and those of a sample."""
    plan, n = asked.plan.screen, len(asked.sites)
    if plan is None:
        return 0.0
    sample = min(plan.sample, n)
    return sample + plan.keep * (1 - sample / n)


def _edited(
    asked: Asked, stage: str, sites: Sequence[Site], rows: Number, *, writes: bool = True
) -> Iterator[Passes]:
    """So many edited rows at each of some sites."""
    shape, by_shape = asked.shape, {}
    for site in sites:
        at = asked.layers_above(site), asked.positions_from(site)
        by_shape[at] = by_shape.get(at, 0.0) + rows
    for (layers, positions), of_shape in by_shape.items():
        before = shape.prefix + shape.whole - positions
        read = min(positions, 1 + shape.fed)
        yield Passes(stage, of_shape, layers, positions, before, read, is_edited=True)
        if writes:
            yield from _written(asked, stage, of_shape, layers)


def _intervention(asked: Asked) -> Iterator[Passes]:
    found, n = asked.rehearsed, asked.n_edited
    if n == 0:
        return
    stage, layers = "intervention", asked.stand_in.n_layers
    share = asked.n_sites / len(asked.sites)
    yield from _captured(asked, stage, found.captured * n, asked.sites)
    yield from _edited(asked, stage, asked.sites, share * found.rows * n)
    whole = found.whole * n + found.models * asked.n_sites * n
    read = 1 + asked.shape.fed
    yield Passes(stage, whole, layers, asked.shape.whole, asked.shape.prefix, read)
    yield _prefix(asked, stage, found.models * asked.n_sites)
    yield from _captured(asked, "off_distribution", n, asked.sites)


def _locality(asked: Asked) -> Iterator[Passes]:
    plan, found = asked.plan.locality, asked.rehearsed
    if plan is None:
        return
    n = min(plan.n_problems or len(asked.report), len(asked.report))
    yield from _captured(asked, "locality", found.locality_captured * n, asked.sites)
    yield from _edited(asked, "locality", asked.sites, found.locality_rows * n)
