"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.answers import Answers
from mech_arith.batching import Batching
from mech_arith.directions import random_direction
from mech_arith.edits import Edit
from mech_arith.engine import Baseline, SiteEdits, run_edits
from mech_arith.errors import UserError, unknown
from mech_arith.metrics import EditOutcome, edit_outcome
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.tracing import Trace
from mech_arith.unfinished import Unfinished

ARMS = ("target", "control")


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
    seed: int = 0
    """Of the control directions."""


@dataclass(frozen=True)
class Target:
    """A component to edit at one site, and the values it was chosen for."""

    component: int
    chosen_for: tuple[str, ...]


def choose_targets(found: Trace, plan: InterventionPlan) -> list[Target]:
    """The components that the plan edits at a site.

    Raises:
        UserError: a value or component that is not there.
    """
    n_components = len(found.components.directions)
    values = found.values if plan.values is None else plan.values
    for value in values:
        if value not in found.values:
            raise unknown("value", value, found.values)
    best = {value: found.best_component(value) for value in values}
    if plan.components == "best":
        wanted = sorted({component for component in best.values() if component is not None})
    elif plan.components == "all":
        wanted = list(range(n_components))
    else:
        wanted = [int(component) for component in plan.components]
    for component in wanted:
        if not 0 <= component < n_components:
            raise UserError(
                f"expected components in 0..{n_components - 1} at layer {found.site.layer}, got "
                f"{component}; change intervention.components or tracing.n_components"
            )
    return [
        Target(component, tuple(v for v in values if best[v] == component)) for component in wanted
    ]


def intervene(
    solver: Solver,
    baseline: Baseline,
    traces: Mapping[Site, Trace],
    plan: InterventionPlan,
    *,
    tolerance: float,
    batching: Batching,
    unfinished: Unfinished | None = None,
) -> pd.DataFrame:
    """Edit every target and its control at every site.

    The control of a target is a random direction of the same space, along which every problem is
    moved just as far.

    Args:
        solver: the model under study.
        baseline: the first problems of the report split, as the solver answers them.
        traces: what tracing found, by site.
        plan: what to edit.
        tolerance: within which an answer counts as exact.
        batching: how many edited problems are run at a time.
        unfinished: what an earlier attempt at the same cell has done.

    Returns:
        The table of effects, a row per site, direction and strength.
    """
    work = [
        (_target_edits(traces[site], target.component, plan, n=len(baseline)), target)
        for site, found in traces.items()
        for target in choose_targets(found, plan)
    ]
    edits = [asked for asked, _ in work]
    n_rows = sum(asked.changes.numel() for asked in edits)
    with progress(n_rows, description="intervention", unit="edits") as bar:
        answers = run_edits(
            solver, baseline, edits, batching=batching, bar=bar, unfinished=unfinished
        )
    rows = []
    for (asked, target), of_target in zip(work, answers, strict=True):
        coordinate = traces[asked.site].coordinates[: len(baseline), target.component]
        strengths = [(arm, strength) for arm in ARMS for strength in plan.strengths]
        for index, (arm, strength) in enumerate(strengths):
            edited = _Edited(arm, strength, asked.changes[index], coordinate, of_target.at(index))
            outcome = edit_outcome(
                edited.answers,
                baseline.answers,
                baseline.asked.right,
                tolerance=tolerance,
                written=not solver.regresses,
            )
            broken = solver.regresses and outcome.not_a_number > 0
            rows.append(_row(asked.site, target, plan, edited, outcome, len(baseline), broken))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Edited:
    """One direction at one strength."""

    arm: str
    strength: float
    change: Float64[Tensor, " n"]
    coordinate: Float64[Tensor, " n"]
    """Clean, on the target's direction."""
    answers: Answers


def _target_edits(found: Trace, component: int, plan: InterventionPlan, *, n: int) -> SiteEdits:
    """One component at one site and its control, at all strengths: arm by arm."""
    components = found.components
    direction = components.directions[component]
    changes = coordinate_changes(
        found.coordinates[:n, component],
        plan,
        sd=float(components.sd[component]),
        offset=0.0 if plan.centre else float(components.mean @ direction),
    )
    control = random_direction(
        len(direction), generator=_control_generator(plan.seed, found.site, component)
    )
    arms = [arm.expand(len(plan.strengths), -1) for arm in (direction, control)]
    return SiteEdits(found.site, torch.cat(arms), changes.repeat(len(ARMS), 1))


def _control_generator(seed: int, site: Site, component: int) -> torch.Generator:
    """Independent for every seed, site and component."""
    mixed = np.random.SeedSequence([seed, site.layer, component, *site.position.encode()])
    return torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint32)[0]))


def _row(
    site: Site,
    target: Target,
    plan: InterventionPlan,
    edited: _Edited,
    outcome: EditOutcome,
    n: int,
    broken: bool,
) -> dict[str, object]:
    """A row of the table of effects."""
    is_target = edited.arm == "target"
    return {
        "layer": site.layer,
        "point": site.point,
        "position": site.position,
        "direction": f"{'component' if is_target else edited.arm} {target.component}",
        "component": target.component,
        "arm": edited.arm,
        "chosen_for": " | ".join(target.chosen_for),
        "edit": plan.edit.name,
        "strength": edited.strength,
        "strength_unit": plan.edit.unit,
        # The control moves along another direction: the target's coordinate says nothing of it.
        "coordinate_mean": (
            float((edited.coordinate + edited.change).mean()) if is_target else float("nan")
        ),
        "change_rms": float(edited.change.square().mean().sqrt()),
        "n": n,
        **asdict(outcome),
        "accuracy_drop": outcome.accuracy_drop,
        "pass_rate": outcome.pass_rate,
        "accuracy_drop_passed": outcome.accuracy_drop_passed,
        "status": "failed" if broken else "ok",
        "reason": "predictions that are not finite" if broken else "",
    }


def coordinate_changes(
    coordinate: Float64[Tensor, " n"], plan: InterventionPlan, *, sd: float, offset: float
) -> Float64[Tensor, "strengths n"]:
    """How far each strength moves each problem's coordinate, in activation units."""
    return torch.stack(
        [plan.edit.change(coordinate + offset, strength, sd=sd) for strength in plan.strengths]
    )


def largest_drops(effects: pd.DataFrame, values: Sequence[str]) -> dict[str, dict[str, object]]:
    """For each value, the edit of a component chosen for it that costs most accuracy, beside its
    control at the same layer, component and strength.
    """
    drops: dict[str, dict[str, object]] = {}
    controls = {
        (row["layer"], row["position"], row["component"], row["strength"]): row["accuracy_drop"]
        for row in effects.loc[effects["arm"] == "control"].to_dict(orient="records")
    }
    for value in values:
        chosen = effects["chosen_for"].map(lambda names, v=value: v in names.split(" | "))
        targets = effects.loc[chosen & (effects["arm"] == "target")]
        if targets.empty:
            continue
        ordered = targets.sort_values("accuracy_drop", ascending=False, kind="stable")
        worst = ordered.to_dict(orient="records")[0]
        place = {name: worst[name] for name in ("layer", "position", "component", "strength")}
        drops[value] = {
            "accuracy_drop": worst["accuracy_drop"],
            "accuracy_drop_passed": worst["accuracy_drop_passed"],
            "baseline_accuracy": worst["baseline_accuracy"],
            "n": worst["n"],
            **place,
            "control_drop": controls[tuple(place.values())],
        }
    return drops
