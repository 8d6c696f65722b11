"""All steps of a hypothesis interchanged together, each at the place where it is best read.

One step at a time a subspace may do what is asked of it, and the steps together may still not be
what the model computes with: the strict test of a hypothesis sets several at once, from different
problems.

Source: Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.directions.tracing import Trace
from mech_arith.engine.held import Held, run_held
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.run import InterventionPlan
from mech_arith.models.kinds import ANSWER, PROMPT_AND_ANSWER
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.joint import JointSources, draw_joint

APART = 0.3
"""Least singular value of the unit directions of steps at one site, taken together: two of them
are 25 degrees apart or more. Nearer ones are one place, which no two steps may have."""

Place = tuple[Site, tuple[int, ...]]
"""A site, and the directions there."""


@dataclass(frozen=True)
class Aligned:
    """The answers to problems while steps of a hypothesis are set together."""

    hypothesis: Hypothesis
    """By itself, without rivals."""
    rank: int
    places: dict[str, Place]
    """Where each step is taken to be."""
    sources: JointSources
    numbers: Float64[Tensor, " draws"]
    """Answers to `sources.rows`."""


def interchange_together(
    session: Session, bases: Bases, plan: InterventionPlan, *, tolerance: float
) -> Iterator[Aligned]:
    """Set the steps of each hypothesis, several at a time, the whole way to their sources.

    Nothing is asked where no hypothesis has several: of one step that is its interchange.

    Args:
        session: the model under study.
        bases: the problems that are edited; steps are taken from others of them.
        plan: its ranks, its number of sources and its seed.
        tolerance: within which an answer is exact.
    """
    asked = bases.problems.hypothesis
    every = [each for each in (asked.alone(), *asked.rivals) if each.used_steps]
    if all(len(each.used_steps) < 2 for each in every):
        return
    for rank in plan.ranks or (1,):
        for hypothesis in every:
            places = best_places_of(bases.traces, hypothesis.used_steps, rank)
            if places is None:
                continue
            sources = draw_joint(
                bases.problems,
                hypothesis,
                tuple(places),
                m=plan.n_sources,
                tolerance=tolerance,
                seed=plan.seed,
            )
            held = _held(bases.traces, places, sources)
            numbers = run_held(session, bases.baseline, held).flatten()
            yield Aligned(hypothesis, rank, places, sources, numbers)


def best_places_of(
    traces: Mapping[Site, Trace], steps: tuple[str, ...], rank: int
) -> dict[str, Place] | None:
    """Where each step is read best on the fit split; None where one of them has no place.

    The step that is read best of all comes first. At one site no two steps have directions that are
    nearly the same: the second goes where it is read next best.
    """
    found = {
        (site, step): reading
        for site, trace in traces.items()
        if site.position not in (ANSWER, PROMPT_AND_ANSWER)
        for readings in trace.readings
        if readings.rank == rank
        for step, reading in zip(trace.values, readings.by_value, strict=True)
        if step in steps and reading is not None and reading.r_fit == reading.r_fit
    }
    places: dict[str, Place] = {}
    for site, step in sorted(found, key=lambda place: -found[place].r_fit):
        components = found[site, step].components
        if step not in places and _is_free(traces[site], site, components, places):
            places[step] = (site, components)
    return {step: places[step] for step in steps} if len(places) == len(steps) else None


def _is_free(
    trace: Trace, site: Site, components: tuple[int, ...], places: Mapping[str, Place]
) -> bool:
    """Whether directions are apart from those that other steps have at the site."""
    taken = [i for there, theirs in places.values() if there == site for i in theirs]
    frame = trace.subspace.directions[[*taken, *components]].double()
    if len(frame) > frame.shape[1]:
        return False
    return bool(torch.linalg.svdvals(frame).min() >= APART)


def _held(
    traces: Mapping[Site, Trace], places: Mapping[str, Place], sources: JointSources
) -> list[Held]:
    """What the sites' coordinates are to be under each of the m choices for every problem."""
    n = len(sources.problems)
    found = []
    for site in dict.fromkeys(site for site, _ in places.values()):
        trace, components, to = traces[site], [], []
        for column, step in enumerate(sources.steps):
            at, own = places[step]
            if at != site:
                continue
            components += own
            wanted = trace.coordinates[sources.partner[:, column]][:, list(own)]
            chosen = torch.from_numpy(sources.chosen[:, column])
            to.append(wanted.where(chosen[:, None], torch.nan).unflatten(0, (-1, n)))
        frame, mean = trace.subspace.directions[components], trace.subspace.mean
        found.append(Held(site, frame, mean, torch.cat(to, dim=2)))
    return found
