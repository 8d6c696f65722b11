"""Which head, or other site of a layer, carries a value more than the layer's other sites do."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.evidence.metrics import exact, settled
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.edits.base import WHOLE_WAY
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems.sources import Sources
from mech_arith.statistics import paired_interval
from mech_arith.statistics.paired import paired_p


def site_contrast_table(
    done: InterventionRun, plan: InterventionPlan, scorer: Scorer
) -> pd.DataFrame:
    """A row per value, rank and site: its IIA minus the mean IIA of the layer's other sites.

    On the same problems, the whole way to the value. Empty where no layer has several sites.
    """
    if WHOLE_WAY not in plan.strengths:
        return pd.DataFrame()
    at = plan.strengths.index(WHOLE_WAY)
    groups: dict[tuple[Any, ...], list[InterventionResult]] = {}
    for one in done.results:
        value = one.target.target_value
        if value in one.target.chosen_for:
            place = (value, one.site.layer, one.site.point, one.target.rank)
            groups.setdefault(place, []).append(one)
    rows, differences = [], []
    for (value, *_), sites in groups.items():
        if len(sites) < 2:
            continue
        hits = torch.stack([_hits(one, done.sources[value], at, scorer) for one in sites])
        beyond = _beyond_others(hits)
        low, high = paired_interval(beyond, scorer.how)
        for place, one in enumerate(sites):
            rows.append(
                {
                    **one.key,
                    "value": value,
                    "edit": plan.edit.name,
                    "strength": WHOLE_WAY,
                    "n": len(one.rows),
                    "n_others": len(sites) - 1,
                    "iia": float(hits[place].mean()),
                    "others_iia": float((hits[place] - beyond[place]).mean()),
                    "difference": float(beyond[place].mean()),
                    "low": float(low[place]),
                    "high": float(high[place]),
                }
            )
            differences.append(_at_rows(beyond[place], one, len(scorer.right)))
    return _with_p(rows, differences, scorer)


def _hits(
    one: InterventionResult, sources: Sources, strength: int, scorer: Scorer
) -> Float64[Tensor, " n"]:
    """Share of each problem's sources whose answer the target's edit gives."""
    clean = scorer.of(one.rows).clean.numbers
    edited = settled(one.target_answers.numbers[:, :, strength], clean)
    return exact(edited, sources.expected, tolerance=scorer.tolerance).double().mean((0, 1))


def _beyond_others(hits: Float64[Tensor, "sites n"]) -> Float64[Tensor, "sites n"]:
    """Each site's hits minus the mean of the others', problem by problem."""
    others = (hits.sum(0) - hits) / (len(hits) - 1)
    return hits - others


def _at_rows(
    numbers: Float64[Tensor, " n"], one: InterventionResult, n_edited: int
) -> Float64[Tensor, " all"]:
    """At their places among all edited problems; 0 where the value has no source."""
    found = numbers.new_zeros(n_edited)
    found[one.rows] = numbers
    return found


def _with_p(
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[Float64[Tensor, " all"]],
    scorer: Scorer,
) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame()
    found = paired_p(torch.stack(list(differences)), scorer.how)
    return pd.DataFrame(rows).assign(p=found.p.tolist(), p_max=found.p_max.tolist())
