"""A helix beats as many principal components."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    cells_of,
    entry,
    larger,
    layer_text,
    measured,
    rows,
    targets,
    untested,
    where_carried,
)

SAYS = "answers follow a through its helix more often than through as many principal components"


@CLAIMS.register("kantamneni_tegmark_2025")
def helix(runs: Runs) -> list[Part]:
    """By iia where the whole activation carries most, at the same rank."""
    helices, components = (cells_of(runs, tracing=name) for name in ("fourier", "pca"))
    best = where_carried(targets(helices, "counterfactual", value="a"))
    if best is None:
        return [untested(SAYS, NOT_CARRIED)]
    site = {"layer": best["layer"], "rank": best["rank"]}
    rivals = targets(components, "counterfactual", value="a", **site)
    if rivals.empty:
        return [untested(SAYS, "no cell of tracing=pca at that layer and rank")]
    ours, theirs = measured(best, "iia"), measured(rivals.iloc[0], "iia")
    drawn = rows(helices, "counterfactual", value="a", arm="control", **site)
    beside = {
        f"principal components, rank {int(best['rank'])}": theirs.number,
        "random subspaces": entry(drawn, "iia"),
        "floor": best["floor"],
        "ceiling": best["ceiling"],
    }
    return [Part(SAYS, ours, larger(ours, theirs).low > 0, beside, layer_text(best))]
