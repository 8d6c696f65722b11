"""Does a direction carry its value alone? Each value's direction x each value's change."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.evidence.counterfactual import following, mean_slope
from mech_arith.evidence.metrics import exact, settled
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.interchange import Crossed
from mech_arith.problems.sources import Sources
from mech_arith.statistics import share_interval


def specificity_table(
    crossed: Sequence[Crossed], every: Mapping[str, Sources], scorer: Scorer
) -> pd.DataFrame:
    """A row per direction and changed value.

    If a direction carries its value alone, the answer follows the changes of that value, and of
    those that it is computed from.
    """
    return pd.DataFrame([_row(one, every[one.changed], scorer) for one in crossed])


def _row(one: Crossed, sources: Sources, scorer: Scorer) -> dict[str, Any]:
    along = one.along
    scorer = scorer.of(sources.rows)
    clean = scorer.clean.numbers
    edited = settled(one.numbers[:, sources.rows], clean)
    fitted = following(edited, clean, sources)
    slope = mean_slope([fitted], edited[None], clean, scorer.how, drawn=False)
    hits = exact(edited, sources.expected, tolerance=scorer.tolerance).double().mean(0)
    ends = share_interval(hits, scorer.how)
    return {
        **along.site.columns(),
        "component": along.target.component,
        "rank": along.target.rank,
        "direction_of": along.target.chosen_for,
        "changed": sources.value,
        "slope": float(slope.mean),
        "slope_low": float(slope.low),
        "slope_high": float(slope.high),
        "r2_change": fitted.r2,
        "iia": float(hits.mean()),
        "iia_low": float(ends.low),
        "iia_high": float(ends.high),
        "n": len(sources.rows),
        "n_sources": len(sources.problems),
    }
