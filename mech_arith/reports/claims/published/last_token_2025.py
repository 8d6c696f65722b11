"""The sum is computed at the last token alone."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
    NOTHING_EDITED,
    Part,
    Row,
    Runs,
    larger,
    largest,
    layer_of,
    share,
    targets,
    untested,
    where_carried,
)
from mech_arith.statistics.independent import Measured

SUM, LAST, TENS, UNITS, FIRST = "a+b", "last", "token 0", "token 1", "a"
HERE = "the last token's whole activation brings the tens of another sum in some layer"
ELSEWHERE = "no other token from the second number on does so half as often, in any layer tried"
ONE_TOKEN = "answers are one token; the test reads the digits of two"


@CLAIMS.register("last_token_2025")
def alone(runs: Runs) -> list[Part]:
    """By how often the answer's first token, the tens, is the source's where one token's
    activation is: of sources with two other numbers whose sum has other tens.

    What stands before the second number cannot hold the sum, and is not asked.
    """
    found = targets(runs, "answer_tokens", value=SUM, token_name=TENS)
    if not found:
        return untested(NOTHING_EDITED, HERE, ELSEWHERE)
    if not targets(runs, "answer_tokens", value=SUM, token_name=UNITS):
        return untested(ONE_TOKEN, HERE, ELSEWHERE)
    best = where_carried([row for row in found if row["position"] == LAST], "ceiling_changed")
    if best is None:
        return untested(NOT_CARRIED, HERE, ELSEWHERE)
    number = _carried(best)
    other = largest(
        [row for row in found if row["position"] not in (LAST, FIRST)], "ceiling_changed"
    )
    if other is None:
        here = Part(HERE, number, True, {}, layer_of(best))
        return [here, *untested("no other position was asked for", ELSEWHERE)]
    highest = _carried(other)
    here = Part(HERE, number, larger(number, highest).low > 0, {}, layer_of(best))
    half = Measured(number=number.number / 2, low=number.low / 2, high=number.high / 2)
    where = f"{layer_of(other)} at {other['position']}"
    beside = {"the last token": number.number}
    return [here, Part(ELSEWHERE, highest, larger(half, highest).low > 0, beside, where)]


def _carried(row: Row) -> Measured:
    """Of the sources that want other tens."""
    return share(row, "ceiling_changed", "n_changed")
