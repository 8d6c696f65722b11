"""Screen, then test: a first-order score of every candidate, exact interventions on the largest.

Scores are of the fit split, and choose. Exact effects are of the report split: of the candidates
that are kept, and of a sample that is drawn without a look at the scores. On the sample the two are
compared, so that the screen's users know whether to believe it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.tracing import Trace, read_coordinates
from mech_arith.engine.attribution import attribute
from mech_arith.engine.pairs import Pairs, metric_of, metric_of_answers
from mech_arith.engine.run import (
    Baseline,
    Edits,
    ReferenceAnswers,
    SiteEdits,
    SiteVectors,
    stored_baseline,
)
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.interchange import run_all, some_at_a_time, whole_moves
from mech_arith.models.base import Model
from mech_arith.models.kinds import Metric
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.sources import draw_sources


@dataclass(frozen=True)
class ScreenPlan:
    """How sites are screened."""

    keep: int
    """Sites that are kept."""
    sample: int
    """Sites that are drawn for the comparison, whatever their scores; all if there are fewer."""
    metric: Metric = Metric.LOGIT_DIFFERENCE
    """Of a model that writes."""
    steps: int = 0
    """Of integrated gradients; 0 for gradients at the base alone."""
    points: tuple[str, ...] = ()
    """Points of the candidates; none for all that the model has."""
    seed: int = 0
    """Of the pairs and of the sample."""


@dataclass(frozen=True)
class Screened:
    """Scores of all candidates, and exact effects of some."""

    sites: tuple[Site, ...]
    """All candidates."""
    score: Float64[Tensor, " sites"]
    """Mean first-order effect over the pairs of the fit split, in the metric's unit."""
    kept: tuple[int, ...]
    """Candidates with the largest |score|, the largest first."""
    sampled: tuple[int, ...]
    """Candidates that were drawn for the comparison."""
    metric: Metric
    steps: int
    n_fit: int
    """Pairs of the fit split."""
    effects: dict[int, Float64[Tensor, " n"]] = field(default_factory=dict)
    """By candidate the exact effect on each pair of the report split."""

    @property
    def kept_sites(self) -> list[Site]:
        """In the order of the candidates, which tables follow."""
        return [self.sites[index] for index in sorted(self.kept)]


@dataclass(frozen=True)
class ScreenedDirections:
    """The same of every direction at one kept site."""

    score: Float64[Tensor, " k"]
    effects: Float64[Tensor, "k n"]


def check_screen(plan: ScreenPlan, sites: Sequence[Site]) -> None:
    """Raise a UserError where there are fewer candidates than are to be kept."""
    if plan.keep > len(sites):
        raise UserError(
            f"expected screen.keep up to {len(sites)}, the sites that layers, tracing.positions, "
            f"tracing.heads and screen.points name, got {plan.keep}; lower it"
        )


def draw_pairs(
    model: Model,
    problems: ProblemSet,
    encode: Callable[[ProblemSet], Prompts],
    *,
    seed: int,
    constraints: Sequence[Constraint] = (),
) -> Pairs:
    """Problems that have another one with another answer, and that one: all operands are its own.

    Raises:
        UserError: all problems have the same answer.
    """
    answer = problems.hypothesis.answer
    sources = draw_sources(problems, answer, m=1, n_shuffles=1, seed=seed, constraints=constraints)
    if sources is None:
        raise UserError(
            f"expected problems with several answers {answer}, got one answer for all; change "
            "problems.operands, or set screen=none"
        )
    (other,) = sources.problems
    right, theirs = (torch.from_numpy(some.answers).double() for some in (sources.base, other))
    asked = ReferenceAnswers(right, theirs, int(right.abs().max()))
    return Pairs(encode(sources.base), encode(other), asked)


def screen(session: Session, pairs: Pairs, sites: Sequence[Site], plan: ScreenPlan) -> Screened:
    """Score all candidates on pairs of the fit split, and choose.

    Raises:
        UserError: as `attribute`; or no pair has the metric.
    """
    metric = metric_of(session.model, plan.metric)
    scores = attribute(session, pairs, sites, metric=metric, steps=plan.steps).whole
    if scores.isnan().all():
        raise UserError(
            f"expected answers that have the metric {metric.value}, got none among {len(pairs)} "
            "problems; choose another screen.metric"
        )
    score = scores.nanmean(1)
    order = score.abs().argsort(descending=True, stable=True)
    random = np.random.default_rng([plan.seed, len(sites)])
    drawn = random.choice(len(sites), size=min(plan.sample, len(sites)), replace=False)
    return Screened(
        tuple(sites),
        score,
        tuple(order[: plan.keep].tolist()),
        tuple(sorted(drawn.tolist())),
        metric,
        plan.steps,
        len(pairs),
    )


def measured(session: Session, pairs: Pairs, found: Screened) -> Screened:
    """The same with exact effects on pairs of the report split: of what is kept or sampled."""
    some = sorted({*found.kept, *found.sampled})
    sites = [found.sites[index] for index in some]
    effects = exact_effects(session, pairs, sites, found.metric)
    return replace(found, effects=dict(zip(some, effects, strict=True)))


def exact_effects(
    session: Session, pairs: Pairs, sites: Sequence[Site], metric: Metric
) -> Float64[Tensor, "sites n"]:
    """The metric's change where each source's whole activation is put in place at a site."""
    found, baseline = [], stored_baseline(session, pairs.base, pairs.asked)
    for some in some_at_a_time(session.model, pairs.base, sites, n_values=1):
        moves = whole_moves(session, pairs.base, pairs.source, some)
        plan = [SiteVectors(site, moves[site][None]) for site in some]
        found += [of_site[0] for of_site in _changes(session, baseline, plan, metric)]
    return torch.stack(found)


def screen_directions(
    session: Session, fit: Pairs, report: Pairs, traces: Mapping[Site, Trace], plan: ScreenPlan
) -> dict[Site, ScreenedDirections]:
    """Scores and exact effects of every direction at the sites that are kept.

    The source's coordinate along the direction is put in place, all else stays.
    """
    sites, metric = list(traces), metric_of(session.model, plan.metric)
    frames = {site: found.subspace.directions.float() for site, found in traces.items()}
    scores = attribute(session, fit, sites, metric=metric, steps=plan.steps, frames=frames).along
    own, theirs = (
        read_coordinates(session, prompts, traces) for prompts in (report.base, report.source)
    )
    edits = []
    for index, site in enumerate(sites):
        far = (theirs[f"site {index}"] - own[f"site {index}"]).mT
        edits.append(SiteEdits(site, frames[site][:, None], far[..., None]))
    baseline = stored_baseline(session, report.base, report.asked)
    changes = _changes(session, baseline, edits, metric)
    return {
        site: ScreenedDirections(scores[site].nanmean(1), found)
        for site, found in zip(sites, changes, strict=True)
    }


def _changes(
    session: Session, baseline: Baseline, plan: Sequence[Edits], metric: Metric
) -> list[Float64[Tensor, "edits n"]]:
    """What each edit makes of the metric, minus what it is."""
    model, asked = session.model, baseline.asked
    clean = metric_of_answers(model, baseline.answers, asked, metric)
    found = run_all(session, baseline, plan, description="exact effects", writes=False)
    return [metric_of_answers(model, one, asked, metric) - clean for one in found]
