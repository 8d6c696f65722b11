"""A helix beats as many principal components."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    NOTHING_EDITED,
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
    """By iia at the same rank, in every layer whose whole activation carries a."""
    helices, components = (cells_of(runs, tracing=name) for name in ("fourier", "pca"))
    found = targets(helices, "counterfactual", value="a")
    if not found:
        return untested(NOTHING_EDITED, SAYS)
    parts = []
    for row in sorted(found, key=lambda row: (row["layer"], row["rank"])):
        says = f"{SAYS}, in {layer_of(row)}"
        site = {"layer": row["layer"], "rank": row["rank"], "value": "a"}
        rivals = targets(components, "counterfactual", **site)
        if where_carried([row]) is None or not rivals:
            lacking = "there is no cell of tracing=pca at that layer and rank"
            parts += untested(lacking if not rivals else NOT_CARRIED, says)
            continue
        ours, theirs = measured(row, "iia"), measured(rivals[0], "iia")
        drawn = rows(helices, "counterfactual", arm="control", **site)
        beside = {
            "principal components": theirs.number,
            "random subspaces": first_number(drawn, "iia"),
            "floor": known(row, "floor"),
            "ceiling": known(row, "ceiling"),
        }
        holds = larger(ours, theirs).low > 0
        parts.append(Part(says, ours, holds, beside, layer_of(row, rank=True)))
    return parts
