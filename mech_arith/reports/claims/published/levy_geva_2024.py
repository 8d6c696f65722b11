"""The circle of ten of a digit moves that digit."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOTHING_EDITED,
    Part,
    Row,
    Runs,
    first_number,
    known,
    largest,
    layer_of,
    measured,
    most,
    rows,
    targets,
    untested,
)

DIGIT, TENS, UNITS = "a_ones", "token 1", "token 2"
WHOLE = "another ones digit of a, set on its circle of ten, gives the answer for that digit"
UNIT = "it gives the ones digit of that answer"
CARRY = "it gives the tens digit of that answer, where another carry makes it another"
CHANCE = 0.05


@CLAIMS.register("levy_geva_2024")
def circle(runs: Runs) -> list[Part]:
    """By iia of the step `a_ones`: the answer with this digit replaced and all else kept.

    In the layer where it is largest, with p corrected for all layers. The whole activation is no
    ceiling: it brings the other digits of the source too. Tokens are those of answers from 100 on.
    """
    best = largest(targets(runs, "counterfactual", value=DIGIT), "iia")
    if best is None:
        return untested(NOTHING_EDITED, WHOLE, UNIT, CARRY)
    site = {"layer": best["layer"], "rank": best["rank"], "value": DIGIT}
    drawn = first_number(rows(runs, "counterfactual", arm="control", **site), "iia")
    beside = {"random subspaces": drawn, "floor": known(best, "floor")}
    parts = [_part(WHOLE, best, "iia", "p_holm", beside)]
    for says, name in ((UNIT, UNITS), (CARRY, TENS)):
        token = largest(targets(runs, "answer_tokens", token_name=name, **site), "iia_changed")
        if token is None or not rows(runs, "answer_tokens", token_name=UNITS):
            parts += untested("answers have no third token, or none is to be another", says)
            continue
        controls = rows(runs, "answer_tokens", arm="control", token_name=name, **site)
        drawn = first_number(controls, "iia_changed")
        parts.append(_part(says, token, "iia_changed", "p_max", {"random subspaces": drawn}))
    return parts


def _part(says: str, row: Row, name: str, p: str, beside: dict[str, float | None]) -> Part:
    """Beyond chance and beyond all that stands beside it."""
    number, chance = measured(row, name), known(row, p)
    if chance is None:
        return untested("there is no p", says)[0]
    holds = chance <= CHANCE and number.low > most(*beside.values())
    return Part(says, number, holds, beside, layer_of(row))
