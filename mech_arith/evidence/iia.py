"""How often and how far answers follow the wanted value: from edits towards values to a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.evidence.counterfactual import iia
from mech_arith.evidence.metrics import exact
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.verdicts import layers_text, unable
from mech_arith.interventions.controls import DRAWN, TARGET
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems.sources import Sources
from mech_arith.statistics import ALPHA, draws_needed, holm, least_p, share_interval

CEILING_REASON = "a source differs in more than the value"
"""Why there is no ceiling, where there is none."""


def iia_rows(
    results: InterventionResult,
    sources: Sources,
    ceiling: Float64[Tensor, " n"],
    plan: InterventionPlan,
    scorer: Scorer,
) -> list[dict[str, Any]]:
    """A row per arm and strength: how far the answers follow the wanted values.

    Args:
        results: the edits towards the sources.
        sources: what they go towards.
        ceiling: the answers with the whole activation of the first source.
        plan: what was done.
        scorer: of all edited problems.
    """
    scorer = scorer.of(results.rows)
    bound = ceiling_fields(ceiling, sources, scorer)
    return [
        {
            **results.key,
            "value": sources.value,
            "edit": plan.edit.name,
            "strength": strength,
            "arm": arm.name,
            "n_directions": len(arm.frames),
            "n": len(results.rows),
            "n_sources": len(sources.problems),
            **asdict(
                iia(
                    answers.numbers[:, :, index],
                    scorer.clean.numbers,
                    sources,
                    tolerance=scorer.tolerance,
                    how=scorer.how,
                    drawn=arm.name in DRAWN,
                )
            ),
            **bound,
        }
        for arm, answers in results.by_arm()
        for index, strength in enumerate(plan.strengths)
    ]


def ceiling_fields(
    ceiling: Float64[Tensor, " n"], sources: Sources, scorer: Scorer
) -> dict[str, float | str]:
    """NaN where a source differs from its base in more than the value."""
    if not sources.replaces_the_value_alone:
        nothing = dict.fromkeys(("ceiling", "ceiling_low", "ceiling_high"), float("nan"))
        return {**nothing, "ceiling_reason": CEILING_REASON}
    hits = exact(ceiling, sources.expected[0], tolerance=scorer.tolerance).double()
    ends = share_interval(hits, scorer.how)
    return {
        "ceiling": float(hits.mean()),
        "ceiling_low": float(ends.low),
        "ceiling_high": float(ends.high),
        "ceiling_reason": "",
    }


def iia_table(done: InterventionRun, plan: InterventionPlan, scorer: Scorer) -> pd.DataFrame:
    """How far answers follow the wanted values, beside chance and the whole activation.

    A row per site, value, arm and strength, with p of the targets corrected for all sites and
    values of one strength (Holm).
    """
    rows = []
    for one in done.results:
        value = one.target.target_value
        ceiling = done.ceilings[value, one.site].numbers
        rows += iia_rows(one, done.sources[value], ceiling, plan, scorer)
    return _corrected(rows)


def _corrected(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with `p_holm`."""
    p_holm = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for strength in {row["strength"] for row in rows}:
        places = [
            place
            for place, row in enumerate(rows)
            if row["arm"] == TARGET and row["strength"] == strength
        ]
        p_holm[places] = holm(torch.tensor([rows[i]["p"] for i in places], dtype=torch.float64))
    corrected = zip(rows, p_holm.tolist(), strict=True)
    return pd.DataFrame([{**row, "p_holm": p} for row, p in corrected])


def unresolved(counterfactual: pd.DataFrame, n_shuffles: int) -> list[str]:
    """Where there are too many tests for any of them to come out, however often answers agree."""
    rows = [row for row in counterfactual.to_dict(orient="records") if row["arm"] == TARGET]
    n_tests = max(Counter(row["strength"] for row in rows).values(), default=0)
    return too_few_draws(n_tests, n_shuffles)


def too_few_draws(n_tests: int, n_shuffles: int) -> list[str]:
    """A message where so many tests are too many for so many draws of chance."""
    least = least_p(n_shuffles, n_tests=n_tests)
    if least <= ALPHA:
        return []
    return [
        f"p of IIA (interchange-intervention accuracy), corrected for {n_tests} tests, is "
        f"{least:.2g} at least with {n_shuffles} draws of chance: raise inference.permutations to "
        f"{draws_needed(ALPHA, n_tests=n_tests)}"
    ]


def unable_sites(counterfactual: pd.DataFrame) -> list[str]:
    """Where no coordinate could make the answer follow, since the whole activation does not."""
    rows = [row for row in counterfactual.to_dict(orient="records") if row["arm"] == TARGET]
    known = [row for row in rows if unable(row)]
    if not known:
        return []
    layers = layers_text(row["layer"] for row in known)
    return [
        f"answers do not follow a value even where the whole activation is taken from its source, "
        f"in {len(known)} of {len(rows)} cases ({layers}): IIA "
        "(interchange-intervention accuracy) says nothing there, for what is written later reads "
        "the value elsewhere"
    ]
