"""How components correlate with values."""

from collections.abc import Iterator

from mech_arith.engine.sites import WITHIN_LAYER
from mech_arith.reports.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
    single_positions,
)
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("correlations")
def correlations(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """A map for each position and head that is asked for, the best of all layers, and positions."""
    named = {"title": title}
    table = tables["correlations"]
    single = single_positions(table)
    asked, each = table.loc[~single], table.loc[single]
    if asked.empty and each["position"].nunique() == 1:
        asked, each = each, asked
    several = [name for name in WITHIN_LAYER if asked[name].nunique() > 1]
    for _, rows in asked.groupby(list(WITHIN_LAYER), sort=False):
        of_head = f"head_{rows['head'].iloc[0]}"
        said = [of_head if name == "head" else str(rows[name].iloc[0]) for name in several]
        yield Drawing("_".join(["correlations", *said]), correlation_heatmaps, (rows,), named)
    best = asked if len(asked) else each
    yield Drawing("best_correlations", best_correlation_map, (best,), named)
    if len(each):
        yield Drawing("positions", position_maps, (each,), named)
