"""How fast this machine is: measured on a model's stand-in, by the engine's own passes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mech_arith.directions.base import DirectionMethod, FitTask
from mech_arith.directions.tracing import value_table
from mech_arith.engine.answers import Answers
from mech_arith.engine.batching import Batching
from mech_arith.engine.reading import NO_TOKEN, force
from mech_arith.engine.run import Baseline, ReferenceAnswers, SiteGrid, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.experiment.pricing.work import Asked, Costs, Number, Passes
from mech_arith.interventions.run import InterventionPlan, wanted_sources
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.models.rehearsed import RehearsedModel
from mech_arith.problems import ProblemSet

MACS = 1e9
"""Multiply-adds of the rows that are timed, at most: a tenth of a second of one core."""

LEAST_ROWS = 16
REPEATS, TIMES = 2, 3
"""Each measurement is made so often; and of so many edits more, for what a row more takes."""

WIDEST = 768
"""Coordinates of a site at which the fitting of directions is timed, at most."""

N_SHUFFLES = 4
"""Times that sources are dealt out anew where their drawing is timed."""


@dataclass(frozen=True)
class Timing:
    """What one row takes."""

    positions: Number
    layer: float
    """Seconds in each layer."""
    read: float
    """Seconds before and behind the layers: the edit is made, the answer is read."""


@dataclass(frozen=True)
class Rate:
    """Seconds of passes."""

    costs: Costs
    given: float | None
    """Multiply-adds per second, where the user says so."""
    short: Timing | None = None
    """Of rows that run few positions."""
    long: Timing | None = None
    """Of rows that run all."""

    def seconds(self, passes: Passes) -> float:
        """All rows of some passes."""
        if self.given is not None:
            return self.costs.macs(passes) / self.given
        layer, read = self._at(passes.positions)
        one = passes.layers * layer + (read if passes.read else 0.0)
        return passes.rows * passes.times * one

    def _at(self, positions: Number) -> tuple[float, float]:
        """Seconds by layer and for reading, of a row of so many positions."""
        assert self.short is not None
        assert self.long is not None
        short, long = self.short, self.long
        apart = long.positions - short.positions
        share = (positions - short.positions) / apart if apart else 0.0
        if share < 0 or not apart:
            return short.layer * positions / short.positions, short.read
        return (
            short.layer + share * (long.layer - short.layer),
            short.read + min(share, 1.0) * (long.read - short.read),
        )


def clock(device: torch.device) -> Callable[[], float]:
    """CPU time where one thread computes, which other programs do not change; else the clock's."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def measured(asked: Asked, costs: Costs, batch_size: int | None) -> Rate:
    """The rate at a cell's prompts and batch size."""
    model, baseline = asked.stand_in.model, _unanswered(asked)
    session = Session(model, Batching(batch_size))
    points = [
        _timing(session, baseline, costs, position, asked.n_fed)
        for position in (("last", "first") if model.causal else ("first",))
    ]
    return Rate(costs, None, points[0], points[-1])


def _unanswered(asked: Asked) -> Baseline:
    """A few problems of the largest layout, as if nothing were known of the model's answers."""
    model = asked.stand_in.model
    layout = max(asked.prompts.layouts, key=len).part(slice(LEAST_ROWS))
    numbers = torch.from_numpy(asked.report.answers).double()[layout.rows]
    right = ReferenceAnswers(numbers, numbers.roll(1), int(numbers.abs().max()))
    prompts = Prompts(asked.prompts.prefix, (replace(layout, rows=torch.arange(len(layout))),))
    written = torch.full((len(layout), force(model, right).right.shape[1]), NO_TOKEN)
    return Baseline(prompts, right, Answers.empty(len(layout)), written)


def _timing(
    session: Session, baseline: Baseline, costs: Costs, position: str, n_fed: int
) -> Timing:
    """The rate of rows that are edited from a position on."""
    model = session.model
    tokens = baseline.prompts.layouts[0].tokens.shape[1]
    first = min(baseline.prompts.layouts[0].positions(position)) if model.causal else 0
    positions = tokens + n_fed - first
    row = Passes("", 1, model.n_layers, positions, first, 1 + n_fed)
    n_rows = max(LEAST_ROWS, min(session.batching.rows(model, positions), MACS / costs.macs(row)))
    few = max(1, round(n_rows / len(baseline)))

    def by_row(layer: int, point: str) -> float:
        """Of one row more: what all edits share, their clean pass too, is the same for few."""
        spent = [
            _spent(session, baseline, _edits(model, Site(layer, point, position), n, len(baseline)))
            for n in (few, TIMES * few)
        ]
        return max(spent[1] - spent[0], 0.1 * spent[1]) / ((TIMES - 1) * few * len(baseline))

    if not model.replays:  # every pass is a whole one
        positions += len(baseline.prompts.prefix)
        whole = by_row(0, "resid_pre")
        read = (1 + n_fed) * costs.read_out
        share = read / (read + model.n_layers * positions * costs.block)
        return Timing(positions, (1 - share) * whole / model.n_layers, share * whole)
    nothing, every = by_row(model.n_layers - 1, "resid_post"), by_row(0, "resid_pre")
    return Timing(positions, max(every - nothing, 0.05 * every) / model.n_layers, nothing)


def _spent(session: Session, baseline: Baseline, edits: SiteGrid) -> float:
    """Seconds for some edits, the least of several tries: other programs only add to it."""
    now, found = clock(session.model.device), []
    for _ in range(REPEATS):
        started = now()
        run_edits(session, baseline, [edits], writes=False)
        found.append(now() - started)
    return min(found)


def _edits(model: Model, site: Site, n_edits: int, n: int) -> SiteGrid:
    """Every problem moved along random directions."""
    random = torch.Generator().manual_seed(0)
    frames = torch.randn(n_edits, 1, site.width(model), generator=random)
    frames /= frames.norm(dim=2, keepdim=True)
    changes: Tensor = torch.full((1, n, 1), 0.01, dtype=torch.float64)
    return SiteGrid(site, frames, changes)


def source_seconds(problems: ProblemSet, plan: InterventionPlan, *, n_shuffles: int) -> float:
    """Seconds in which sources are drawn, and dealt out anew so many times."""
    if plan.edit.target is None:
        return 0.0

    def spent(times: int) -> float:
        started = time.process_time()
        wanted_sources(problems, plan, times)
        return time.process_time() - started

    spent(1)
    few, more = spent(1), spent(1 + N_SHUFFLES)
    return few + max(0.0, more - few) / N_SHUFFLES * n_shuffles


def fit_seconds(method: DirectionMethod, problems: ProblemSet, width: int) -> float:
    """Seconds in which directions are fitted at one site, and once more for the control task.

    Of a wide site a narrower one is timed: time goes with the square of the width where problems
    are fewer than coordinates. A method that is trained is priced by its passes.
    """
    if method.is_trained or method.files:
        return 0.0
    narrow = min(width, WIDEST)
    random = torch.Generator().manual_seed(0)
    values = value_table(problems)
    activations = torch.randn(len(problems), narrow, generator=random)
    activations[:, : values.shape[1]] += values.float()[:, :narrow]
    session = Session(RehearsedModel(problems, n_layers=1, n_components=method.n_components))
    prompts = session.model.encode(problems)
    task = FitTask(session, problems, prompts, Site(0, "resid_post", "last"), values, method.ranks)
    started = time.process_time()
    fitter = method.fitter(task)
    fitter.update(activations, values)
    fitter.fit()
    spent = time.process_time() - started
    return spent * (width / narrow) ** 2 * (2 if method.is_supervised else 1)
