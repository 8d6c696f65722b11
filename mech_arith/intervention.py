"""Causal intervention: edit coordinates, run the layers above, see what becomes of the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.directions import random_direction
from mech_arith.edits import Edit
from mech_arith.engine import Baseline, edited_answers
from mech_arith.errors import UserError, unknown
from mech_arith.metrics import edit_outcome
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
        wanted = sorted(set(best.values()))
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
        batch_size: edited problems run at a time.

    Returns:
        The table of effects, a row per site, direction and strength.
    """
    targets = {
        site: choose_targets(found, plan) for site, found in traces.items() if not found.is_constant
    }
    n_targets = sum(len(chosen) for chosen in targets.values())
    n_rows = 2 * n_targets * len(plan.strengths) * len(right)
    rows: list[dict[str, object]] = []
    with progress(n_rows, description="intervention", unit="edits") as bar:
        for site, chosen in targets.items():
            for target in chosen:
                rows += _edit_target(
                    solver, baseline, traces[site], target, right, plan, batch_size, bar
                )
    return pd.DataFrame(rows)


def _edit_target(
    solver: Solver,
    baseline: Baseline,
    found: Trace,
    target: Target,
    right: Float[Tensor, " n"],
    plan: InterventionPlan,
    batch_size: int,
    bar: Progress,
) -> list[dict[str, object]]:
    """One component at one site and its control, at all strengths."""
    components, k = found.components, target.component
    direction = components.directions[k]
    coordinate = found.coordinates[: len(right), k]
    changes = coordinate_changes(
        coordinate,
        plan,
        sd=float(components.sd[k]),
        offset=0.0 if plan.centre else float(components.mean @ direction),
    )
    generator = torch.Generator().manual_seed(plan.seed + 1_000_003 * found.site.layer + k)
    arms = {
        "target": direction,
        "control": random_direction(len(direction), generator=generator),
    }
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
    rows = []
    for arm, edited_by_strength in zip(arms, answers.split(n_strengths), strict=True):
        for strength, change, edited in zip(
            plan.strengths, changes, edited_by_strength, strict=True
        ):
            outcome = edit_outcome(edited, baseline.answers, right, tolerance=solver.tolerance)
            rows.append(
                {
                    "layer": found.site.layer,
                    "point": found.site.point,
                    "position": found.site.position,
                    "direction": f"{'component' if arm == 'target' else arm} {k}",
                    "component": k,
                    "arm": arm,
                    "chosen_for": " | ".join(target.chosen_for),
                    "edit": plan.edit.name,
                    "strength": strength,
                    "strength_unit": plan.edit.unit,
                    "coordinate_mean": float((coordinate + change).mean()),
                    "change_rms": float(change.square().mean().sqrt()),
                    "n": len(right),
                    **asdict(outcome),
                    "accuracy_drop": outcome.accuracy_drop,
                    "status": "ok",
                    "reason": "",
                }
            )
    return rows


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
            **place,
            "control_drop": controls[tuple(place.values())],
        }
    return drops
