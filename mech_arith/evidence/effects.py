"""From answers under edits to the tables that say what the edits did, and how sure that is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.evidence.hypotheses import hypothesis_table
from mech_arith.evidence.iia import iia_table
from mech_arith.evidence.metrics import shifts
from mech_arith.evidence.outcomes import Outcomes, by_strength, outcomes_of
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.site_contrasts import site_contrast_table
from mech_arith.evidence.specificity import specificity_table
from mech_arith.interventions.controls import DRAWN, TARGET
from mech_arith.interventions.edits.base import Edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.interventions.sequential import DropsOf
from mech_arith.statistics import excess, holm, largest_of_all, least_p


def drops_of(scorer: Scorer) -> DropsOf:
    """What answers under edits cost: by it draws stop early."""

    def of(answers: Answers, rows: Int64[Tensor, " n"]) -> Float64[Tensor, "s k"]:
        return by_strength(scorer.of(rows).drops(answers)).mean(-1)

    return of


def effect_rows(
    results: InterventionResult,
    found: Outcomes,
    edit: Edit,
    strengths: tuple[float, ...],
    *,
    written: bool,
) -> list[dict[str, Any]]:
    """A row per arm and strength: means over the arm's directions and over sources."""
    moved = results.change_rms
    rows = []
    for arm in results.arms:
        is_target = arm.name == TARGET
        numbers = found.by_arm[arm.name]
        for index, strength in enumerate(strengths):
            # Controls move along other directions: the target's coordinate says nothing of them.
            ends = results.coordinates + results.changes[:, index]
            is_one = is_target and results.target.rank == 1
            coordinate = ends.mean() if is_one else torch.nan
            broken = not written and float(numbers["not_a_number"][index]) > 0
            rows.append(
                {
                    **results.key,
                    "direction": f"{'component' if is_target else arm.name} {results.target.label}",
                    "arm": arm.name,
                    "n_directions": len(arm.frames),
                    "edit": edit.name,
                    "strength": strength,
                    "strength_unit": edit.unit,
                    "coordinate_mean": float(coordinate),
                    "change_rms": float(moved[index]),
                    "n": len(results.rows),
                    **{name: float(of_arm[index]) for name, of_arm in numbers.items()},
                    "n_passed": int(numbers["n_passed"][index]),
                    **{
                        name: float(number[index]) if is_target else float("nan")
                        for name, number in found.against.items()
                    },
                    "status": "failed" if broken else "ok",
                    "reason": "predictions that are not finite" if broken else "",
                }
            )
    return rows


def draw_rows(
    results: InterventionResult, edit: Edit, strengths: tuple[float, ...], scorer: Scorer
) -> list[dict[str, Any]]:
    """A row per control direction and strength."""
    scorer = scorer.of(results.rows)
    rows = []
    for arm, answers in results.by_arm():
        if arm.name == TARGET:
            continue
        drops = by_strength(scorer.drops(answers)).mean(-1)
        moved = by_strength(shifts(answers, scorer.clean).abs()).nanmean(-1)
        for (at, direction), drop in np.ndenumerate(drops.numpy()):
            rows.append(
                {
                    **results.key,
                    "arm": arm.name,
                    "draw": direction,
                    "direction": arm.labels[direction],
                    "edit": edit.name,
                    "strength": strengths[at],
                    "accuracy_drop": float(drop),
                    "mean_abs_shift": float(moved[at, direction]),
                }
            )
    return rows


@dataclass(frozen=True)
class Contrast:
    """The target against one other arm."""

    fields: dict[str, Any]
    """Of its row."""
    draws: Float64[Tensor, " m"]
    """The drop of each of the arm's directions."""
    most_draws: int
    """That p might have been of; 0 for an arm that is not drawn."""
    is_sequential: bool
    """Draws stopped once p was decided."""


def contrasts_of(results: InterventionResult, edit: Edit, scorer: Scorer) -> list[Contrast]:
    """The target against each other arm: means over all strengths that move anything.

    No strength is chosen, so that nothing is picked on the problems that are reported.
    """
    scorer = scorer.of(results.rows)
    moving = results.moving
    if not moving.any():
        return []
    drops = {
        arm.name: by_strength(scorer.drops(answers))[moving].mean(0)
        for arm, answers in results.by_arm()
    }
    target = drops.pop(TARGET)[0]
    contrasts = []
    for arm, controls in drops.items():
        drawn = arm in DRAWN
        found = excess(target, controls if drawn else controls.mean(0, keepdim=True), scorer.how)
        draws = results.draws.get(arm)
        p, n_draws = (found.p, len(controls)) if draws is None else draws.of_mean[:2]
        fields = {
            **results.key,
            "edit": edit.name,
            "arm": arm,
            "n_directions": len(controls),
            "n_strengths": int(moving.sum()),
            "n": len(target),
            "target_drop": float(target.mean()),
            "arm_drop": float(controls.mean()),
            "excess_drop": float(found.estimate),
            "low": float(found.low),
            "high": float(found.high),
            # Of directions that are no sample, how many lie beyond the target says nothing.
            "p": float(p) if drawn else float("nan"),
            "n_draws": int(n_draws) if drawn else 0,
        }
        most = len(controls) if draws is None else draws.most
        contrasts.append(
            Contrast(fields, controls.mean(1), most if drawn else 0, draws is not None)
        )
    return contrasts


def contrast_table(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """A row per target and arm, with p also corrected for the search among all targets.

    By the maximum over targets; where draws stop early, and each target has a number of its own, by
    Holm's rule.
    """
    p_max = torch.full((len(contrasts),), torch.nan, dtype=torch.float64)
    n_tests = Counter(one.fields["arm"] for one in contrasts if one.is_sequential)
    for arm in DRAWN:
        places = [i for i, one in enumerate(contrasts) if one.fields["arm"] == arm]
        if places:
            p_max[places] = _corrected([contrasts[i] for i in places])
    return pd.DataFrame(
        [
            {
                **one.fields,
                "p_max": p,
                "p_least": least_p(one.most_draws, n_tests=n_tests[one.fields["arm"]] or 1),
            }
            for one, p in zip(contrasts, p_max.tolist(), strict=True)
        ]
    )


def _corrected(contrasts: Sequence[Contrast]) -> Float64[Tensor, " t"]:
    """For the search among targets that are compared with one kind of directions."""

    def every(name: str) -> Float64[Tensor, " t"]:
        return torch.tensor([one.fields[name] for one in contrasts], dtype=torch.float64)

    if contrasts[0].is_sequential:
        return holm(every("p"))
    return largest_of_all(every("target_drop"), torch.stack([one.draws for one in contrasts]))


def effect_tables(
    results: Sequence[InterventionResult], edit: Edit, strengths: tuple[float, ...], scorer: Scorer
) -> dict[str, pd.DataFrame]:
    """`effects`, `contrasts` and `control_draws` of all targets."""
    return {
        "effects": pd.DataFrame(
            [
                row
                for one, found in zip(results, outcomes_of(results, scorer), strict=True)
                for row in effect_rows(one, found, edit, strengths, written=scorer.written)
            ]
        ),
        "contrasts": contrast_table(
            [found for one in results for found in contrasts_of(one, edit, scorer)]
        ),
        "control_draws": pd.DataFrame(
            [row for one in results for row in draw_rows(one, edit, strengths, scorer)]
        ),
    }


def intervention_tables(
    done: InterventionRun, plan: InterventionPlan, scorer: Scorer
) -> dict[str, pd.DataFrame]:
    """Every table of an intervention.

    Returns:
        `effects`: a row per site, target, arm and strength. `contrasts`: the target against each
        other arm, over all strengths. `control_draws`: a row per control direction and strength. Of
        an edit towards values also `counterfactual`: a row per site, value, arm and strength; and
        of `interchange` `specificity`: a row per site, direction and changed value. Where a layer
        has several sites, as heads, `site_contrasts`: a row per site and value. Where there are
        rival hypotheses, `hypotheses`: a row per site, value and rival's value.
    """
    tables = effect_tables(done.results, plan.edit, plan.strengths, scorer)
    if done.sources:
        tables["counterfactual"] = iia_table(done, plan, scorer)
        contrasted = site_contrast_table(done, plan, scorer)
        tables |= {} if contrasted.empty else {"site_contrasts": contrasted}
        rivals = hypothesis_table(done, plan, scorer)
        tables |= {} if rivals.empty else {"hypotheses": rivals}
    if done.crossed is not None:
        tables["specificity"] = specificity_table(done.crossed, done.sources, scorer)
    return tables
