"""What can be decoded need not be used."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    known,
    largest,
    layer_of,
    measured,
    most,
    rows,
    size,
    targets,
    untested,
    where_carried,
)

VALUE = "b-c"
READ = "a line reads b-c there (|R| of .95 or more)"
UNUSED = (
    "answers follow it along that direction a tenth as often as by the whole activation at most"
)
CLEAR, FEW = 0.95, 0.1


@CLAIMS.register("decodable_unused_2026")
def unused(runs: Runs) -> list[Part]:
    """By |R| beside iia and ceiling, in the direction of the linear probe."""
    best = where_carried(targets(runs, "counterfactual", value=VALUE, rank=1))
    if best is None:
        return untested(NOT_CARRIED, READ, UNUSED)
    evidence = largest(rows(runs, "evidence", value=VALUE, layer=best["layer"], rank=1), "layer")
    if evidence is None:
        return untested("no direction of it was found", READ, UNUSED)
    r, iia, ceiling = size(measured(evidence, "r")), measured(best, "iia"), known(best, "ceiling")
    beside = {"floor": known(best, "floor"), "ceiling": ceiling}
    return [
        Part(READ, r, r.low >= CLEAR, where=layer_of(best)),
        Part(UNUSED, iia, iia.high < FEW * most(ceiling), beside, layer_of(best)),
    ]
