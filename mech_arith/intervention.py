"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.directions import random_direction
from mech_arith.edits import Edit
from mech_arith.engine import Baseline, edited_answers
from mech_arith.errors import UserError, unknown
from mech_arith.metrics import EditOutcome, edit_outcome
from mech_arith.progress import Progress, progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.tracing import Trace


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
    right: Float[Tensor, " n"],
    plan: InterventionPlan,
    *,
    tolerance: float,
    batch_size: int,
) -> pd.DataFrame:
    """Edit every target and its control at every site.

    The control of a target is a random direction of the same space, along which every problem is
    moved just as far.

    Args:
        solver: the model under study.
        baseline: its clean pass over the first problems of the report split.
        traces: what tracing found, by site.
        right: the right answers of those problems.
        plan: what to edit.
        tolerance: within which an answer counts as exact.
        batch_size: edited problems run at a time.

    Returns:
        The table of effects, a row per site, direction and strength.
    """
    targets = {site: choose_targets(found, plan) for site, found in traces.items()}
    n_targets = sum(len(chosen) for chosen in targets.values())
    n_rows = 2 * n_targets * len(plan.strengths) * len(right)
    rows: list[dict[str, object]] = []
    with progress(n_rows, description="intervention", unit="edits") as bar:
        for site, chosen in targets.items():
            for target in chosen:
                answers = _edit_target(
                    solver, baseline, traces[site], target.component, plan, batch_size, bar
                )
                for edited in answers:
                    outcome = edit_outcome(
                        edited.answers, baseline.answers, right, tolerance=tolerance
                    )
                    broken = solver.regresses and outcome.not_a_number > 0
                    rows.append(_row(site, target, plan, edited, outcome, len(right), broken))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Edited:
    """One direction at one strength."""

    arm: str
    strength: float
    change: Float64[Tensor, " n"]
    coordinate: Float64[Tensor, " n"]
    """Clean, on the target's direction."""
    answers: Float[Tensor, " n"]


def _edit_target(
    solver: Solver,
    baseline: Baseline,
    found: Trace,
    component: int,
    plan: InterventionPlan,
    batch_size: int,
    bar: Progress,
) -> Iterator[_Edited]:
    """One component at one site and its control, at all strengths."""
    components = found.components
    direction = components.directions[component]
    coordinate = found.coordinates[: len(baseline.answers), component]
    changes = coordinate_changes(
        coordinate,
        plan,
        sd=float(components.sd[component]),
        offset=0.0 if plan.centre else float(components.mean @ direction),
    )
    control = random_direction(
        len(direction), generator=_control_generator(plan.seed, found.site, component)
    )
    arms = {"target": direction, "control": control}
    n_strengths = len(plan.strengths)
    answers = edited_answers(
        solver,
        baseline,
        found.site,
        torch.cat([arm.expand(n_strengths, -1) for arm in arms.values()]),
        changes.repeat(len(arms), 1),
        batch_size=batch_size,
        bar=bar,
    )
    for arm, of_arm in zip(arms, answers.split(n_strengths), strict=True):
        for strength, change, edited in zip(plan.strengths, changes, of_arm, strict=True):
            yield _Edited(arm, strength, change, coordinate, edited)


def _control_generator(seed: int, site: Site, component: int) -> torch.Generator:
    """Independent for every seed, site and component."""
    mixed = np.random.SeedSequence([seed, site.layer, component, *site.indices])
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
            "baseline_accuracy": worst["baseline_accuracy"],
            "n": worst["n"],
            **place,
            "control_drop": controls[tuple(place.values())],
        }
    return drops
