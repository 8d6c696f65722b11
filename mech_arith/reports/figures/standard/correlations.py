"""How components correlate with values."""

from collections.abc import Iterator

from mech_arith.reports.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
    single_positions,
)
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("correlations")
def correlations(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """A map for each position that is asked for, the best of all layers, and single positions."""
    named = {"title": title}
    table = tables["correlations"]
    single = single_positions(table)
    asked, each = table.loc[~single], table.loc[single]
    if asked.empty and each["position"].nunique() == 1:
        asked, each = each, asked
    for position, rows in asked.groupby("position", sort=False):
        several = asked["position"].nunique() > 1
        name = f"correlations_{position}" if several else "correlations"
        yield Drawing(name, correlation_heatmaps, (rows,), named)
    best = asked if len(asked) else each
    yield Drawing("best_correlations", best_correlation_map, (best,), named)
    if len(each):
        yield Drawing("positions", position_maps, (each,), named)
