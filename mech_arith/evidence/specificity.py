"""Does a direction carry its value alone? Each value's direction x each value's change."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from mech_arith.evidence.counterfactual import following_each, mean_slope
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
    rows: dict[int, dict[str, Any]] = {}
    for value, sources in every.items():
        places = [place for place, one in enumerate(crossed) if one.changed == value]
        if places:
            of_value = _rows([crossed[place] for place in places], sources, scorer)
            rows |= dict(zip(places, of_value, strict=True))
    return pd.DataFrame([rows[place] for place in range(len(crossed))])


def _rows(crossed: Sequence[Crossed], sources: Sources, scorer: Scorer) -> Iterator[dict[str, Any]]:
    """Of all directions under the changes of one value."""
    scorer = scorer.of(sources.rows)
    clean = scorer.clean.numbers
    edited = settled(torch.stack([one.numbers[:, sources.rows] for one in crossed]), clean)
    fitted = following_each(edited, clean, sources)
    slopes = torch.stack([one.by_problem for one in fitted])
    slope = mean_slope(slopes[:, None], edited[:, None], clean, scorer.how, drawn=False)
    hits = exact(edited, sources.expected, tolerance=scorer.tolerance).double().mean(1)
    ends = share_interval(hits, scorer.how)
    for place, one in enumerate(crossed):
        yield {
            **one.along.site.columns(),
            "component": one.along.target.component,
            "rank": one.along.target.rank,
            "direction_of": one.along.target.chosen_for,
            "changed": sources.value,
            "slope": float(slope.mean[place]),
            "slope_low": float(slope.low[place]),
            "slope_high": float(slope.high[place]),
            "r2_change": fitted[place].r2,
            "iia": float(hits[place].mean()),
            "iia_low": float(ends.low[place]),
            "iia_high": float(ends.high[place]),
            "n": len(sources.rows),
            "n_sources": len(sources.problems),
        }
