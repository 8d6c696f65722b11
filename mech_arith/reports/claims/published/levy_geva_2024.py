"""The circle of ten of a digit moves that digit."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    NOT_CARRIED,
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

DIGIT, UNITS = "a_ones", "10^0"
SAYS = "another ones digit of a, put on its circle of ten, makes the whole answer the one for that digit"
ALONE = "it moves the ones digit of the answer"


@CLAIMS.register("levy_geva_2024")
def circle(runs: Runs) -> list[Part]:
    """By iia of the step `a_ones`: the answer with this digit replaced and all else kept."""
    carried = where_carried(targets(runs, "answer_tokens", value=DIGIT, token_name=UNITS))
    if carried is None:
        return [untested(SAYS, NOT_CARRIED), untested(ALONE, NOT_CARRIED)]
    site = {"layer": carried["layer"], "rank": carried["rank"], "value": DIGIT}
    parts = []
    for says, table, more, name in (
        (SAYS, "counterfactual", {}, "iia"),
        (ALONE, "answer_tokens", {"token_name": UNITS}, "iia_changed"),
    ):
        row = targets(runs, table, **site, **more).iloc[0]
        drawn = rows(runs, table, arm="control", **site, **more)
        number, random = measured(row, name), entry(drawn, name) or 0.0
        beside = {
            "random subspaces": random,
            "floor": row["floor"] if name == "iia" else None,
            "ceiling": row["ceiling" if name == "iia" else "ceiling_changed"],
        }
        above = number.low > max(random, beside["floor"] or 0.0)
        parts.append(Part(says, number, above, beside, layer_text(row)))
    return parts
