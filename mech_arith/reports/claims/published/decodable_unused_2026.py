"""What can be decoded need not be used."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    layer_text,
    measured,
    targets,
    untested,
    where_carried,
)
from mech_arith.reports.claims.base import rows as table_rows
from mech_arith.statistics.independent import Measured

VALUE = "b-c"
READ = "a line reads b-c there (|R| of .95 or more)"
UNUSED = "no answer follows it along that direction, while the whole activation carries it"
CLEAR = 0.95


@CLAIMS.register("decodable_unused_2026")
def unused(runs: Runs) -> list[Part]:
    """By |R| beside iia and ceiling, in the direction of the linear probe."""
    best = where_carried(targets(runs, "counterfactual", value=VALUE, rank=1))
    if best is None:
        return [untested(READ, NOT_CARRIED), untested(UNUSED, NOT_CARRIED)]
    evidence = table_rows(runs, "evidence", value=VALUE, layer=best["layer"], rank=1).iloc[0]
    r = measured(evidence, "r")
    size = r if r.number >= 0 else Measured(number=-r.number, low=-r.high, high=-r.low)
    iia = measured(best, "iia")
    beside = {"floor": best["floor"], "ceiling": best["ceiling"]}
    follows = iia.low > best["floor"] and bool(evidence["iia_counts"])
    return [
        Part(READ, size, size.low >= CLEAR, where=layer_text(best)),
        Part(UNUSED, iia, not follows, beside, layer_text(best)),
    ]
