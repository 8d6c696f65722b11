"""The figures of every run, each where the run has the rows for it."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.evidence.results import slopes_at_best
from mech_arith.reports.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
    single_positions,
)
from mech_arith.reports.figures.counterfactual import (
    counterfactual_iia,
    iias_drawn,
    specificity_maps,
)
from mech_arith.reports.figures.drops import accuracy_by_layer
from mech_arith.reports.figures.effects import SHIFT, dose_response
from mech_arith.reports.figures.evidence import evidence_maps
from mech_arith.reports.figures.locality import locality_distance, locality_example
from mech_arith.reports.figures.registered import Drawing, Tables, figure, figures


@figures("correlations")
def _correlations(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """A map for each position that is asked for, the best of all layers, and single positions."""
    named = {"title": title}
    correlations = tables["correlations"]
    single = single_positions(correlations)
    asked, each = correlations.loc[~single], correlations.loc[single]
    if asked.empty and each["position"].nunique() == 1:
        asked, each = each, asked
    for position, table in asked.groupby("position", sort=False):
        several = asked["position"].nunique() > 1
        name = f"correlations_{position}" if several else "correlations"
        yield Drawing(name, correlation_heatmaps, (table,), named)
    best = asked if len(asked) else each
    yield Drawing("best_correlations", best_correlation_map, (best,), named)
    if len(each):
        yield Drawing("positions", position_maps, (each,), named)


figure("evidence", needs=("evidence",))(evidence_maps)


@figures("effects")
def _effects(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """What edits do to accuracy and to answers."""
    effects = tables.get("effects", pd.DataFrame())
    if not len(effects):
        return
    heading = {"title": title, "level": level}
    off_distribution, contrasts, draws = (
        tables.get(name) for name in ("off_distribution", "contrasts", "control_draws")
    )
    of_strength = (effects, off_distribution)
    yield Drawing("dose_response", dose_response, of_strength, heading)
    yield Drawing("mean_shift", dose_response, of_strength, heading | {"response": SHIFT})
    yield Drawing("accuracy_by_layer", accuracy_by_layer, (effects, contrasts, draws), heading)


@figures("answers")
def _towards(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """What edits towards other values do to answers."""
    evidence = tables.get("evidence", pd.DataFrame())
    answers = tables.get("counterfactual", pd.DataFrame())
    if len(answers) and len(iias_drawn(answers, evidence)):
        about = {"title": title, "level": level}
        yield Drawing("counterfactual", counterfactual_iia, (answers, evidence), about)
    slopes = tables.get("specificity", pd.DataFrame())
    if len(slopes) and len(slopes_at_best(slopes, evidence)):
        yield Drawing("specificity", specificity_maps, (slopes, evidence), {"title": title})


@figures("locality")
def _locality(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """The paper's locality test."""
    curves = tables.get("locality_curves", pd.DataFrame())
    if len(curves):
        yield Drawing("locality_example", locality_example, (curves,), {"title": title})
        if "distance" in set(curves["kind"]):
            yield Drawing("locality_distance", locality_distance, (curves,), {"title": title})
