"""The sum is computed at the last token alone."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    entry,
    larger,
    layer_text,
    measured,
    targets,
    untested,
    where_carried,
)
from mech_arith.statistics.independent import Measured

SUM, LAST, FIRST_TOKEN = "a+b", "last", "token 0"
HERE = "the last token's whole activation brings the tens of another sum in some layer"
ELSEWHERE = "no other token's does so half as often, in any layer"


@CLAIMS.register("last_token_2025")
def alone(runs: Runs) -> list[Part]:
    """By how often the answer's first token, the tens, is the source's where one token's
    activation is. Sources of `a+b` may have any other numbers; some have the same tens.
    """
    found = targets(runs, "answer_tokens", value=SUM, token_name=FIRST_TOKEN)
    if found.empty:
        return [untested(HERE, "nothing was edited"), untested(ELSEWHERE, "nothing was edited")]
    best = where_carried(found[found["position"] == LAST])
    if best is None:
        return [untested(HERE, NOT_CARRIED), untested(ELSEWHERE, NOT_CARRIED)]
    number = measured(best, "ceiling")
    floor = entry(found[found["position"] == LAST], "floor")
    parts = [Part(HERE, number, number.low > (floor or 0.0), {"floor": floor}, layer_text(best))]
    others = found[found["position"] != LAST]
    if others.empty:
        return [*parts, untested(ELSEWHERE, "no other position was asked for")]
    other = others.loc[others["ceiling"].idxmax()]
    most = measured(other, "ceiling")
    half = Measured(number=number.number / 2, low=number.low / 2, high=number.high / 2)
    beside = {"the last token": number.number, "floor": other["floor"]}
    where = f"{layer_text(other)} at {other['position']}"
    return [*parts, Part(ELSEWHERE, most, larger(half, most).low > 0, beside, where)]

