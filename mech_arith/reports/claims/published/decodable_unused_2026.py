"""What can be decoded need not be used."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    known,
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
UNUSED = "no answer follows it along that direction, while the whole activation carries it"
CLEAR = 0.95


@CLAIMS.register("decodable_unused_2026")
def unused(runs: Runs) -> list[Part]:
    """By |R| beside iia and ceiling, in the direction of the linear probe."""
    best = where_carried(targets(runs, "counterfactual", value=VALUE, rank=1))
    if best is None:
        return untested(NOT_CARRIED, READ, UNUSED)
    evidence = rows(runs, "evidence", value=VALUE, layer=best["layer"], rank=1)[0]
    r, iia, floor = size(measured(evidence, "r")), measured(best, "iia"), known(best, "floor")
    follows = bool(evidence["iia_counts"]) and iia.low > most(floor)
    beside = {"floor": floor, "ceiling": known(best, "ceiling")}
    return [
        Part(READ, r, r.low >= CLEAR, where=layer_of(best)),
        Part(UNUSED, iia, not follows, beside, layer_of(best)),
    ]
