"""The intervention by weights: every edit is folded into a model of its own, which runs plainly.

A folded edit moves every position of every problem, each as far as its own coordinate says. So the
doses of a control cannot be matched problem by problem, as they are for edits of activations: the
same rule is applied along the control's direction, times the one factor that makes the root mean
square of the change, over all positions behind the few-shot prefix and all problems of the fit
split, that of the target. For `shift` that factor is 1, and every position moves just as far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.directions.tracing import Trace
from mech_arith.engine.answers import Answers
from mech_arith.engine.capture import capture
from mech_arith.engine.run import Baseline, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Arm, Target, arms
from mech_arith.interventions.fold import (
    Fold,
    check_editable,
    check_single,
    difference,
    fold,
    fold_of,
)
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import (
    InterventionPlan,
    InterventionRun,
    plain_targets,
    target_changes,
    value_step,
)
from mech_arith.models.base import Model
from mech_arith.models.editable import EditableModel
from mech_arith.models.prompts import Prompts


@dataclass(frozen=True)
class _Treatment:
    """One target at one site, with what it is compared with."""

    found: Trace
    target: Target
    arms: tuple[Arm, ...]
    edits: tuple[Fold, ...]
    """The target's, at all strengths."""

    @property
    def frames(self) -> Float64[Tensor, "m k width"]:
        """Of all arms; the target's is the first."""
        return torch.cat([arm.frames for arm in self.arms]).double()


@dataclass(frozen=True)
class EditedModel:
    """A model with one edit in its weights, and what that is."""

    model: EditableModel
    edited: dict[str, Any]


def intervene_by_weights(
    session: Session, bases: Bases, prompts_fit: Prompts, plan: InterventionPlan
) -> InterventionRun:
    """Fold every edit of every target and its controls, and run the edited models.

    Args:
        session: the model under study.
        bases: the problems that are run, and what tracing found, by site.
        prompts_fit: of the fit split, on which the controls' doses are matched.
        plan: what to edit.

    Raises:
        UserError: an edit that cannot be folded, or folded weights that do something else.
    """
    baseline = bases.baseline
    treatments = weight_treatments(bases.traces, plan)
    moments = _moments(session, prompts_fit, treatments)
    apart = max(_check(session.model, treatment, baseline.prompts) for treatment in treatments)
    n_models = sum(len(treatment.frames) for treatment in treatments) * len(plan.strengths)
    results = []
    with progress(n_models, description="intervention", unit="edited models") as bar:
        for treatment, of_treatment in zip(treatments, moments, strict=True):
            folds, rms = _matched(treatment, of_treatment)
            answers = Answers.empty(len(folds), len(baseline))
            for index, change in enumerate(folds):
                at = torch.tensor([index], dtype=torch.int64)
                answers.put(at, _answers(session, baseline, change))
                bar.advance()
            results.append(_result(treatment, plan, answers, rms))
    return InterventionRun(results, difference=apart)


def check_by_weights(
    model: Model, sites: Sequence[Site], prompts: Prompts, plan: InterventionPlan
) -> None:
    """Raise a UserError where edits of these sites cannot be folded, before any work is done."""
    editable = check_editable(model)
    check_single(list(dict.fromkeys(site.position for site in sites)), prompts)
    for site in sites:
        editable.projection(site.layer, site.point)
    if not plan.saves_model:
        return
    if len(sites) != 1:
        raise UserError(
            f"expected one layer and one position with intervention.save_model, got {len(sites)} "
            "sites; set layers.start, layers.stop, tracing.positions and tracing.heads"
        )
    origin = torch.zeros(1, dtype=torch.float64)
    # Else weights alone carry it: what is at the origin stays there.
    if plan.centre or any(plan.edit.change(origin, s, sd=1.0).any() for s in plan.strengths):
        editable.check_bias(sites[0].layer, sites[0].point)


def one_edit(model: Model, traces: Mapping[Site, Trace], plan: InterventionPlan) -> EditedModel:
    """The model with the plan's one edit in its weights.

    Raises:
        UserError: it has none, or several.
    """
    treatments = weight_treatments(traces, plan)
    edits = [(treatment, change) for treatment in treatments for change in treatment.edits]
    if len(edits) != 1:
        raise UserError(
            "expected one layer, position, component and strength with intervention.save_model, "
            f"got {len(edits)} edits; set intervention.components=[K] to one component, or "
            "intervention.values=[V] to the value whose best component is meant"
        )
    ((treatment, change),) = edits
    edited = {
        "model": model.name,
        "weights_digest": model.digest,
        **treatment.found.site.columns(),
        "component": treatment.target.component,
        "rank": treatment.target.rank,
        "edit": plan.edit.name,
        "strength": plan.strengths[0],
        "strength_unit": plan.edit.unit,
    }
    return EditedModel(fold(model, change), edited)


def weight_treatments(traces: Mapping[Site, Trace], plan: InterventionPlan) -> list[_Treatment]:
    """Every target at every site."""
    return [
        _Treatment(
            found,
            target,
            tuple(arms(found, target, plan.controls, seed=plan.seed)),
            _folds(found, target, plan),
        )
        for found in traces.values()
        for target in plain_targets(found, plan)
    ]


def _folds(found: Trace, target: Target, plan: InterventionPlan) -> tuple[Fold, ...]:
    """The target's edits, one for each strength."""
    subspace, at = found.subspace, list(target.components)
    return tuple(
        fold_of(
            (found.site.layer, found.site.point),
            subspace.directions[at],
            subspace.mean if plan.centre else torch.zeros_like(subspace.mean),
            plan.edit,
            strength,
            sd=value_step(found, target) if plan.edit.goes_along_the_value else subspace.sd[at],
            head=found.site.head,
        )
        for strength in plan.strengths
    )


def _moments(
    session: Session, prompts: Prompts, treatments: Sequence[_Treatment]
) -> list[Float64[Tensor, "m k 2"]]:
    """For each treatment the mean and the mean square of the coordinates on its subspaces.

    They are measured from the site's mean, over all positions of all problems.
    """
    frames = [treatment.frames for treatment in treatments]
    sums = [torch.zeros(*of_treatment.shape[:2], 2, dtype=torch.float64) for of_treatment in frames]
    count = 0
    everywhere = [replace(treatment.found.site, position="all") for treatment in treatments]
    sites = list(dict.fromkeys(everywhere))
    for layout, captured in capture(session, prompts, sites):
        for treatment, site, of_treatment, along in zip(
            treatments, everywhere, sums, frames, strict=True
        ):
            mean = treatment.found.subspace.mean
            activation = captured[site].double().unflatten(1, (-1, len(mean))).flatten(0, 1)
            coordinate = (activation - mean) @ along.flatten(0, 1).mT
            found = torch.stack([coordinate.sum(0), coordinate.square().sum(0)], dim=1)
            of_treatment += found.view_as(of_treatment)
        count += len(layout) * layout.tokens.shape[1]
    return [of_treatment / count for of_treatment in sums]


def _matched(
    treatment: _Treatment, moments: Float64[Tensor, "m k 2"]
) -> tuple[list[Fold], Float64[Tensor, " s"]]:
    """The edits along all directions, each at all strengths, and how far those of the target move.

    Raises:
        UserError: along a control's direction activations are all the same.
    """
    mean = treatment.found.subspace.mean
    rms = [change.rms(mean, moments[0]) for change in treatment.edits]
    folds = list(treatment.edits)
    for frame, of_frame in zip(treatment.frames[1:], moments[1:], strict=True):
        for change, wanted in zip(treatment.edits, rms, strict=True):
            alike = change.along(frame, mean, factor=1.0)
            size = alike.rms(mean, of_frame)
            if size == 0 and wanted > 0:
                raise UserError(
                    f"expected activations that vary along the controls at layer {change.layer}, "
                    "got constant ones; lower intervention.controls.span and random"
                )
            folds.append(change.along(frame, mean, factor=wanted / size if size else 1.0))
    return folds, torch.tensor(rms, dtype=torch.float64)


def _check(model: Model, treatment: _Treatment, prompts: Prompts) -> float:
    """How far the target's strongest edit, folded, is from the same one made on activations."""
    strongest = max(treatment.edits, key=lambda one: one.size)
    return difference(model, fold(model, strongest), strongest, prompts)


def _answers(session: Session, baseline: Baseline, change: Fold) -> Answers:
    """Of the edited model."""
    if change.is_nothing:
        return baseline.answers
    folded = session.of(fold(session.model, change))
    return run_baseline(folded, baseline.prompts, baseline.asked).answers


def _result(
    treatment: _Treatment, plan: InterventionPlan, answers: Answers, rms: Float64[Tensor, " s"]
) -> InterventionResult:
    n = len(answers)
    return InterventionResult(
        treatment.found.site,
        treatment.target,
        treatment.arms,
        target_changes(treatment.found, treatment.target, plan, n=n)[None],
        treatment.found.coordinates[:n, list(treatment.target.components)],
        torch.arange(n),
        answers.split(-1, 1, len(plan.strengths)),
        folded_rms=rms,
    )
