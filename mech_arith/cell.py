"""One cell of a sweep, from problems to tables: pure, but for the model that it runs."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.artifacts import Store
from mech_arith.baseline import (
    WrittenAnswers,
    chance_warnings,
    is_low,
    most_edits,
    written_answers,
)
from mech_arith.batching import Batching
from mech_arith.effects import unresolved_drops
from mech_arith.engine import Asked, stored_baseline
from mech_arith.engine.guard import check_fast_path
from mech_arith.errors import UserError
from mech_arith.evidence import evidence_table, no_whole_way
from mech_arith.interchange import unable_sites, unresolved
from mech_arith.intervention import Intervened, InterventionPlan, intervene
from mech_arith.locality import LocalityPlan, locality
from mech_arith.manifold import manifold_table
from mech_arith.names import WEIGHTS
from mech_arith.problem_table import problem_table, whole_prompt
from mech_arith.problems import ProblemSet, design_summary, design_warnings
from mech_arith.sites import Site, name_positions
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.statistics import Resampling
from mech_arith.summary import (
    Reported,
    baseline_summary,
    intervention_summary,
    missing_summary,
    tracing_summary,
    verdict_summary,
)
from mech_arith.tracing import Trace, correlation_table, massive_components, trace
from mech_arith.unfinished import Unfinished
from mech_arith.weight_edits import (
    EditedModel,
    check_by_weights,
    intervene_by_weights,
    one_edit,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPlan:
    """What is asked of one solver and one set of problems."""

    layers: Sequence[int]
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
    untrained_twins: int = 0
    """Networks with random weights that are traced too."""


@dataclass(frozen=True)
class CellResult:
    """The tables and headline numbers of a cell."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    model: EditedModel | None = None
    """The solver with the cell's one edit in its weights, where that is wanted."""


@dataclass(frozen=True)
class _Work:
    """What a cell works on, and what it has to say meanwhile."""

    solver: Solver
    fit: ProblemSet
    report: ProblemSet
    prompts_fit: Prompts
    prompts: Prompts
    """Of the report split."""
    plan: CellPlan
    batching: Batching
    store: Store
    unfinished: Unfinished
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take down the seconds of a stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)

    def warn(self, warnings: Iterable[str]) -> None:
        """Say it now, and in the summary."""
        for warning in warnings:
            log.warning(warning)
            self.warnings.append(warning)


@dataclass(frozen=True)
class _Edited:
    """What the edits of a cell leave."""

    tables: dict[str, pd.DataFrame] = field(default_factory=lambda: {"effects": pd.DataFrame()})
    difference: float | None = None
    """Of folded edits from the activations' edits."""
    model: EditedModel | None = None


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
    prompts_fit = solver.encode(fit, digits=plan.digits)
    prompts = solver.encode(report, digits=plan.digits)
    batching = Batching(plan.batch_size)
    work = _Work(solver, fit, report, prompts_fit, prompts, plan, batching, store, unfinished)
    log.info("the first prompt, whole: %r", whole_prompt(solver, report, prompts))
    work.warn(outside_training(solver, report) + design_warnings(fit, report))
    work.warn(solver.prompt_warnings(report))
    sites, mapped = _sites(plan, prompts_fit, prompts)
    parity = _check(work, sites)
    reported = _answer(work)
    written = _say_baseline(work, reported, len(sites))
    if plan.position_map and not mapped:
        work.warn(
            ["no map of single positions: not all prompts have their parts at the same positions"]
        )
    with work.stage("tracing"):
        traces = _trace(work, [*sites, *mapped], reported)
    asked = _varying(work, traces, sites)
    work.warn(massive_components(asked))
    edited = _edit(work, asked, reported)
    n_edited = reported.n_edited if plan.intervention else 0
    tables = {
        "problems": problem_table(
            solver, (fit, prompts_fit), (report, prompts), reported, n_edited=n_edited
        ),
        "correlations": correlation_table(traces, prompts=prompts, n_fit=len(fit)),
        **edited.tables,
        **_locality(work, asked, reported),
    }
    tables["evidence"] = _evidence(work, list(asked), reported, tables)
    work.warn(_edit_warnings(tables, plan))
    work.warn(_constant_values(fit))
    summary = {
        **baseline_summary(solver, reported, plan.how),
        **({} if written is None else written.summary()),
        **tracing_summary(asked, tables["correlations"], report, plan.how),
        **intervention_summary(tables, report.template.expression.values),
        "verdicts": verdict_summary(tables["evidence"]),
        "missing": missing_summary(tables["evidence"]),
        "design": design_summary(fit, report),
        "n_fit": len(fit),
        "n_edited": n_edited,
        "engine": "resumed" if solver.replays else "full passes",
        "engine_difference": parity,
        "weights_difference": edited.difference,
        "store": {"hits": store.hits, "misses": store.misses},
        "units_found": unfinished.found,
        "warnings": work.warnings,
        "seconds": work.seconds,
    }
    return CellResult(tables, summary, edited.model)


def _check(work: _Work, sites: list[Site]) -> float | None:
    """Whether what is asked for can be done, before any of it is; the fast path's difference."""
    asked = work.plan.intervention
    with work.stage("check"):
        bound = int(np.abs(work.report.answers).max())
        parity = check_fast_path(work.solver, work.prompts, sites, bound=bound)
        if asked is not None and asked.via == WEIGHTS:
            check_by_weights(work.solver, sites, work.prompts, asked)
    return parity


def _trace(work: _Work, sites: list[Site], reported: Reported) -> dict[Site, Trace]:
    return trace(
        work.solver,
        work.prompts_fit,
        work.prompts,
        work.fit,
        work.report,
        list(dict.fromkeys(sites)),
        passed=reported.passed,
        n_components=work.plan.n_components,
        batching=work.batching,
        store=work.store,
        how=work.plan.how,
        unfinished=work.unfinished,
    )


def _evidence(
    work: _Work, asked: list[Site], reported: Reported, tables: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """All that is known of each value at the sites that are asked for."""
    return evidence_table(tables, asked, untrained=_untrained(work, asked, reported))


def _untrained(work: _Work, sites: list[Site], reported: Reported) -> dict[tuple[Site, str], float]:
    """By site and value: |R| on the report split in a network with random weights, in the component
    that its own fit split chooses. Of several networks the largest.
    """
    found: dict[tuple[Site, str], float] = {}
    with work.stage("untrained twins"):
        for seed in range(work.plan.untrained_twins):
            twin = work.solver.untrained(seed=seed)
            if twin is None:
                work.warn(
                    [f"{work.solver.name} has no untrained twin: |R| stands without its floor"]
                )
                break
            for site, trace in _trace(replace(work, solver=twin), sites, reported).items():
                for value, r in zip(trace.values, trace.r_of_best().abs().tolist(), strict=True):
                    if not isnan(r):  # nothing varies there: it gives no floor
                        found[site, value] = max(found.get((site, value), 0.0), r)
    return found


def _edit_warnings(tables: Mapping[str, pd.DataFrame], plan: CellPlan) -> list[str]:
    """What the edits cannot say, and why."""
    asked = plan.intervention
    if asked is None:
        return []
    contrasts = tables.get("contrasts", pd.DataFrame())
    followed = tables.get("counterfactual", pd.DataFrame())
    return [
        *unresolved_drops(contrasts),
        *unable_sites(followed),
        *unresolved(followed, plan.how.n_permutations),
        *no_whole_way(asked.edit, asked.strengths),
    ]


def _varying(work: _Work, traces: dict[Site, Trace], sites: list[Site]) -> dict[Site, Trace]:
    """The traces that are asked for, but for sites that are the same for all problems.

    Raises:
        UserError: there are no others.
    """
    found = {site: traces[site] for site in sites if not traces[site].is_constant}
    if found:
        return found
    plan = work.plan
    raise UserError(
        f"expected activations that vary at positions {plan.positions!r}, got constant ones at "
        f"{plan.point} of layers {list(plan.layers)}; choose other positions or layers"
    )


def _edit(work: _Work, traces: dict[Site, Trace], reported: Reported) -> _Edited:
    """Edit activations, or the weights that write them, and see where that leads."""
    asked = work.plan.intervention
    if asked is None:
        return _Edited()
    model = one_edit(work.solver, traces, asked) if asked.saves_model else None
    with work.stage("intervention"):
        intervened = _intervene(work, traces, reported, asked)
    with work.stage("manifold"):
        manifold = manifold_table(
            work.solver,
            work.prompts.take(reported.n_edited),
            traces,
            intervened.treated,
            asked,
            batching=work.batching,
            unfinished=work.unfinished,
        )
    tables = {
        name: table.assign(via=asked.via)
        for name, table in {**intervened.tables, "manifold": manifold}.items()
    }
    return _Edited(tables, intervened.difference, model)


def _intervene(
    work: _Work, traces: dict[Site, Trace], reported: Reported, asked: InterventionPlan
) -> Intervened:
    n = reported.n_edited
    baseline = reported.baseline.take(n)
    if asked.via == WEIGHTS:
        edit = partial(intervene_by_weights, work.solver, baseline, work.prompts_fit)
    else:
        edit = partial(intervene, work.solver, baseline, work.report.take(np.arange(n)))
    return edit(
        traces,
        asked,
        tolerance=reported.tolerance,
        how=work.plan.how,
        batching=work.batching,
        unfinished=work.unfinished,
    )


def _locality(
    work: _Work, traces: dict[Site, Trace], reported: Reported
) -> dict[str, pd.DataFrame]:
    if work.plan.locality is None:
        return {}
    with work.stage("locality"):
        return locality(
            work.solver,
            reported.baseline,
            traces,
            work.report,
            work.plan.locality,
            batching=work.batching,
            store=work.store,
            unfinished=work.unfinished,
        )


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


def _answer(work: _Work) -> Reported:
    """The baseline, logged before anything is traced."""
    solver, report, plan = work.solver, work.report, work.plan
    with work.stage("baseline"):
        baseline = stored_baseline(
            solver,
            work.prompts,
            Asked.of_problems(report, seed=plan.seed),
            batching=work.batching,
            store=work.store,
            unfinished=work.unfinished,
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
    return reported


def _say_baseline(work: _Work, reported: Reported, n_sites: int) -> WrittenAnswers | None:
    """Say whether the model is at chance level, and how its answers were read.

    Raises:
        UserError: no problem that is to be edited is answered right, or the baseline is not clearly
            above the floor while that is required.
    """
    solver, plan, expression = work.solver, work.plan, work.report.template.expression
    written = written_answers(solver, reported, work.report)
    if written is not None and is_low(reported):
        work.warn([str(written)])
    n, asked = reported.n_edited, plan.intervention
    if asked is not None and not reported.passed[:n].any():
        raise UserError(
            f"expected a solver that answers some problems, got baseline accuracy 0 on {n} "
            f"problems {expression}: no drop can be reported; choose problems that {solver.name} "
            "can answer, or intervention=none to trace all the same"
            + (f" ({written})" if written is not None else "")
        )
    n_edits = 0
    if asked is not None:
        n_edits = most_edits(
            asked,
            n_sites=n_sites,
            n_values=len(expression.values),
            n_components=plan.n_components,
        )
    work.warn(
        chance_warnings(solver, reported, require_baseline=plan.require_baseline, n_edits=n_edits)
    )
    return written
