"""One cell of a sweep, from problems to tables: pure, but for the model that it runs."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from mech_arith.engine import Baseline, run_baseline
from mech_arith.errors import UserError
from mech_arith.intervention import InterventionPlan, intervene, largest_drops
from mech_arith.locality import LocalityPlan, locality
from mech_arith.metrics import accuracy
from mech_arith.problems import ProblemSet
from mech_arith.sites import Site, resolve_positions
from mech_arith.solvers.base import Prompts, Solver
from mech_arith.statistics import r_squared
from mech_arith.tracing import Trace, best_rows, correlation_table, trace

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
    batch_size: int


@dataclass(frozen=True)
class CellResult:
    """The tables and headline numbers of a cell."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    labels: tuple[str, ...]
    """The prompt's tokens."""


@dataclass
class _Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


def run_cell(solver: Solver, fit: ProblemSet, report: ProblemSet, plan: CellPlan) -> CellResult:
    """Baseline, tracing and intervention of one cell.

    Raises:
        UserError: the solver cannot read the problems, or answers none of them while an
            intervention is asked for.
    """
    clock = _Clock()
    prompts_fit, prompts_report = solver.encode(fit), solver.encode(report)
    main_sites, map_sites = _sites(plan, prompts_report)
    warnings = outside_training(solver, report)
    with clock.stage("baseline"):
        baseline = _answer_first(solver, prompts_report, report, plan, warnings)
    with clock.stage("tracing"):
        traces = trace(
            solver,
            prompts_fit,
            prompts_report,
            fit,
            report,
            list(dict.fromkeys(main_sites + map_sites)),
            n_components=plan.n_components,
            batch_size=plan.batch_size,
        )
    main = {site: traces[site] for site in main_sites}
    if all(found.is_constant for found in main.values()):
        raise UserError(
            f"expected activations that vary at positions {plan.positions!r}, got constant ones "
            f"at {plan.point} of layers {list(plan.layers)}; choose other positions or layers"
        )
    tables = {
        "correlations": correlation_table(
            traces, labels=prompts_report.labels, n_fit=len(fit), n_report=len(report)
        )
    }
    n_edited = min(plan.n_edited or len(report), len(report))
    right = torch.from_numpy(report.answers).double()
    with clock.stage("intervention"):
        if plan.intervention is not None:
            tables["effects"] = intervene(
                solver,
                baseline.take(n_edited),
                main,
                right[:n_edited],
                plan.intervention,
                batch_size=plan.batch_size,
            )
        else:
            tables["effects"] = pd.DataFrame()
    if plan.locality is not None:
        with clock.stage("locality"):
            tables |= locality(solver, baseline, main, report, plan.locality, plan.batch_size)
    summary = _summary(solver, report, baseline, main, tables, warnings) | {
        "n_fit": len(fit),
        "n_edited": n_edited if plan.intervention else 0,
        "seconds": clock.seconds,
    }
    return CellResult(tables, summary, prompts_report.labels)


def _sites(plan: CellPlan, prompts: Prompts) -> tuple[list[Site], list[Site]]:
    """The sites of the run, and those of the map of single positions."""
    asked = resolve_positions(plan.positions, prompts)
    each = resolve_positions("each", prompts) if plan.position_map else []
    main, single = (
        [
            Site(layer, plan.point, name, indices)
            for layer in plan.layers
            for name, indices in positions
        ]
        for positions in (asked, each)
    )
    return main, single


def outside_training(solver: Solver, problems: ProblemSet) -> list[str]:
    """What the problems ask of the solver that it was not trained on, in words."""
    warnings = []
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


def _answer_first(
    solver: Solver, prompts: Prompts, report: ProblemSet, plan: CellPlan, warnings: list[str]
) -> Baseline:
    """The baseline, logged before anything is traced."""
    for warning in warnings:
        log.warning(warning)
    baseline = run_baseline(solver, prompts.tokens, batch_size=plan.batch_size)
    right = torch.from_numpy(report.answers).double()
    share = accuracy(baseline.answers, right, tolerance=solver.tolerance)
    within = f" within {solver.tolerance:g}" if solver.regresses else ""
    log.info(
        "%s answers %.1f%% of %d problems %s%s",
        solver.name,
        100 * share,
        len(report),
        report.template.expression,
        within,
    )
    n_edited = min(plan.n_edited or len(report), len(report))
    edited_share = accuracy(
        baseline.answers[:n_edited], right[:n_edited], tolerance=solver.tolerance
    )
    if plan.intervention is not None and edited_share == 0:
        raise UserError(
            f"expected a solver that answers some problems, got baseline accuracy 0 on {n_edited} "
            f"problems {report.template.expression}: no drop can be reported; choose problems that "
            f"{solver.name} was trained on, or intervention=none to trace all the same"
        )
    return baseline


def _summary(
    solver: Solver,
    report: ProblemSet,
    baseline: Baseline,
    main: dict[Site, Trace],
    tables: dict[str, pd.DataFrame],
    warnings: list[str],
) -> dict[str, Any]:
    """The headline numbers."""
    right = torch.from_numpy(report.answers).double()
    correlations = tables["correlations"]
    asked = {(site.layer, site.position) for site in main}
    places = zip(correlations["layer"], correlations["position"], strict=True)
    best = best_rows(correlations.loc[[place in asked for place in places]])
    effects = tables["effects"]
    summary: dict[str, Any] = {
        "n_report": len(report),
        "n_searched": sum(found.r_fit.shape[0] for found in main.values()),
        "baseline_accuracy": accuracy(baseline.answers, right, tolerance=solver.tolerance),
        "baseline_not_a_number": float(baseline.answers.isnan().double().mean()),
        "tolerance": solver.tolerance,
        "best": {
            row["value"]: {
                "abs_r": row["abs_r"],
                "r": row["r"],
                "layer": row["layer"],
                "component": row["component"],
                "position": row["position"],
            }
            for row in best.to_dict(orient="records")
        },
        "largest_drop": {},
        "control": {},
        "warnings": warnings,
    }
    if solver.regresses:
        error = (baseline.answers - right).abs()
        summary["baseline_r2"] = r_squared(baseline.answers, right)
        summary["baseline_median_abs_error"] = float(error.median())
    if not effects.empty:
        summary["largest_drop"] = largest_drops(effects, report.template.expression.values)
        summary["n_edits_searched"] = int((effects["arm"] == "target").sum())
        control = effects.loc[effects["arm"] == "control"]
        ordered = control.sort_values("accuracy_drop", ascending=False, kind="stable")
        worst = ordered.to_dict(orient="records")[0]
        summary["control"] = {
            "largest_drop": worst["accuracy_drop"],
            "layer": worst["layer"],
            "strength": worst["strength"],
        }
    return summary
