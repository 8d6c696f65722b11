"""How far edits lead from what the model does by itself: from arrays to a table."""

from collections.abc import Sequence

import pandas as pd
import torch

from mech_arith.interventions.off_distribution import Departure, Spread
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan

LONG = 0.95
"""Share of the problems whose length grows by less than what `norm_ratio_p95` says."""


def off_distribution_table(
    results: Sequence[InterventionResult], departures: Sequence[Departure], plan: InterventionPlan
) -> pd.DataFrame:
    """A row per target and strength, over all problems and sources.

    Its numbers are those of `departure_columns`.
    """
    edit = {"edit": plan.edit.name, "strength_unit": plan.edit.unit}
    rows = []
    for one, departure in zip(results, departures, strict=True):
        columns = departure_columns(departure)
        for by, *numbers in zip(plan.strengths, *columns.values(), strict=True):
            found = dict(zip(columns, numbers, strict=True))
            rows.append({**one.key, **edit, "strength": by, "n": len(one.rows), **found})
    return pd.DataFrame(rows)


def departure_columns(departure: Departure) -> dict[str, list[float] | list[str]]:
    """Where a dose leads, by strength, over all problems and sources.

    Returns:
        What `spread_columns` says, and:
        `norm_ratio`, `norm_ratio_median`, `norm_ratio_p95`: mean, median and 95th percentile of the
        edited activation's length over the clean one's;
        `dose_left`: mean share of the dose that the next normalisation leaves, where something is
        moved; NaN where nothing is, or no normalisation follows, which `reason` then says.
    """
    ratio = departure.length.transpose(0, 1).flatten(1)
    moved = departure.dose.moves.transpose(0, 1).flatten(1)
    if departure.left is None:
        left = torch.full_like(ratio, torch.nan)
        unread = f"nothing normalises the stream that {departure.dose.site.point} moves"
    else:
        left, unread = departure.left.transpose(0, 1).flatten(1), ""
    return {
        **spread_columns(departure.spread),
        "norm_ratio": ratio.mean(1).tolist(),
        "norm_ratio_median": ratio.quantile(0.5, dim=1).tolist(),
        "norm_ratio_p95": ratio.quantile(LONG, dim=1).tolist(),
        "dose_left": torch.where(moved, left, torch.nan).nanmean(1).tolist(),
        "reason": [
            unread or ("" if some else "no problem is moved") for some in moved.any(1).tolist()
        ],
    }


def spread_columns(spread: Spread) -> dict[str, list[float]]:
    """How the edited coordinates lie to the observed ones, by strength.

    Returns:
        `outside_range`: share of edited coordinates outside [min, max] of the observed ones;
        `mahalanobis`: mean distance of the edited problems, over that of the same problems
        unedited;
        `beyond_99`: share of edited problems with a distance above the 99th percentile of the
        observed ones. Without a change it is about .01, for there are clean problems beyond it too.
    """
    return {
        "outside_range": spread.outside.double().mean((0, 2)).tolist(),
        "mahalanobis": (spread.distance.mean((0, 2)) / spread.clean_distance.mean()).tolist(),
        "beyond_99": (spread.distance > spread.far).double().mean((0, 2)).tolist(),
    }
