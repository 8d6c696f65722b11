"""The headline numbers of a cell, out of its baseline and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from mech_arith.directions.tracing import Trace, value_table
from mech_arith.engine.run import Baseline
from mech_arith.engine.sites import COMPONENT_COLUMNS, SITE_COLUMNS, Site, site_of
from mech_arith.evidence.best import best_on_fit, of_least_rank
from mech_arith.evidence.columns import TABLES
from mech_arith.evidence.metrics import digit_accuracy, exact
from mech_arith.evidence.ranks import rank_sentence, rank_summary
from mech_arith.evidence.table import headline
from mech_arith.evidence.verdicts import contrast_counts, verdicts
from mech_arith.interventions.controls import CONTROL, DRAWN, TARGET
from mech_arith.models.base import Model
from mech_arith.problems import ProblemSet
from mech_arith.statistics import (
    ALPHA,
    Resampling,
    binomial_above,
    majority_floor,
    r_squared,
    rank_p,
    relations,
    share_interval,
)

CLEARLY = 0.01
"""p below which the baseline accuracy is clearly above the majority-answer floor."""


@dataclass(frozen=True)
class Reported:
    """The report split as the model answers it, and the part of it that is edited."""

    baseline: Baseline
    tolerance: float
    n_edited: int

    @property
    def passed(self) -> Bool[Tensor, " n"]:
        """The problems that are answered right."""
        asked, answers = self.baseline.asked, self.baseline.answers
        return exact(answers.numbers, asked.right, tolerance=self.tolerance)

    @property
    def accuracy(self) -> float:
        return float(self.passed.double().mean())


def floor_test(reported: Reported) -> tuple[float, float]:
    """The majority-answer floor, and the p-value of the accuracy against it."""
    floor = majority_floor(reported.baseline.asked.right.long().numpy())
    passed = reported.passed
    return floor, binomial_above(int(passed.sum()), len(passed), floor)


def baseline_summary(model: Model, reported: Reported, how: Resampling) -> dict[str, Any]:
    """How well the problems are answered, and whether that says anything."""
    answers, right = reported.baseline.answers, reported.baseline.asked.right
    floor, p = floor_test(reported)
    ends = share_interval(reported.passed, how)
    summary: dict[str, Any] = {
        "n_report": len(right),
        "n_passed": int(reported.passed.sum()),
        "baseline_accuracy": reported.accuracy,
        "baseline_accuracy_low": float(ends.low),
        "baseline_accuracy_high": float(ends.high),
        "majority_floor": floor,
        "above_floor_p": p,
        "baseline_not_a_number": float(answers.numbers.isnan().double().mean()),
        "tolerance": reported.tolerance,
    }
    if model.regresses:
        summary["baseline_r2"] = float(r_squared(answers.numbers, right))
        summary["baseline_median_abs_error"] = float((answers.numbers - right).abs().median())
    else:
        summary["baseline_digit_accuracy"] = float(digit_accuracy(answers.numbers, right).mean())
        summary["baseline_right_probability"] = float(answers.log_prob.exp().mean())
        summary["baseline_logit_difference"] = float(answers.logit_difference.nanmean())
    return summary


def group_columns(table: str, group: str) -> tuple[str, ...]:
    """The columns of a table whose numbers stand in a group of the summary, and their place."""
    own = [column.name for column in TABLES[table] if column.group == group]
    return (*own, *COMPONENT_COLUMNS)


def tracing_summary(
    asked: Mapping[Site, Trace], correlations: pd.DataFrame, report: ProblemSet, how: Resampling
) -> dict[str, Any]:
    """Per value the component that is best on the fit split, with its R on the report split.

    Beside it how many were searched, how sure the numbers are, and which values are linear
    combinations of others, so that no number can tell them apart.
    """
    sites = pd.DataFrame(correlations[[*SITE_COLUMNS]]).to_dict(orient="records")
    chosen = correlations["chosen"].astype(bool)
    wanted = np.array([site_of(row) in asked for row in sites])
    best = best_on_fit(correlations.loc[chosen & wanted])
    named = group_columns("correlations", "best")
    tests = correlations.loc[chosen].dropna(subset=["p"])
    return {
        "n_searched": sum(found.r_fit.shape[0] for found in asked.values()),
        "best": {
            row["value"]: {name: row[name] for name in named}
            for row in best.to_dict(orient="records")
        },
        "inference": {
            "level": how.level,
            "n_resamples": how.n_resamples,
            "n_permutations": how.n_permutations,
            "n_tests": len(tests),
            "n_significant_holm": len(tests.loc[tests["p_holm"] <= ALPHA]),
            "n_significant_bh": len(tests.loc[tests["p_bh"] <= ALPHA]),
        },
        "collinear": relations(value_table(report), report.hypothesis.values),
    }


TARGET_KEY = (*COMPONENT_COLUMNS, "target_value")
"""What tells one edited target from another."""


def verdict_summary(evidence: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Per value in which layers it is held and used, in words and as numbers of one place.

    Of several ranks it is the least that is judged, and the text ends with what the others reach.
    """
    ranks = rank_summary(evidence)
    return {
        found.value: {
            "text": "; ".join(
                [found.text, *(rank_sentence(ranks[v]) for v in [found.value] if v in ranks)]
            ),
            "held": list(found.held),
            "shared": {other: list(at) for other, at in found.shared.items()},
            "used": list(found.used),
            "untold": {why: list(at) for why, at in found.untold.items()},
            "best": dict(found.best),
        }
        for found in verdicts(of_least_rank(evidence).to_dict(orient="records"))
    }


def missing_summary(evidence: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Per headline number the values that have none at their headline place, and why."""
    best = headline(evidence)
    return {
        column.name: {
            value: row[column.why] for value, row in best.items() if pd.isna(row[column.name])
        }
        for column in TABLES["evidence"]
        if column.why and not column.is_text
    }


def intervention_summary(
    tables: Mapping[str, pd.DataFrame], values: tuple[str, ...]
) -> dict[str, Any]:
    """Per value what its direction costs beyond its controls, and how often its value is answered.

    The headline of a value (`excess_drop`, `counterfactual`) is that of the site and component with
    the largest |R| on the fit split: nothing is chosen on the problems that are reported. Beside it
    stands the largest drop of all: the maximum over `n_edits_searched` edits.
    """
    effects, best = tables["effects"], headline(tables["evidence"])
    if effects.empty:
        return {"n_edits_searched": 0, "largest_drop": {}, "control": {}}
    beyond: dict[tuple[Any, ...], list[bool]] = {}
    for row in tables["contrasts"].to_dict(orient="records"):
        if row["arm"] in DRAWN:
            target = tuple(row[name] for name in TARGET_KEY)
            beyond.setdefault(target, []).append(contrast_counts(row))
    return {
        "n_edits_searched": len(effects.loc[effects["arm"] == TARGET]),
        "largest_drop": largest_drops(effects, values),
        "largest_drop_p": largest_drop_p(effects, tables["control_draws"]),
        "control": _largest_control(effects),
        "excess_drop": _headlines(best, "excess_drop", "excess_drop"),
        "counterfactual": _headlines(best, "counterfactual", "iia"),
        "ranks": rank_summary(tables["evidence"]),
        "n_contrasts": len(beyond),
        "n_contrasts_beyond": sum(map(all, beyond.values())),
    }


def _headlines(
    best: Mapping[str, Mapping[str, Any]], group: str, number: str
) -> dict[str, dict[str, Any]]:
    """A group of every value that has its first number, and where it was read."""
    names = group_columns("evidence", group)
    return {
        value: {name: row.get(name) for name in names}
        for value, row in best.items()
        if not pd.isna(row[number])
    }


def largest_drop_p(effects: pd.DataFrame, draws: pd.DataFrame) -> float:
    """Of the largest drop of all: the share of random draws, over all sites, targets and strengths,
    whose own largest is as large. The search is the same for all; NaN without random controls.
    """
    largest: dict[int, float] = {}
    for row in draws.to_dict(orient="records"):
        if row["arm"] == CONTROL:
            largest[row["draw"]] = max(largest.get(row["draw"], -inf), row["accuracy_drop"])
    if not largest:
        return float("nan")
    targets = effects.loc[effects["arm"] == TARGET]
    found = torch.tensor(max(targets["accuracy_drop"]), dtype=torch.float64)
    return float(rank_p(found, torch.tensor(list(largest.values()), dtype=torch.float64)))


def _largest_control(effects: pd.DataFrame) -> dict[str, Any]:
    """The largest drop of the random controls' means."""
    control = effects.loc[effects["arm"] == CONTROL]
    if control.empty:
        return {}
    ordered = control.sort_values("accuracy_drop", ascending=False, kind="stable")
    worst = ordered.to_dict(orient="records")[0]
    return {
        "largest_drop": worst["accuracy_drop"],
        "layer": worst["layer"],
        "strength": worst["strength"],
    }


def largest_drops(effects: pd.DataFrame, values: Sequence[str]) -> dict[str, dict[str, object]]:
    """For each value, the edit of a component chosen for it, or towards it, that costs most
    accuracy, beside its controls at the same layer, component and strength.
    """
    drops: dict[str, dict[str, object]] = {}
    same = (*TARGET_KEY, "strength")
    controls = {
        tuple(row[name] for name in same): row["accuracy_drop"]
        for row in effects.loc[effects["arm"] == CONTROL].to_dict(orient="records")
    }
    about = [
        (target,) if target else chosen_for
        for target, chosen_for in zip(effects["target_value"], effects["chosen_for"], strict=True)
    ]
    for value in values:
        chosen = np.array([value in names for names in about])
        targets = effects.loc[chosen & (effects["arm"] == TARGET)]
        if targets.empty:
            continue
        ordered = targets.sort_values("accuracy_drop", ascending=False, kind="stable")
        worst = ordered.to_dict(orient="records")[0]
        drops[value] = {
            **{name: worst[name] for name in LARGEST if name in worst},
            "control_drop": controls.get(tuple(worst[name] for name in same), float("nan")),
        }
    return drops


LARGEST = (
    "accuracy_drop",
    "accuracy_drop_passed",
    "baseline_accuracy",
    "n",
    *COMPONENT_COLUMNS,
    "strength",
)
"""What is said of a largest drop: no interval, which would not allow for its having been chosen."""
