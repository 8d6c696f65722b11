"""From answers under edits to the tables that say what the edits did, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.evidence.hypotheses import hypothesis_table
from mech_arith.evidence.iia import iia_table
from mech_arith.evidence.metrics import edit_outcome, exact, shifts
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.site_contrasts import site_contrast_table
from mech_arith.evidence.specificity import specificity_table
from mech_arith.interventions.controls import CONTROL, DRAWN, TARGET, Arm
from mech_arith.interventions.edits.base import Edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.statistics import (
    ALPHA,
    DIFFERENCES,
    DISTANCES,
    SHARES,
    SHIFTS,
    Resampling,
    averaged,
    draws_needed,
    excess,
    largest_of_all,
    least_p,
)


def effect_rows(
    results: InterventionResult, edit: Edit, strengths: tuple[float, ...], scorer: Scorer
) -> list[dict[str, Any]]:
    """A row per arm and strength: means over the arm's directions and over sources."""
    scorer = scorer.of(results.rows)
    compared = {arm.name: _by_strength(scorer.drops(answers)) for arm, answers in results.by_arm()}
    against = _against(compared, scorer.how)
    moving, moved = _moving(results), results.change_rms
    rows = []
    for arm, answers in results.by_arm():
        is_target = arm.name == TARGET
        numbers = _numbers(arm, answers, scorer, moving)
        for index, strength in enumerate(strengths):
            # Controls move along other directions: the target's coordinate says nothing of them.
            ends = results.coordinates + results.changes[:, index]
            is_one = is_target and results.target.rank == 1
            coordinate = ends.mean() if is_one else torch.nan
            broken = not scorer.written and float(numbers["not_a_number"][index]) > 0
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
                        for name, number in against.items()
                    },
                    "status": "failed" if broken else "ok",
                    "reason": "predictions that are not finite" if broken else "",
                }
            )
    return rows


def _moving(results: InterventionResult) -> Bool[Tensor, " s"]:
    """The strengths that move any problem; the others are no edit."""
    return results.moves.any(2).any(0)


def _numbers(
    arm: Arm, answers: Answers, scorer: Scorer, moving: Bool[Tensor, " s"]
) -> dict[str, Float64[Tensor, " s"]]:
    """Outcomes by strength, and the intervals of some."""
    outcome = edit_outcome(
        answers, scorer.clean, scorer.right, tolerance=scorer.tolerance, written=scorer.written
    )
    numbers = {name: number.double().mean((0, 1)) for name, number in vars(outcome).items()}
    drops, shift = scorer.drops(answers), shifts(answers, scorer.clean)
    hits = exact(answers.numbers, scorer.right, tolerance=scorer.tolerance).double()
    for name, each, of in (
        ("edited_accuracy", hits, SHARES),
        ("accuracy_drop", drops, DIFFERENCES),
        ("mean_shift", shift, SHIFTS),
        ("mean_abs_shift", shift.abs(), DISTANCES),
    ):
        found = averaged(_by_strength(each), scorer.how, drawn=arm.name in DRAWN, of=of)
        # Where answers are no number, a mean of means is not the mean that has the interval.
        low, high = found.low, found.high
        if of in (SHIFTS, DISTANCES):  # where nothing is edited, no shift is sure
            low, high = (end.where(moving, found.mean) for end in (low, high))
        numbers |= {name: found.mean, f"{name}_low": low, f"{name}_high": high}
    return numbers


def _by_strength(x: Float64[Tensor, "k m s n"]) -> Float64[Tensor, "s k n"]:
    """Problems with the mean over their sources, which are theirs alone."""
    return x.nanmean(1).transpose(0, 1)


def _against(
    drops: Mapping[str, Float64[Tensor, "s k n"]], how: Resampling
) -> dict[str, Float64[Tensor, " s"]]:
    """The target's drop beyond that of the norm-matched random directions."""
    target = drops[TARGET][:, 0]
    controls = drops.get(CONTROL, target.new_zeros(len(target), 0, target.shape[-1]))
    found = excess(target, controls, how)
    return {
        "excess_drop": found.estimate,
        "excess_low": found.low,
        "excess_high": found.high,
        "excess_p": found.p,
    }


def draw_rows(
    results: InterventionResult, edit: Edit, strengths: tuple[float, ...], scorer: Scorer
) -> list[dict[str, Any]]:
    """A row per control direction and strength."""
    scorer = scorer.of(results.rows)
    rows = []
    for arm, answers in results.by_arm():
        if arm.name == TARGET:
            continue
        drops = _by_strength(scorer.drops(answers)).mean(-1)
        moved = _by_strength(shifts(answers, scorer.clean).abs()).nanmean(-1)
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


def contrasts_of(results: InterventionResult, edit: Edit, scorer: Scorer) -> list[Contrast]:
    """The target against each other arm: means over all strengths that move anything.

    No strength is chosen, so that nothing is picked on the problems that are reported.
    """
    scorer = scorer.of(results.rows)
    moving = _moving(results)
    if not moving.any():
        return []
    drops = {
        arm.name: _by_strength(scorer.drops(answers))[moving].mean(0)
        for arm, answers in results.by_arm()
    }
    target = drops.pop(TARGET)[0]
    contrasts = []
    for arm, controls in drops.items():
        drawn = arm in DRAWN
        found = excess(target, controls if drawn else controls.mean(0, keepdim=True), scorer.how)
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
            "p": float(found.p) if drawn else float("nan"),
        }
        contrasts.append(Contrast(fields, controls.mean(1)))
    return contrasts


def contrast_table(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """A row per target and arm, with p also corrected for the search among all targets."""
    p_max = torch.full((len(contrasts),), torch.nan, dtype=torch.float64)
    for arm in DRAWN:
        places = [i for i, contrast in enumerate(contrasts) if contrast.fields["arm"] == arm]
        if places:
            drops = [contrasts[i].fields["target_drop"] for i in places]
            targets = torch.tensor(drops, dtype=torch.float64)
            draws = torch.stack([contrasts[i].draws for i in places])
            p_max[places] = largest_of_all(targets, draws)
    return pd.DataFrame(
        [
            {**contrast.fields, "p_max": p}
            for contrast, p in zip(contrasts, p_max.tolist(), strict=True)
        ]
    )


def unresolved_drops(contrasts: pd.DataFrame) -> list[str]:
    """Messages on kinds of directions that are too few for any excess drop to count."""
    if contrasts.empty:
        return []
    drawn = contrasts.loc[contrasts["arm"].isin(DRAWN)]
    counts = drawn.groupby("arm", sort=False)["n_directions"].min()
    return too_few_directions({str(arm): int(n) for arm, n in counts.items()})


def too_few_directions(drawn: Mapping[str, int]) -> list[str]:
    """Messages on arms of so many drawn directions, where these are too few."""
    found = []
    for arm, n in drawn.items():
        least = least_p(n)
        if least > ALPHA:
            name = "random" if arm == CONTROL else arm
            found.append(
                f"p of a drop beyond {n} {name} directions is {least:.2g} at least, and none can "
                f"count: set intervention.controls.{name} to {draws_needed(ALPHA)} or more"
            )
    return found


def effect_tables(
    results: Sequence[InterventionResult], edit: Edit, strengths: tuple[float, ...], scorer: Scorer
) -> dict[str, pd.DataFrame]:
    """`effects`, `contrasts` and `control_draws` of all targets."""
    return {
        "effects": pd.DataFrame(
            [row for one in results for row in effect_rows(one, edit, strengths, scorer)]
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
