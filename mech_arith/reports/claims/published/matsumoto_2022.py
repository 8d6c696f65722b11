"""Operands, then b-c, then the answer, over the layers of a model that subtracts."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, Row, Runs, known, measured, rows, size, untested

CLEAR = 0.9
"""|R| from which on a value is said to be clear."""

BEFORE, BETWEEN, AFTER = ("b", "c"), "b-c", "a-(b-c)"

ORDER = "b and c are clear (|R| of .9 or more) in an earlier layer than b-c, b-c than the answer"
FOLLOWS = "the answer follows b-c along its component in the first layer where it is clear"


@CLAIMS.register("matsumoto_2022")
def matsumoto(runs: Runs) -> list[Part]:
    """By the first layer in which the component that the fit split chooses is clear.

    Of a the claim says no more than of the other operands; it takes no part in b-c.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows(runs, "evidence"), key=lambda row: row["layer"]):
        r = known(row, "r")
        if r is not None and abs(r) >= CLEAR:
            first.setdefault(row["value"], row)
    wanted = (*BEFORE, BETWEEN, AFTER)
    layers = {value: int(row["layer"]) for value, row in first.items() if value in wanted}
    where = ", ".join(f"{value} in layer {layer}" for value, layer in layers.items())
    if BETWEEN not in first:
        return [Part(ORDER, None, False, where=where), *untested("b-c is never clear", FOLLOWS)]
    holds = set(wanted) <= set(layers) and (
        max(layers[value] for value in BEFORE) < layers[BETWEEN] < layers[AFTER]
    )
    between = first[BETWEEN]
    order = Part(ORDER, size(measured(between, "r")), holds, where=where)
    if known(between, "slope") is None:
        return [order, *untested("nothing was edited", FOLLOWS)]
    beside = {
        "random directions": known(between, "slope_random"),
        "directions without a value": known(between, "slope_valueless"),
    }
    slope = measured(between, "slope")
    where = f"layer {layers[BETWEEN]}"
    return [order, Part(FOLLOWS, slope, between["slope_counts"] is True, beside, where)]
