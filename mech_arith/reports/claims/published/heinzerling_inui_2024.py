"""Few directions of partial least squares carry a number, and answers move monotonically along them."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    entry,
    layer_text,
    measured,
    rows,
    targets,
    untested,
    where_carried,
)
from mech_arith.statistics.independent import Measured

READS = "a line in four directions reads nine tenths of the variance of a"
MOVES = "the answer moves with a along them, and no problem's own line falls more often than one in five"
READ, WRONG_WAY = 0.9, 0.2


@CLAIMS.register("heinzerling_inui_2024")
def monotone(runs: Runs) -> list[Part]:
    """By R squared on problems that the fit has not seen, and by the slope of `set`."""
    carried = where_carried(targets(runs, "counterfactual", value="a"))
    if carried is None:
        return [untested(READS, NOT_CARRIED), untested(MOVES, NOT_CARRIED)]
    found = rows(runs, "subspaces", value="a", layer=carried["layer"])
    widest = found.loc[found["rank"].idxmax()]
    read = float(widest["decoding_r2"])
    parts = [
        Part(
            READS,
            Measured(number=read, low=read, high=read),
            read >= READ,
            {"a random function of the operands": widest["control_r2"]},
            f"{layer_text(widest)}, rank {int(widest['rank'])}",
        )
    ]
    site = {"layer": carried["layer"], "rank": widest["rank"], "value": "a"}
    row = targets(runs, "counterfactual", **site).iloc[0]
    slope = measured(row, "slope")
    random, valueless = (
        entry(rows(runs, "counterfactual", arm=arm, **site), "slope")
        for arm in ("control", "valueless")
    )
    beside = {
        "Kendall's tau": row["monotonicity"],
        "problems whose line falls": row["wrong_way"],
        "random subspaces": random,
        "directions without a value": valueless,
    }
    above = slope.low > max(0.0, random or 0.0, valueless or 0.0)
    parts.append(
        Part(MOVES, slope, bool(above and row["wrong_way"] <= WRONG_WAY), beside, layer_text(row))
    )
    return parts
