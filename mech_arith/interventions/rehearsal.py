"""A rehearsal: the real code on a few problems and a model that takes no time, to count its rows.

How many subspaces are edited, how many controls each has, and which other runs stand beside them
follows from what a direction method finds. Here it finds it in activations that hold every value
along a direction of its own. What is counted is what the same functions then ask of the engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mech_arith.directions.base import DirectionMethod, Drawing, find_method
from mech_arith.directions.tracing import Splits, trace
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.alignment import interchange_together
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import DRAWN, Arm
from mech_arith.interventions.edits import WEIGHTS
from mech_arith.interventions.edits.base import EditTarget
from mech_arith.interventions.fold_run import weight_treatments
from mech_arith.interventions.locality import LocalityPlan, locality
from mech_arith.interventions.run import InterventionPlan, InterventionRun, intervene
from mech_arith.models.rehearsed import RehearsedModel, Tally
from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Constraint
from mech_arith.statistics import Resampling

N_REPORT, N_FIT = 24, 60
"""Problems. What is counted is in shares of them."""

MOST_SITES = 3

FEW = Resampling(n_resamples=2, n_permutations=2)

WRITTEN = "mlp_out"

INSTEAD = "pca"
"""Of a method that is trained or reads a file: it too has subspaces of every rank."""


@dataclass(frozen=True)
class Rehearsed:
    """What a plan comes to, by problem."""

    edits: float = 0.0
    """Subspaces x strengths x sources at one site: of targets and all their controls."""
    targets: float = 0.0
    """Subspaces that are edited at one site, for the values that they are edited for."""
    rows: float = 0.0
    """Edited passes for one site, those that move something: bounds and specificity included."""
    captured: float = 0.0
    """Passes that read activations of sources and bases, for all sites together."""
    whole: float = 0.0
    """Whole passes under edits at several sites at once."""
    models: float = 0.0
    """Models with edited weights for one site, each of which answers every problem."""
    locality_rows: float = 0.0
    """Edited passes for one site of the locality test, by problem of its own."""
    locality_captured: float = 0.0
    """Its passes that read activations, for all sites together."""
    drawn: dict[str, int] = field(default_factory=dict)
    """By arm: the fewest subspaces that were drawn to compare a target with."""


def rehearse(
    fit: ProblemSet,
    report: ProblemSet,
    method: DirectionMethod,
    plan: InterventionPlan | None,
    *,
    n_sites: int,
    locality_plan: LocalityPlan | None = None,
    constraints: tuple[Constraint, ...] = (),
) -> Rehearsed:
    """Count what a plan asks for; where draws stop once p is decided, the fewest of them.

    Raises:
        UserError: the plan names a value or a component that is not there.
    """
    if plan is None and locality_plan is None:
        return Rehearsed()
    n_sites = min(n_sites, MOST_SITES)
    n_report = min(N_REPORT, len(report))
    fit = fit.take(np.arange(min(len(fit), max(N_FIT, 3 * method.n_components))))
    report = report.take(np.arange(n_report))
    model = RehearsedModel(fit, n_layers=n_sites + 1, n_components=method.n_components)
    session = Session(model)
    bases = _bases(session, fit, report, method, n_sites, constraints)
    found = Rehearsed()
    if plan is not None:
        plan = replace(plan, controls=plan.controls.first)
    if plan is not None and plan.via == WEIGHTS:
        # Of a point that a matrix writes; which one makes no difference here.
        written = {
            replace(site, point=WRITTEN): replace(one, site=replace(site, point=WRITTEN))
            for site, one in bases.traces.items()
        }
        treatments = weight_treatments(written, plan)
        n_edits = sum(len(one.frames) * len(one.edits) for one in treatments)
        n_models = sum(
            len(one.frames) * sum(not edit.is_nothing for edit in one.edits) for one in treatments
        )
        found = Rehearsed(
            edits=n_edits / n_sites,
            targets=len(treatments) / n_sites,
            models=n_models / n_sites,
            drawn=_drawn([one.arms for one in treatments]),
        )
    elif plan is not None:
        found = _intervention(session, bases, plan, n_sites)
    if locality_plan is not None:
        before = model.tally
        locality(session, bases, replace(locality_plan, n_problems=None))
        done = model.tally - before
        found = replace(
            found,
            locality_rows=done.resumed / n_report / n_sites,
            locality_captured=(done.read + done.whole) / n_report,
        )
    return found


def _bases(
    session: Session,
    fit: ProblemSet,
    report: ProblemSet,
    method: DirectionMethod,
    n_sites: int,
    constraints: tuple[Constraint, ...],
) -> Bases:
    """The report's problems, traced at every site."""
    model = session.model
    if method.is_trained or method.files:
        method = find_method(INSTEAD, method.n_components, ranks=method.ranks)
    prompts_fit, prompts = model.encode(fit), model.encode(report)
    baseline = run_baseline(session, prompts, ReferenceAnswers.of_problems(report, seed=0))
    passed = torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, prompts_fit, prompts, passed, Drawing(constraints))
    sites = [Site(layer, "resid_post", "last") for layer in range(n_sites)]
    traces = trace(session, splits, sites, method, FEW)
    return Bases(report, baseline, traces)


def _intervention(
    session: Session, bases: Bases, plan: InterventionPlan, n_sites: int
) -> Rehearsed:
    assert isinstance(session.model, RehearsedModel)
    model, n = session.model, len(bases)
    before = model.tally
    done = intervene(session, bases, plan, n_shuffles=FEW.n_permutations)
    tally, before = model.tally - before, model.tally
    together = Tally()
    if plan.edit.target is EditTarget.SOURCE:
        list(interchange_together(session, bases, plan, done, tolerance=model.tolerance))
        together = model.tally - before
    return Rehearsed(
        edits=_n_edits(done) / n_sites,
        targets=len(done.results) / n_sites,
        rows=tally.resumed / n / n_sites,
        captured=(tally.read + tally.whole) / n,
        whole=together.whole / n,
        drawn=_drawn([one.arms for one in done.results]),
    )


def _n_edits(done: InterventionRun) -> int:
    """Subspaces x sources x strengths of all targets."""
    return sum(
        sum(len(arm.labels) for arm in one.arms) * one.changes.shape[0] * one.changes.shape[1]
        for one in done.results
    )


def _drawn(tried: Sequence[Sequence[Arm]]) -> dict[str, int]:
    """The fewest drawn subspaces of each kind."""
    found: dict[str, int] = {}
    for arm in (arm for arms in tried for arm in arms if arm.name in DRAWN):
        found[arm.name] = min(len(arm.labels), found.get(arm.name, len(arm.labels)))
    return found
