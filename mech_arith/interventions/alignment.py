"""All steps of a hypothesis interchanged together, each where answers follow it most often.

One step at a time a subspace may do what is asked of it, and the steps together may still not be
what the model computes with: the strict test of a hypothesis sets several at once, from different
problems.

Source: Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.directions.tracing import Trace
from mech_arith.engine.held import Held, run_held
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.edits.base import WHOLE_WAY
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.models.kinds import ANSWER, PROMPT_AND_ANSWER
from mech_arith.problems import ProblemSet
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
    followed: float
    """How often answers follow a step that is set by itself there, the mean over steps, of the
    problems on which places were chosen."""
    sources: JointSources
    numbers: Float64[Tensor, " draws"]
    """Answers to `sources.rows`."""


def interchange_together(
    session: Session,
    bases: Bases,
    plan: InterventionPlan,
    done: InterventionRun,
    *,
    tolerance: float,
) -> Iterator[Aligned]:
    """Set the steps of each hypothesis, several at a time, the whole way to their sources.

    Places are chosen on the second half of the edited problems, and tried on the first. Nothing is
    asked where no hypothesis has several steps: of one that is its interchange.

    Args:
        session: the model under study.
        bases: the problems that are edited; steps are taken from others of them.
        plan: its ranks, its number of sources and its seed.
        done: the interchanges of single values, as planned.
        tolerance: within which an answer is exact.
    """
    asked = bases.problems.hypothesis
    every = [each for each in (asked.alone(), *asked.rivals) if each.used_steps]
    if all(len(each.used_steps) < 2 for each in every):
        return
    tried = bases.take(len(bases) - len(bases) // 2)
    followed = _followed(done, plan, tolerance, start=len(tried))
    for rank in plan.ranks or (1,):
        for hypothesis in every:
            places = best_places_of(bases.traces, hypothesis.used_steps, rank, followed)
            if places is None:
                continue
            sources = draw_joint(
                tried.problems,
                hypothesis,
                tuple(places),
                m=plan.n_sources,
                tolerance=tolerance,
                seed=plan.seed,
            )
            held = _held(bases.traces, places, sources)
            numbers = run_held(session, tried.baseline, held).flatten()
            alone = [followed.get(place, 0.0) for place in places.items()]
            yield Aligned(hypothesis, rank, places, fmean(alone), sources, numbers)


def untested(problems: ProblemSet, found: Sequence[Aligned]) -> list[str]:
    """Which hypotheses of several steps were not tested as a whole, in words."""
    asked = problems.hypothesis
    tested = {one.hypothesis.name for one in found}
    return [
        f"hypothesis {each.name} is not tested as a whole: not each of its steps "
        f"({', '.join(each.used_steps)}) has a place of its own among the sites; choose more "
        "layers, or single positions, as tracing.positions=each or answer.each"
        for each in (asked.alone(), *asked.rivals)
        if len(each.used_steps) > 1 and each.name not in tested
    ]


def _followed(
    done: InterventionRun, plan: InterventionPlan, tolerance: float, *, start: int
) -> dict[tuple[str, Place], float]:
    """How often answers follow a value, the whole way, of the problems from one row on."""
    if WHOLE_WAY not in plan.strengths:
        return {}
    at = plan.strengths.index(WHOLE_WAY)
    found = {}
    for one in done.results:
        value, chosen = one.target.target_value, one.rows >= start
        numbers = one.target_answers.numbers[0, :, at][:, chosen]
        right = (numbers - done.sources[value].expected[:, chosen]).abs() <= tolerance
        if right.numel():
            found[value, (one.site, one.target.components)] = float(right.double().mean())
    return found


def best_places_of(
    traces: Mapping[Site, Trace],
    steps: tuple[str, ...],
    rank: int,
    followed: Mapping[tuple[str, Place], float],
) -> dict[str, Place] | None:
    """Where answers follow each step most often; None where one of them has no place.

    Subspaces may have fewer directions than the rank. Where answers follow a step equally often, or
    it was not interchanged by itself, the place is better at which it is read better on the fit
    split. The step that has the best place comes first. At one site no two steps have directions
    that are nearly the same: the second goes where it is next best.
    """
    found = {}
    for site, trace in traces.items():
        if site.position in (ANSWER, PROMPT_AND_ANSWER):
            continue  # held at several positions that are written one after another
        for readings in trace.readings:
            for step, reading in zip(trace.values, readings.by_value, strict=True):
                if step in steps and reading is not None and len(reading.components) <= rank:
                    place = (site, reading.components)
                    found[step, place] = (followed.get((step, place), 0.0), reading.r_fit)
    places: dict[str, Place] = {}
    for step, place in sorted(found, key=lambda key: found[key], reverse=True):
        if step not in places and _is_free(traces[place[0]], place, places):
            places[step] = place
    return {step: places[step] for step in steps} if len(places) == len(steps) else None


def _is_free(trace: Trace, place: Place, places: Mapping[str, Place]) -> bool:
    """Whether directions are apart from those that other steps have at the site."""
    site, components = place
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
