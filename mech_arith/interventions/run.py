"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.directions.tracing import Trace
from mech_arith.engine.answers import Answers
from mech_arith.engine.run import SiteGrid
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Arm, Controls, Target, arms, choose_targets
from mech_arith.interventions.edits.base import Edit, EditTarget
from mech_arith.interventions.interchange import (
    Crossed,
    Direction,
    ceilings,
    cross,
    run_all,
    source_coordinates,
)
from mech_arith.interventions.result import InterventionResult
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


@dataclass(frozen=True)
class _Treatment:
    """How far one target moves each problem."""

    site: Site
    target: Target
    changes: Float64[Tensor, "m s n"]
    rows: Int64[Tensor, " n"]
    """Of these among the problems that are edited."""
    sources: Sources | None = None
    """What it goes towards."""


def intervene(
    session: Session, bases: Bases, plan: InterventionPlan, *, n_shuffles: int
) -> InterventionRun:
    """Edit every target and its controls at every site.

    Every arm moves every problem just as far as its target does, along other directions.

    Args:
        session: the model under study.
        bases: the problems that are edited, and what tracing found, by site.
        plan: what to edit.
        n_shuffles: times that sources are drawn anew, for the chance floor of edits towards values.
    """
    wanted = {} if plan.edit.target is None else _wanted(bases.problems, plan, n_shuffles)
    places = _places(session, bases, plan.edit, wanted)
    aims = list(_aims(bases, plan, wanted, places))
    results = _treat(session, bases, plan, aims)
    if not wanted:
        return InterventionRun(results)
    every = {aim.sources.value: aim.sources for aim in aims if aim.sources is not None}
    bounds = ceilings(session, bases, every, list(dict.fromkeys(aim.site for aim in aims)))
    crossed = None
    if plan.edit.target is EditTarget.SOURCE:
        crossed = cross(session, bases, _directions(bases, aims), wanted, places)
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
    for value, sources in _wanted(problems, plan, n_shuffles=1).items():
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


def _wanted(problems: ProblemSet, plan: InterventionPlan, n_shuffles: int) -> dict[str, Sources]:
    """Sources of every value that is edited; values that are the same everywhere have none."""
    values = problems.template.expression.values if plan.values is None else plan.values
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


def _aims(
    bases: Bases, plan: InterventionPlan, wanted: Mapping[str, Sources], places: Places
) -> Iterator[_Treatment]:
    """Every target with its changes: per component, or per value where it goes towards one."""
    n = len(bases)
    for site, found in bases.traces.items():
        if plan.edit.target is None:
            for target in choose_targets(found, plan.components, plan.values):
                changes = target_changes(found, target.component, plan, n=n)
                yield _Treatment(site, target, changes[None], torch.arange(n))
            continue
        for value, sources in wanted.items():
            for chosen in choose_targets(found, plan.components, [value]):
                to = places[value][site][..., chosen.component]
                if not torch.isfinite(to).all():
                    continue  # the value is constant where the fit was made: it has no place
                changes = _to_sources(found, chosen.component, plan, sources, to)
                target = replace(chosen, target_value=value)
                yield _Treatment(site, target, changes, sources.rows, sources)


def _to_sources(
    found: Trace,
    component: int,
    plan: InterventionPlan,
    sources: Sources,
    to: Float64[Tensor, "m n"],
) -> Float64[Tensor, "m s n"]:
    """How far problems move towards each of their sources at each strength."""
    own = found.coordinates[sources.rows, component].expand_as(to)
    sd = float(found.subspace.sd[component])
    changes = [plan.edit.change(own, strength, sd=sd, wanted=to) for strength in plan.strengths]
    return torch.stack(changes, dim=1)


def _treat(
    session: Session, bases: Bases, plan: InterventionPlan, aims: Sequence[_Treatment]
) -> list[InterventionResult]:
    """Run all edits of all arms."""
    tried = [
        arms(bases.traces[aim.site], aim.target, plan.controls, seed=plan.seed) for aim in aims
    ]
    grids = [_grid(aim, of_aim, len(bases), plan) for aim, of_aim in zip(aims, tried, strict=True)]
    answers = run_all(session, bases.baseline, grids, description="intervention")
    return [
        InterventionResult(
            aim.site,
            aim.target,
            tuple(of_aim),
            aim.changes,
            bases.traces[aim.site].coordinates[aim.rows, aim.target.component],
            aim.rows,
            found.of(aim.rows).split(-1, *aim.changes.shape[:2]),
        )
        for aim, of_aim, found in zip(aims, tried, answers, strict=True)
    ]


def _grid(aim: _Treatment, of_aim: Sequence[Arm], n: int, plan: InterventionPlan) -> SiteGrid:
    """Problems that have nowhere to go stay where they are."""
    changes = aim.changes.new_zeros(*aim.changes.shape[:2], n)
    changes[..., aim.rows] = aim.changes
    directions = torch.cat([arm.directions for arm in of_aim])
    slopes = [plan.edit.slope(strength) for strength in plan.strengths]
    by_change = torch.tensor(slopes, dtype=torch.float64).repeat(len(changes))
    return SiteGrid(
        aim.site, directions, changes.flatten(0, 1), by_change if aim.site.in_answer else None
    )


def _directions(bases: Bases, aims: Sequence[_Treatment]) -> list[Direction]:
    """Of each component that is edited, and all values that it is the best one for."""
    edited = dict.fromkeys((aim.site, aim.target.component) for aim in aims)
    return [
        Direction(site, target, bases.traces[site].subspace.directions[component])
        for site, component in edited
        for target in choose_targets(bases.traces[site], [component])
    ]


def target_changes(
    found: Trace, component: int, plan: InterventionPlan, *, n: int
) -> Float64[Tensor, "strengths n"]:
    """How far an edit that goes nowhere in particular moves the first n problems."""
    components = found.subspace
    offset = 0.0 if plan.centre else float(components.mean @ components.directions[component])
    coordinate = found.coordinates[:n, component]
    return coordinate_changes(coordinate, plan, sd=float(components.sd[component]), offset=offset)


def coordinate_changes(
    coordinate: Float64[Tensor, " n"], plan: InterventionPlan, *, sd: float, offset: float
) -> Float64[Tensor, "strengths n"]:
    """How far each strength moves each problem's coordinate, in activation units."""
    return torch.stack(
        [plan.edit.change(coordinate + offset, strength, sd=sd) for strength in plan.strengths]
    )
