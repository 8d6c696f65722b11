"""Few directions of partial least squares carry a number, and answers move along them."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    NOTHING_EDITED,
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

READS = "a line in these directions reads nine tenths of the variance of a"
MOVES = "the answer moves with a along them, and in at most one problem in five it falls"
READ, WRONG_WAY = 0.9, 0.2


@CLAIMS.register("heinzerling_inui_2024")
def monotone(runs: Runs) -> list[Part]:
    """By R squared on problems that the fit has not seen, and by the slope of `set`."""
    carried = where_carried(targets(runs, "counterfactual", value="a"))
    if carried is None:
        edited = targets(runs, "counterfactual", value="a")
        return untested(NOT_CARRIED if edited else NOTHING_EDITED, READS, MOVES)
    layer = carried["layer"]
    widest = largest(rows(runs, "subspaces", value="a", layer=layer), "rank")
    read = None if widest is None else known(widest, "decoding_r2")
    if widest is None or read is None:
        return untested("nothing reads a there", READS, MOVES)
    site = {"layer": layer, "rank": widest["rank"], "value": "a"}
    control = {"a random function of a": known(widest, "control_r2")}
    where = layer_of(widest, rank=True)
    reads = Part(READS, exact(read), read >= READ, control, where)
    row = largest(targets(runs, "counterfactual", **site), "slope_low")
    falls = None if row is None else known(row, "wrong_way")
    if row is None or falls is None:
        return [reads, *untested("answers have no slope, or there is one source alone", MOVES)]
    slope = measured(row, "slope")
    random, valueless = (
        first_number(rows(runs, "counterfactual", arm=arm, **site), "slope")
        for arm in ("control", "valueless")
    )
    beside = {
        "Kendall's tau": known(row, "monotonicity"),
        "problems in which it falls": falls,
        "iia": known(row, "iia"),
        "ceiling": known(row, "ceiling"),
        "random subspaces": random,
        "directions without a value": valueless,
    }
    holds = slope.low > most(random, valueless) and falls <= WRONG_WAY
    return [reads, Part(MOVES, slope, holds, beside, where)]
