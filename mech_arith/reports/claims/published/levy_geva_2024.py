"""The circle of ten of a digit moves that digit."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    Part,
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

DIGIT, UNITS = "a_ones", "token 2"
WHOLE = "another ones digit of a, set on its circle of ten, gives the answer for that digit"
UNIT = "it gives the ones digit of that answer"
CHANCE = 0.05


@CLAIMS.register("levy_geva_2024")
def circle(runs: Runs) -> list[Part]:
    """By iia of the step `a_ones`: the answer with this digit replaced and all else kept.

    In the layer where it is largest, with p corrected for all layers. The whole activation is no
    ceiling: it brings the other digits of the source too.
    """
    best = largest(targets(runs, "counterfactual", value=DIGIT), "iia")
    if best is None:
        return untested("nothing was edited", WHOLE, UNIT)
    site = {"layer": best["layer"], "rank": best["rank"], "value": DIGIT}
    drawn = first_number(rows(runs, "counterfactual", arm="control", **site), "iia")
    number, floor = measured(best, "iia"), known(best, "floor")
    beside = {"random subspaces": drawn, "floor": floor}
    above = best["p_holm"] <= CHANCE and number.low > most(drawn, floor)
    whole = Part(WHOLE, number, bool(above), beside, layer_of(best))
    token = largest(targets(runs, "answer_tokens", token_name=UNITS, **site), "iia_changed")
    if token is None:
        return [whole, *untested("no answer has a third token that is to be another", UNIT)]
    controls = rows(runs, "answer_tokens", arm="control", token_name=UNITS, **site)
    drawn = first_number(controls, "iia_changed")
    number = measured(token, "iia_changed")
    above = token["p_max"] <= CHANCE and number.low > most(drawn)
    return [whole, Part(UNIT, number, bool(above), {"random subspaces": drawn}, layer_of(best))]
