"""Few neurons of an MLP carry what all of them do."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
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

TENS = "token 0"
SAYS = "73 of 4,864 neurons (1.5%) of one MLP bring the tens of the sum four fifths as often as all of them"
SHARE = 0.8
NO_LAYER = "no single MLP brings the tens of another sum in a fifth of the answers or more"


@CLAIMS.register("nikankin_2024")
def few(runs: Runs) -> list[Part]:
    """By iia in the token of the tens, of the sources that want another one."""
    found = targets(runs, "answer_tokens", value="a+b", token_name=TENS)
    if "ceiling_changed" in found:
        found = found.assign(ceiling=found["ceiling_changed"])
    best = where_carried(found)
    if best is None:
        most = found["ceiling"].max() if "ceiling" in found else None
        return [untested(SAYS, NO_LAYER, beside={"all neurons": most})]
    site = {"layer": best["layer"], "rank": best["rank"], "value": "a+b", "token_name": TENS}
    drawn = entry(rows(runs, "answer_tokens", arm="control", **site), "iia_changed")
    number = measured(best, "iia_changed")
    whole = float(best["ceiling"])
    beside = {"all neurons": whole, "random subspaces": drawn}
    wanted = Measured(number=SHARE * whole, low=SHARE * whole, high=SHARE * whole)
    return [
        Part(
            SAYS,
            number,
            number.high >= wanted.number and number.low > (drawn or 0.0),
            beside,
            layer_text(best),
        )
    ]
