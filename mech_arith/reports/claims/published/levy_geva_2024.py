"""The circle of ten of a digit moves that digit."""

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
    found = targets(runs, "counterfactual", value=DIGIT)
    if found.empty:
        return [untested(WHOLE, "nothing was edited"), untested(UNIT, "nothing was edited")]
    best = found.loc[found["iia"].idxmax()]
    site = {"layer": best["layer"], "rank": best["rank"], "value": DIGIT}
    drawn = entry(rows(runs, "counterfactual", arm="control", **site), "iia")
    number = measured(best, "iia")
    beside = {"random subspaces": drawn, "floor": best["floor"]}
    above = best["p_holm"] <= CHANCE and number.low > max(drawn or 0.0, best["floor"])
    parts = [Part(WHOLE, number, bool(above), beside, layer_text(best))]
    tokens = targets(runs, "answer_tokens", token_name=UNITS, **site)
    if tokens.empty:
        return [*parts, untested(UNIT, "answers have no third token")]
    token = tokens.iloc[0]
    drawn = entry(rows(runs, "answer_tokens", arm="control", token_name=UNITS, **site), "iia_changed")
    number = measured(token, "iia_changed")
    above = token["p_max"] <= CHANCE and number.low > (drawn or 0.0)
    return [*parts, Part(UNIT, number, bool(above), {"random subspaces": drawn}, layer_text(best))]
