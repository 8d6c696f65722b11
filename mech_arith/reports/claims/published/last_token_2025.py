"""The sum is computed at the last token alone."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    Part,
    Runs,
    known,
    larger,
    largest,
    layer_of,
    measured,
    most,
    targets,
    untested,
    where_carried,
)
from mech_arith.statistics.independent import Measured

SUM, LAST, TENS = "a+b", "last", "token 0"
HERE = "the last token's whole activation brings the tens of another sum in some layer"
ELSEWHERE = "no other token's does so half as often, in any layer"


@CLAIMS.register("last_token_2025")
def alone(runs: Runs) -> list[Part]:
    """By how often the answer's first token, the tens, is the source's where one token's
    activation is. Sources may have any other numbers; some have the same tens (the floor).
    """
    found = targets(runs, "answer_tokens", value=SUM, token_name=TENS)
    best = where_carried([row for row in found if row["position"] == LAST])
    if best is None:
        return untested(NOT_CARRIED, HERE, ELSEWHERE)
    number, floor = measured(best, "ceiling"), known(best, "floor")
    here = Part(HERE, number, number.low > most(floor), {"floor": floor}, layer_of(best))
    other = largest([row for row in found if row["position"] != LAST], "ceiling")
    if other is None:
        return [here, *untested("no other position was asked for", ELSEWHERE)]
    highest = measured(other, "ceiling")
    half = Measured(number=number.number / 2, low=number.low / 2, high=number.high / 2)
    beside = {"the last token": number.number, "floor": known(other, "floor")}
    where = f"{layer_of(other)} at {other['position']}"
    return [here, Part(ELSEWHERE, highest, larger(half, highest).low > 0, beside, where)]
