"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.batching import Batching
from mech_arith.controls import Arm, Controls, Target, arms, choose_targets
from mech_arith.counterfactual import Sources, draw_sources
from mech_arith.edits.base import Edit, Towards
from mech_arith.effects import Judge, Treated, effect_tables
from mech_arith.engine import Baseline, SiteGrid
from mech_arith.expressions import Constraint
from mech_arith.interchange import (
    Bench,
    Direction,
    agreement_rows,
    agreement_table,
    ceilings,
    source_coordinates,
    specificity_rows,
)
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.statistics import Resampling
from mech_arith.tracing import Trace
from mech_arith.unfinished import Unfinished


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
    digits: int = 0
    """Of the largest operand, so that their prompts stay alike."""
    via: str = "activations"
    """What is edited: activations, or the weights that write them."""
    saves_model: bool = False
    """The model with its one edit in the weights is wanted."""
    seed: int = 0
    """Of control directions and wanted values."""


@dataclass(frozen=True)
class Intervened:
    """What an intervention leaves."""

    tables: dict[str, pd.DataFrame]
    """`effects`: a row per site, target, arm and strength. `contrasts`: the target against each
    other arm, over all strengths. `control_draws`: a row per control direction and strength. Of an
    edit towards values also `counterfactual`: a row per site, value, arm and strength; and of
    `interchange` `specificity`: a row per site, direction and changed value."""
    treated: list[Treated]
    difference: float | None = None
    """Of edits folded into weights: the largest, relative, between what a folded target leads to
    and what the same edit made on activations does."""


@dataclass(frozen=True)
class _Aim:
    """How far one target moves each problem."""

    site: Site
    target: Target
    changes: Float64[Tensor, "m s n"]
    rows: Int64[Tensor, " n"]
    """Of these among the problems that are edited."""
    sources: Sources | None = None
    """What it goes towards."""


def intervene(
    solver: Solver,
    baseline: Baseline,
    problems: ProblemSet,
    traces: Mapping[Site, Trace],
    plan: InterventionPlan,
    *,
    tolerance: float,
    how: Resampling,
    batching: Batching,
    unfinished: Unfinished | None = None,
) -> Intervened:
    """Edit every target and its controls at every site.

    Every arm moves every problem just as far as its target does, along other directions.

    Args:
        solver: the model under study.
        baseline: the first problems of the report split, as the solver answers them.
        problems: the same.
        traces: what tracing found, by site.
        plan: what to edit.
        tolerance: within which an answer counts as exact.
        how: intervals are computed.
        batching: how many edited problems are run at a time.
        unfinished: what an earlier attempt at the same cell has done.
    """
    kept = unfinished or Unfinished.nothing()
    bench = Bench(solver, baseline, traces, plan.digits, batching, kept)
    judge = Judge(baseline.answers, baseline.asked.right, tolerance, not solver.regresses, how)
    wanted = _wanted(problems, plan, how) if plan.edit.towards is not None else {}
    places = _places(bench, plan.edit, wanted)
    aims = list(_aims(bench, plan, wanted, places))
    treated = _treat(bench, plan, aims)
    tables = effect_tables(treated, plan.edit, plan.strengths, judge)
    if wanted:
        tables["counterfactual"] = _agreements(bench, plan, aims, treated, judge)
    if wanted and plan.edit.towards is Towards.SOURCE:
        rows = specificity_rows(bench, _directions(bench, aims), wanted, places, judge)
        tables["specificity"] = pd.DataFrame(rows)
    return Intervened(tables, treated)


Places = dict[str, dict[Site, Float64[Tensor, "m n k"]]]
"""By value and site, the coordinates to go to, on every component."""


def _wanted(problems: ProblemSet, plan: InterventionPlan, how: Resampling) -> dict[str, Sources]:
    """Sources of every value that is edited; values that are the same everywhere have none."""
    values = problems.template.expression.values if plan.values is None else plan.values
    found = {
        value: draw_sources(
            problems,
            value,
            m=plan.n_sources,
            n_shuffles=how.n_permutations,
            seed=plan.seed,
            constraints=plan.constraints,
        )
        for value in values
    }
    return {value: sources for value, sources in found.items() if sources is not None}


def _places(bench: Bench, edit: Edit, wanted: Mapping[str, Sources]) -> Places:
    """Where the edit takes the coordinates of the problems that have sources."""
    if edit.towards is Towards.SOURCE:
        asked = progress(wanted.items(), description="sources", unit="values")
        return {value: source_coordinates(bench, sources) for value, sources in asked}

    def fitted(found: Trace, value: str, sources: Sources) -> Float64[Tensor, "m n k"]:
        components = range(len(found.components.directions))
        places = [found.place_of(component, value, sources.wanted) for component in components]
        return torch.stack(places, dim=-1)

    return {
        value: {site: fitted(found, value, sources) for site, found in bench.traces.items()}
        for value, sources in wanted.items()
    }


def _aims(
    bench: Bench, plan: InterventionPlan, wanted: Mapping[str, Sources], places: Places
) -> Iterator[_Aim]:
    """Every target with its changes: per component, or per value where it goes towards one."""
    n = len(bench.baseline)
    for site, found in bench.traces.items():
        if plan.edit.towards is None:
            for target in choose_targets(found, plan.components, plan.values):
                changes = target_changes(found, target.component, plan, n=n)
                yield _Aim(site, target, changes[None], torch.arange(n))
            continue
        for value, sources in wanted.items():
            for chosen in choose_targets(found, plan.components, [value]):
                to = places[value][site][..., chosen.component]
                if not torch.isfinite(to).all():
                    continue  # the value is constant where the fit was made: it has no place
                changes = _towards(found, chosen.component, plan, sources, to)
                target = replace(chosen, towards=value)
                yield _Aim(site, target, changes, sources.rows, sources)


def _towards(
    found: Trace,
    component: int,
    plan: InterventionPlan,
    sources: Sources,
    to: Float64[Tensor, "m n"],
) -> Float64[Tensor, "m s n"]:
    """How far problems move towards each of their sources at each strength."""
    own = found.coordinates[sources.rows, component].expand_as(to)
    sd = float(found.components.sd[component])
    changes = [plan.edit.change(own, strength, sd=sd, wanted=to) for strength in plan.strengths]
    return torch.stack(changes, dim=1)


def _treat(bench: Bench, plan: InterventionPlan, aims: Sequence[_Aim]) -> list[Treated]:
    """Run all edits of all arms."""
    tried = [
        arms(bench.traces[aim.site], aim.target, plan.controls, seed=plan.seed) for aim in aims
    ]
    grids = [
        _grid(aim, of_aim, len(bench.baseline)) for aim, of_aim in zip(aims, tried, strict=True)
    ]
    answers = bench.run(grids, description="intervention")
    return [
        Treated(
            aim.site,
            aim.target,
            tuple(of_aim),
            aim.changes,
            bench.traces[aim.site].coordinates[aim.rows, aim.target.component],
            aim.rows,
            found.of(aim.rows).split(-1, *aim.changes.shape[:2]),
        )
        for aim, of_aim, found in zip(aims, tried, answers, strict=True)
    ]


def _grid(aim: _Aim, of_aim: Sequence[Arm], n: int) -> SiteGrid:
    """Problems that have nowhere to go stay where they are."""
    changes = aim.changes.new_zeros(*aim.changes.shape[:2], n)
    changes[..., aim.rows] = aim.changes
    directions = torch.cat([arm.directions for arm in of_aim])
    return SiteGrid(aim.site, directions, changes.flatten(0, 1))


def _agreements(
    bench: Bench,
    plan: InterventionPlan,
    aims: Sequence[_Aim],
    treated: Sequence[Treated],
    judge: Judge,
) -> pd.DataFrame:
    """How far answers follow the wanted values, beside chance and the whole activation."""
    every = {aim.sources.value: aim.sources for aim in aims if aim.sources is not None}
    bounds = ceilings(bench, every, list(dict.fromkeys(aim.site for aim in aims)))
    rows = []
    for aim, one in zip(aims, treated, strict=True):
        assert aim.sources is not None
        ceiling = bounds[aim.sources.value, aim.site]
        rows += agreement_rows(one, aim.sources, ceiling, plan.edit, plan.strengths, judge)
    return agreement_table(rows)


def _directions(bench: Bench, aims: Sequence[_Aim]) -> list[Direction]:
    """Of each component that is edited, and all values that it is the best one for."""
    edited = dict.fromkeys((aim.site, aim.target.component) for aim in aims)
    return [
        Direction(site, target, bench.traces[site].components.directions[component])
        for site, component in edited
        for target in choose_targets(bench.traces[site], [component])
    ]


def target_changes(
    found: Trace, component: int, plan: InterventionPlan, *, n: int
) -> Float64[Tensor, "strengths n"]:
    """How far an edit that goes nowhere in particular moves the first n problems."""
    components = found.components
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
