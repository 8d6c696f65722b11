"""A helix beats as many principal components."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    cells_of,
    first_number,
    known,
    larger,
    layer_of,
    measured,
    rows,
    targets,
    untested,
    where_carried,
)

SAYS = "answers follow a through its helix more often than through as many principal components"


@CLAIMS.register("kantamneni_tegmark_2025")
def helix(runs: Runs) -> list[Part]:
    """By iia in the layer whose whole activation carries most, at the same rank."""
    helices, components = (cells_of(runs, tracing=name) for name in ("fourier", "pca"))
    best = where_carried(targets(helices, "counterfactual", value="a"))
    if best is None:
        return untested(NOT_CARRIED, SAYS)
    site = {"layer": best["layer"], "rank": best["rank"], "value": "a"}
    rivals = targets(components, "counterfactual", **site)
    if not rivals:
        return untested("there is no cell of tracing=pca at that layer and rank", SAYS)
    ours, theirs = measured(best, "iia"), measured(rivals[0], "iia")
    beside = {
        f"{int(best['rank'])} principal components": theirs.number,
        "random subspaces": first_number(
            rows(helices, "counterfactual", arm="control", **site), "iia"
        ),
        "floor": known(best, "floor"),
        "ceiling": known(best, "ceiling"),
    }
    return [Part(SAYS, ours, larger(ours, theirs).low > 0, beside, layer_of(best))]
