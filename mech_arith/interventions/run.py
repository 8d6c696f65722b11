"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.directions.tracing import Trace
from mech_arith.engine.answers import Answers
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import (
    Controls,
    Target,
    choose_targets,
    frame_of,
)
from mech_arith.interventions.edits.base import Edit, EditTarget
from mech_arith.interventions.interchange import (
    Crossed,
    Direction,
    ceilings,
    cross,
    source_coordinates,
)
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.sequential import Drawing, DropsOf, draw_on
from mech_arith.interventions.treatments import Treatment, treat
from mech_arith.models.answered import check_answers
from mech_arith.models.base import Model
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.sources import Sources, draw_sources


@dataclass(frozen=True)
class InterventionPlan:
    """Which directions are edited, how, and how far."""

    edit: Edit
    strengths: tuple[float, ...]
    components: str | tuple[int, ...] = "best"
    """'best' (per value, on the fit split), 'all', or a list."""
    values: tuple[str, ...] | None = None
    """Values for which 'best' chooses; all by default."""
    ranks: tuple[int, ...] = ()
    """Of the subspaces of each value; none where components are edited one at a time."""
    centre: bool = True
    """Edit the coordinate measured from the mean; `False` measures from the origin, as the original
    code of the paper does."""
    controls: Controls = field(default_factory=Controls)
    n_sources: int = 3
    """Wanted values for each problem, of an edit that goes towards one."""
    constraints: tuple[Constraint, ...] = ()
    """Kept by problems with a wanted value too."""
    via: str = "activations"
    """What is edited: activations, or the weights that write them."""
    saves_model: bool = False
    """The model with its one edit in the weights is wanted."""
    seed: int = 0
    """Of control directions and wanted values."""


@dataclass(frozen=True)
class InterventionRun:
    """What an intervention leaves: edits with their answers, and what these are compared with."""

    results: list[InterventionResult]
    """Every target at every site, with its controls."""
    sources: dict[str, Sources] = field(default_factory=dict)
    """By value, what edits towards values go towards; none of other edits."""
    ceilings: dict[tuple[str, Site], Answers] = field(default_factory=dict)
    """By value and site the answers where the whole activation is the first source's, for the
    problems that have sources of the value."""
    crossed: list[Crossed] | None = None
    """Every direction with sources of every value; None of edits other than `interchange`."""
    difference: float | None = None
    """Of edits folded into weights: the largest, relative, between what a folded target leads to
    and what the same edit made on activations does."""


def intervene(
    session: Session,
    bases: Bases,
    plan: InterventionPlan,
    *,
    n_shuffles: int,
    drops: DropsOf | None = None,
) -> InterventionRun:
    """Edit every target and its controls at every site.

    Every arm moves every problem just as far as its target does, along other directions.

    Args:
        session: the model under study.
        bases: the problems that are edited, and what tracing found, by site.
        plan: what to edit.
        n_shuffles: times that sources are drawn anew, for the chance floor of edits towards values.
        drops: what answers cost, by which it is decided whether more directions are drawn; needed
            where the plan stops them early.
    """
    wanted = {} if plan.edit.target is None else wanted_sources(bases.problems, plan, n_shuffles)
    places = _places(session, bases, plan.edit, wanted)
    treatments = list(_treatments(bases, plan, wanted, places))
    slopes = tuple(plan.edit.slope(strength) for strength in plan.strengths)
    results = treat(session, bases, treatments, plan.controls, slopes, seed=plan.seed)
    if plan.controls.stop_after is not None:
        assert drops is not None, "expected what answers cost, got nothing; give `drops`"
        drawing = Drawing(plan.controls, slopes, plan.seed, drops)
        results = draw_on(session, bases, results, drawing)
    if not wanted:
        return InterventionRun(results)
    every = {
        treatment.sources.value: treatment.sources
        for treatment in treatments
        if treatment.sources is not None
    }
    bounds = ceilings(
        session, bases, every, list(dict.fromkeys(treatment.site for treatment in treatments))
    )
    crossed = None
    if plan.edit.target is EditTarget.SOURCE:
        crossed = cross(session, bases, _directions(bases, treatments), wanted, places)
    return InterventionRun(results, wanted, bounds, crossed)


def check_sources(
    model: Model, problems: ProblemSet, plan: InterventionPlan, sites: Sequence[Site]
) -> None:
    """Raise a UserError where an answer of a source has not the positions that are edited.

    Sources are drawn among the problems, and their answers may have other lengths.
    """
    positions = {site.position for site in sites if site.in_answer}
    if plan.edit.target is None or not positions or model.reader is None:
        return
    for value, sources in wanted_sources(problems, plan, n_shuffles=1).items():
        for drawn in sources.problems:
            answers = np.unique(np.concatenate([problems.answers, drawn.answers]))
            tokens = [model.reader.tokens(answer) for answer in answers.tolist()]
            try:
                check_answers(tokens, positions)
            except UserError as error:
                raise UserError(
                    f"{error} (of the problems and their sources for {value})"
                ) from None


Places = dict[str, dict[Site, Float64[Tensor, "m n k"]]]
"""By value and site, the coordinates to go to, on every component."""


def wanted_sources(
    problems: ProblemSet, plan: InterventionPlan, n_shuffles: int
) -> dict[str, Sources]:
    """Sources of every value that is edited; values that are the same everywhere have none."""
    values = problems.hypothesis.values if plan.values is None else plan.values
    found = {
        value: draw_sources(
            problems,
            value,
            m=plan.n_sources,
            n_shuffles=n_shuffles,
            seed=plan.seed,
            constraints=plan.constraints,
        )
        for value in values
        if problems.hypothesis.is_used(value)
    }
    return {value: sources for value, sources in found.items() if sources is not None}


def _places(session: Session, bases: Bases, edit: Edit, wanted: Mapping[str, Sources]) -> Places:
    """Where the edit takes the coordinates of the problems that have sources."""
    if edit.target is EditTarget.SOURCE:
        asked = progress(wanted.items(), description="sources", unit="values")
        return {value: source_coordinates(session, bases, sources) for value, sources in asked}

    def fitted(found: Trace, value: str, sources: Sources) -> Float64[Tensor, "m n k"]:
        components = range(len(found.subspace.directions))
        places = [
            found.predicted_coordinate(component, value, sources.wanted) for component in components
        ]
        return torch.stack(places, dim=-1)

    return {
        value: {site: fitted(found, value, sources) for site, found in bases.traces.items()}
        for value, sources in wanted.items()
    }


def _treatments(
    bases: Bases, plan: InterventionPlan, wanted: Mapping[str, Sources], places: Places
) -> Iterator[Treatment]:
    """Every target with its changes: per component, or per value where it goes towards one."""
    n = len(bases)
    for site, found in bases.traces.items():
        if plan.edit.target is None:
            for target in plain_targets(found, plan):
                changes = target_changes(found, target, plan, n=n)
                yield Treatment(site, target, changes[None], torch.arange(n))
            continue
        for value, sources in wanted.items():
            for chosen in choose_targets(found, plan.components, [value], plan.ranks):
                to = places[value][site][..., list(chosen.components)]
                if not torch.isfinite(to).all():
                    continue  # the value is constant where the fit was made: it has no place
                changes = _to_sources(found, chosen, plan, sources, to)
                target = replace(chosen, target_value=value)
                yield Treatment(site, target, changes, sources.rows, sources)


def plain_targets(found: Trace, plan: InterventionPlan) -> list[Target]:
    """What an edit that goes nowhere in particular is made on at a site.

    Values may share a subspace. Of more than one direction it is edited once for each of them where
    the edit goes along the value's line.
    """
    chosen = choose_targets(found, plan.components, plan.values, plan.ranks)
    if not plan.edit.goes_along_the_value:
        return chosen
    return [
        replace(target, chosen_for=values)
        for target in chosen
        for values in (
            [(v,) for v in target.chosen_for] if target.rank > 1 else [target.chosen_for]
        )
    ]


def _to_sources(
    found: Trace,
    target: Target,
    plan: InterventionPlan,
    sources: Sources,
    to: Float64[Tensor, "m n k"],
) -> Float64[Tensor, "m s n k"]:
    """How far problems move towards each of their sources at each strength."""
    at = list(target.components)
    own = found.coordinates[sources.rows][:, at].expand_as(to)
    sd = found.subspace.sd[at]
    changes = [plan.edit.change(own, strength, sd=sd, wanted=to) for strength in plan.strengths]
    return torch.stack(changes, dim=1)


def _directions(bases: Bases, treatments: Sequence[Treatment]) -> list[Direction]:
    """Of each subspace of the least rank that is edited, and all values whose own it is."""
    least = min((treatment.target.rank for treatment in treatments), default=1)
    edited = dict.fromkeys(
        (treatment.site, treatment.target.components)
        for treatment in treatments
        if treatment.target.rank == least
    )
    found = []
    for site, components in edited:
        trace = bases.traces[site]
        every = choose_targets(trace, values=trace.values, ranks=[len(components)])
        own = [target for target in every if target.components == components]
        target = own[0] if own else Target(components, ())
        found.append(Direction(site, target, frame_of(trace, target)))
    return found


def target_changes(
    found: Trace, target: Target, plan: InterventionPlan, *, n: int
) -> Float64[Tensor, "strengths n k"]:
    """How far an edit that goes nowhere in particular moves the first n problems."""
    at, subspace = list(target.components), found.subspace
    offset = 0.0 if plan.centre else subspace.directions[at] @ subspace.mean
    coordinate = found.coordinates[:n, at] + offset
    step = value_step(found, target) if plan.edit.goes_along_the_value else subspace.sd[at]
    changes = [plan.edit.change(coordinate, strength, sd=step) for strength in plan.strengths]
    return torch.stack(changes)


def value_step(found: Trace, target: Target) -> Float64[Tensor, " k"]:
    """One standard deviation of the coordinates along the line on which the value lies.

    Of a single direction it is that of its coordinate, whichever way the value goes.
    """
    at = list(target.components)
    if target.rank == 1:
        return found.subspace.sd[at]
    along = line_of(found, at, target.values[0])
    covariance = found.subspace.covariance.double()[at][:, at]
    return along * (along @ covariance @ along).sqrt()


def line_of(found: Trace, components: Sequence[int], value: str) -> Float64[Tensor, " k"]:
    """Unit vector in the coordinates along which they go with the value, on the fit split."""
    slope = found.slope(components, value)
    return slope / slope.norm()
