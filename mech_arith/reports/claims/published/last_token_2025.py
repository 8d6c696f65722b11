"""The sum is computed at the last token alone."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    larger,
    layer_text,
    measured,
    targets,
    untested,
    where_carried,
)
from mech_arith.statistics.independent import Measured

SUM, LAST = "a+b", "last"
HERE = "the last token's whole activation carries the sum in some layer"
ELSEWHERE = "no other token's does by half as much, in any layer"


@CLAIMS.register("last_token_2025")
def alone(runs: Runs) -> list[Part]:
    """By ceilings: how often the answer is the source's where one token's activation is."""
    found = targets(runs, "counterfactual", value=SUM)
    if found.empty:
        return [untested(HERE, "nothing was edited"), untested(ELSEWHERE, "nothing was edited")]
    best = where_carried(found[found["position"] == LAST])
    if best is None:
        return [untested(HERE, NOT_CARRIED), untested(ELSEWHERE, NOT_CARRIED)]
    number = measured(best, "ceiling")
    parts = [
        Part(HERE, number, number.low > best["floor"], {"floor": best["floor"]}, layer_text(best))
    ]
    others = found[found["position"] != LAST]
    if others.empty:
        return [*parts, untested(ELSEWHERE, "no other position")]
    other = others.loc[others["ceiling"].idxmax()]
    most = measured(other, "ceiling")
    half = Measured(number=number.number / 2, low=number.low / 2, high=number.high / 2)
    where = f"{layer_text(other)} at {other['position']}"
    beside = {"floor": other["floor"], "the last token": number.number}
    return [*parts, Part(ELSEWHERE, most, larger(half, most).low > 0, beside, where)]
