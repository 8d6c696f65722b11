"""One cell of a sweep, from problems to tables: pure, but for the model that it runs."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.artifacts import Store
from mech_arith.batching import Batching
from mech_arith.engine import Asked, stored_baseline
from mech_arith.engine.guard import check_fast_path
from mech_arith.errors import UserError
from mech_arith.evidence import evidence_table
from mech_arith.interchange import unable
from mech_arith.intervention import Intervened, InterventionPlan, intervene
from mech_arith.locality import LocalityPlan, locality
from mech_arith.manifold import manifold_table
from mech_arith.problems import ProblemSet, design_summary, design_warnings
from mech_arith.sites import Site, name_positions
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.statistics import Resampling
from mech_arith.summary import (
    CLEARLY,
    Reported,
    baseline_summary,
    floor_test,
    intervention_summary,
    tracing_summary,
)
from mech_arith.tracing import Trace, correlation_table, trace
from mech_arith.unfinished import Unfinished
from mech_arith.weight_edits import EditedModel, check_by_weights, intervene_by_weights, one_edit
from mech_arith.weights import WEIGHTS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPlan:
    """What is asked of one solver and one set of problems."""

    layers: range
    point: str
    positions: str
    position_map: bool
    n_components: int
    intervention: InterventionPlan | None
    n_edited: int | None
    """Problems of the report split to edit; all for None."""
    locality: LocalityPlan | None
    tolerance: float | None
    """Within which an answer counts as exact; the one on the solver's card for None."""
    digits: int
    """Of the largest operand that may be drawn, so that all prompts are alike."""
    batch_size: int | None
    """Rows run at a time; by the model's width for None."""
    require_baseline: bool = False
    """A baseline that is not clearly above the majority-answer floor is an error."""
    seed: int = 0
    """Of the counterfactual answers."""
    how: Resampling = field(default_factory=Resampling)
    """How intervals and nulls are computed."""


@dataclass(frozen=True)
class CellResult:
    """The tables and headline numbers of a cell."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    model: EditedModel | None = None
    """The solver with the cell's one edit in its weights, where that is wanted."""


@dataclass
class _Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


def run_cell(
    solver: Solver,
    fit: ProblemSet,
    report: ProblemSet,
    plan: CellPlan,
    store: Store,
    unfinished: Unfinished,
) -> CellResult:
    """Baseline, tracing and intervention of one cell.

    What other cells have left in the store is not computed again, and neither is what an earlier
    attempt at this one has left in `unfinished`.

    Raises:
        UserError: the solver cannot read the problems; its fast path disagrees with a full pass; it
            answers none of the problems while an intervention is asked for, or not clearly more
            than a constant answer would while that is required.
    """
    clock, batching = _Clock(), Batching(plan.batch_size)
    warnings = outside_training(solver, report) + design_warnings(fit, report)
    for warning in warnings:
        log.warning(warning)
    prompts_fit = solver.encode(fit, digits=plan.digits)
    prompts = solver.encode(report, digits=plan.digits)
    asked_sites, map_sites = _sites(plan, prompts_fit, prompts)
    with clock.stage("check"):
        parity = check_fast_path(solver, prompts, asked_sites)
        if plan.intervention is not None and plan.intervention.via == WEIGHTS:
            check_by_weights(solver, asked_sites, prompts, plan.intervention)
    with clock.stage("baseline"):
        reported = _answer(solver, prompts, report, plan, batching, store, unfinished)
    warnings += _floor_warnings(solver, reported, plan)
    if plan.position_map and not map_sites:
        warnings.append(
            "no map of single positions: not all prompts have their parts at the same positions"
        )
    with clock.stage("tracing"):
        traces = trace(
            solver,
            prompts_fit,
            prompts,
            fit,
            report,
            list(dict.fromkeys(asked_sites + map_sites)),
            passed=reported.passed,
            n_components=plan.n_components,
            batching=batching,
            store=store,
            how=plan.how,
            unfinished=unfinished,
        )
    asked = {site: traces[site] for site in asked_sites if not traces[site].is_constant}
    if not asked:
        raise UserError(
            f"expected activations that vary at positions {plan.positions!r}, got constant ones "
            f"at {plan.point} of layers {list(plan.layers)}; choose other positions or layers"
        )
    apart, model = None, None
    tables = {
        "correlations": correlation_table(traces, prompts=prompts, n_fit=len(fit)),
        "effects": pd.DataFrame(),
    }
    if plan.intervention is not None:
        with clock.stage("intervention"):
            intervened, apart = _intervene(
                solver,
                prompts_fit,
                report,
                reported,
                asked,
                plan.intervention,
                plan.how,
                batching,
                unfinished,
            )
            tables |= {
                name: table.assign(via=plan.intervention.via)
                for name, table in intervened.tables.items()
            }
        warnings += unable(tables.get("counterfactual", pd.DataFrame()))
        with clock.stage("manifold"):
            tables["manifold"] = manifold_table(
                solver,
                prompts.take(reported.n_edited),
                asked,
                intervened.treated,
                plan.intervention,
                batching=batching,
                unfinished=unfinished,
            )
    if plan.locality is not None:
        with clock.stage("locality"):
            tables |= locality(
                solver,
                reported.baseline,
                asked,
                report,
                plan.locality,
                batching=batching,
                unfinished=unfinished,
            )
    places = [(site.layer, site.position) for site in asked]
    tables["evidence"] = evidence_table(tables, places)
    summary = {
        **baseline_summary(solver, reported, plan.how),
        **tracing_summary(asked, tables["correlations"], report, plan.how),
        **intervention_summary(tables, report.template.expression.values),
        "design": design_summary(fit, report),
        "n_fit": len(fit),
        "n_edited": reported.n_edited if plan.intervention else 0,
        "engine": "resumed" if solver.replays else "full passes",
        "engine_difference": parity,
        "weights_difference": apart,
        "store": {"hits": store.hits, "misses": store.misses},
        "units_found": unfinished.found,
        "warnings": warnings + _constant_values(fit),
        "seconds": clock.seconds,
    }
    if plan.intervention is not None and plan.intervention.saves_model:
        model = one_edit(solver, asked, plan.intervention)
    return CellResult(tables, summary, model)


def _intervene(
    solver: Solver,
    prompts_fit: Prompts,
    report: ProblemSet,
    reported: Reported,
    traces: dict[Site, Trace],
    plan: InterventionPlan,
    how: Resampling,
    batching: Batching,
    unfinished: Unfinished,
) -> tuple[Intervened, float | None]:
    """Edit activations, or weights: those with how far they are from the activations' edits."""
    n = reported.n_edited
    baseline = reported.baseline.take(n)
    options: dict[str, Any] = {
        "tolerance": reported.tolerance,
        "how": how,
        "batching": batching,
        "unfinished": unfinished,
    }
    if plan.via == WEIGHTS:
        by_weights = intervene_by_weights(solver, baseline, prompts_fit, traces, plan, **options)
        return by_weights.intervened, by_weights.difference
    problems = report.take(np.arange(n))
    return intervene(solver, baseline, problems, traces, plan, **options), None


def _sites(plan: CellPlan, prompts_fit: Prompts, prompts: Prompts) -> tuple[list[Site], list[Site]]:
    """The sites of the run, and those of the map of single positions.

    Raises:
        UserError: no such positions, or not the same ones in both splits.
    """
    both = prompts_fit.joined(prompts)
    asked = name_positions(plan.positions, both)
    mapped = plan.position_map and len(both.layouts) == 1
    each = name_positions("each", both) if mapped else []
    main, single = (
        [Site(layer, plan.point, name) for layer in plan.layers for name in names]
        for names in (asked, each)
    )
    return main, single


def outside_training(solver: Solver, problems: ProblemSet) -> list[str]:
    """What the problems ask of the solver that it was not trained on, in words."""
    warnings: list[str] = []
    if solver.trained_operands is None or solver.trained_templates is None:
        return warnings
    low, high = solver.trained_operands
    lowest = min(int(x.min()) for x in problems.operands.values())
    highest = max(int(x.max()) for x in problems.operands.values())
    if lowest < low or highest > high:
        warnings.append(
            f"operands {lowest}..{highest} go beyond the {low}..{high} that {solver.name} was "
            "trained on: look at the baseline accuracy first"
        )
    text = problems.template.expression.render(
        {name: name for name in problems.template.expression.operands}
    ).text
    if text not in solver.trained_templates:
        warnings.append(
            f"{solver.name} was not trained on {text}: look at the baseline accuracy first"
        )
    return warnings


def _constant_values(problems: ProblemSet) -> list[str]:
    """Values that are the same in all problems, so that nothing can correlate with them."""
    return [
        f"{value} is {numbers[0]} in every problem: no correlation with it is defined"
        for value, numbers in problems.values.items()
        if (numbers == numbers[0]).all()
    ]


def _answer(
    solver: Solver,
    prompts: Prompts,
    report: ProblemSet,
    plan: CellPlan,
    batching: Batching,
    store: Store,
    unfinished: Unfinished,
) -> Reported:
    """The baseline, logged before anything is traced."""
    asked = Asked.of_problems(report, seed=plan.seed)
    baseline = stored_baseline(
        solver, prompts, asked, batching=batching, store=store, unfinished=unfinished
    )
    reported = Reported(
        baseline=baseline,
        tolerance=solver.tolerance if plan.tolerance is None else plan.tolerance,
        n_edited=min(plan.n_edited or len(report), len(report)),
    )
    log.info(
        "%s answers %.1f%% of %d problems %s%s",
        solver.name,
        100 * reported.accuracy,
        len(report),
        report.template.expression,
        f" within {reported.tolerance:g}" if solver.regresses else "",
    )
    n = reported.n_edited
    if plan.intervention is not None and not reported.passed[:n].any():
        raise UserError(
            f"expected a solver that answers some problems, got baseline accuracy 0 on {n} "
            f"problems {report.template.expression}: no drop can be reported; choose problems that "
            f"{solver.name} can answer, or intervention=none to trace all the same"
        )
    return reported


def _floor_warnings(solver: Solver, reported: Reported, plan: CellPlan) -> list[str]:
    """Whether the baseline says that the solver does arithmetic at all.

    Raises:
        UserError: it does not, and that is required.
    """
    floor, p = floor_test(reported)
    if p < CLEARLY:
        return []
    seen = (
        f"baseline accuracy {reported.accuracy:.3f} of {solver.name} is not clearly above "
        f"{floor:.3f}, that of always giving the most frequent answer (one-sided p = {p:.2g})"
    )
    if plan.require_baseline:
        raise UserError(
            f"expected a solver that answers the problems, but {seen}; choose easier problems or "
            "another prompt, or require_baseline=false"
        )
    warning = f"{seen}: what is traced here need not be arithmetic"
    log.warning(warning)
    return [warning]
