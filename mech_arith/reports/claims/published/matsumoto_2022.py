"""Operands, then b-c, then the answer, over the layers of a model that subtracts."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, Runs, measured, rows, untested
from mech_arith.statistics.independent import Measured

CLEAR = 0.9
"""|R| from which on a value is said to be there."""

BEFORE, BETWEEN, AFTER = ("b", "c"), "b-c", "a-(b-c)"


@CLAIMS.register("matsumoto_2022")
def matsumoto(runs: Runs) -> list[Part]:
    """By the first layer in which the chosen component has |R| of .9 or more."""
    found = rows(runs, "evidence")
    found = found[found["r"].notna()]
    order = "each of b and c is clear (|R| of .9 or more) in an earlier layer than b-c, and b-c than the answer"
    first = {
        value: of.loc[of["layer"].idxmin()]
        for value, of in found[found["r"].abs() >= CLEAR].groupby("value")
    }
    missing = [value for value in (*BEFORE, BETWEEN, AFTER) if value not in first]
    if missing:
        return [Part(order, None, False, where=f"never clear: {', '.join(missing)}")]
    layers = {value: int(row["layer"]) for value, row in first.items()}
    holds = max(layers[value] for value in BEFORE) < layers[BETWEEN] < layers[AFTER]
    said = ", ".join(
        f"{value} in {layer}" for value, layer in sorted(layers.items(), key=lambda x: x[1])
    )
    between = first[BETWEEN]
    strength = measured(between, "r")
    if strength.number < 0:  # the sign of a component is arbitrary
        strength = Measured(number=-strength.number, low=-strength.high, high=-strength.low)
    follows = "the answer follows b-c along its component there"
    if not between["slope"] == between["slope"]:
        used = untested(follows, "nothing was edited")
    else:
        slope = measured(between, "slope")
        beside = {
            "random directions": between["slope_random"],
            "directions without a value": between["slope_valueless"],
        }
        used = Part(
            follows, slope, bool(between["slope_counts"]), beside, f"layer {layers[BETWEEN]}"
        )
    return [Part(order, strength, holds, where=f"layers: {said}"), used]
