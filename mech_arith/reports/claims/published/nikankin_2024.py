"""Few neurons of an MLP carry what all of them do."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOTHING_EDITED,
    Part,
    Row,
    Runs,
    first_number,
    known,
    largest,
    measured,
    most,
    rows,
    targets,
    untested,
    where_carried,
)

TENS, UNITS = "token 0", "token 1"
ONE_TOKEN = "answers are one token; the test reads the digits of two"
SAYS = "few neurons of one MLP bring the tens of the sum four fifths as often as all of them do"
SHARE = 0.8
NO_LAYER = (
    "no MLP by itself brings the tens of another sum in a fifth of the answers ({:.2f} at most)"
)


@CLAIMS.register("nikankin_2024")
def few(runs: Runs) -> list[Part]:
    """By iia in the token of the tens, of the sources that want another one.

    In the layer whose whole MLP brings it most often.
    """
    found = targets(runs, "answer_tokens", value="a+b", token_name=TENS)
    if not found:
        return untested(NOTHING_EDITED, SAYS)
    best = where_carried(found, "ceiling_changed")
    if best is None:
        top = largest(found, "ceiling_changed")
        return untested(NO_LAYER.format(known(top or {}, "ceiling_changed") or 0.0), SAYS)
    if not targets(runs, "answer_tokens", value="a+b", token_name=UNITS):
        return untested(ONE_TOKEN, SAYS)
    site = {"layer": best["layer"], "rank": best["rank"], "value": "a+b", "token_name": TENS}
    drawn = first_number(rows(runs, "answer_tokens", arm="control", **site), "iia_changed")
    number, whole = measured(best, "iia_changed"), float(best["ceiling_changed"])
    beside = {"all neurons": whole, "random subspaces": drawn}
    holds = number.number >= SHARE * whole and number.low > most(drawn)
    return [Part(SAYS, number, holds, beside, _where(best))]


def _where(row: Row) -> str:
    return f"layer {int(row['layer'])}, {int(row['rank'])} neurons"
