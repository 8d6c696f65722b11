"""Few directions of partial least squares carry a number, and answers move along them."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    exact,
    first_number,
    known,
    largest,
    layer_of,
    measured,
    most,
    rows,
    targets,
    untested,
    where_carried,
)

READS = "a line in four directions reads nine tenths of the variance of a"
MOVES = "the answer moves with a along them, and in at most one problem in five it falls"
READ, WRONG_WAY = 0.9, 0.2


@CLAIMS.register("heinzerling_inui_2024")
def monotone(runs: Runs) -> list[Part]:
    """By R squared on problems that the fit has not seen, and by the slope of `set`."""
    carried = where_carried(targets(runs, "counterfactual", value="a"))
    if carried is None:
        return untested(NOT_CARRIED, READS, MOVES)
    layer = carried["layer"]
    widest = largest(rows(runs, "subspaces", value="a", layer=layer), "rank")
    assert widest is not None
    read, rank = float(widest["decoding_r2"]), int(widest["rank"])
    control = {"a random function of the operands": known(widest, "control_r2")}
    reads = Part(READS, exact(read), read >= READ, control, f"{layer_of(widest)}, rank {rank}")
    site = {"layer": layer, "rank": rank, "value": "a"}
    row = targets(runs, "counterfactual", **site)[0]
    slope = measured(row, "slope")
    random, valueless = (
        first_number(rows(runs, "counterfactual", arm=arm, **site), "slope")
        for arm in ("control", "valueless")
    )
    beside = {
        "Kendall's tau": known(row, "monotonicity"),
        "problems in which it falls": known(row, "wrong_way"),
        "random subspaces": random,
        "directions without a value": valueless,
    }
    holds = slope.low > most(random, valueless) and row["wrong_way"] <= WRONG_WAY
    return [reads, Part(MOVES, slope, bool(holds), beside, f"{layer_of(row)}, rank {rank}")]
