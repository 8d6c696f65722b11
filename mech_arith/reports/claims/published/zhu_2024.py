"""Linear probes read numbers, and steering along them moves the answer."""

from math import isfinite

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    LEVEL,
    Part,
    Row,
    Runs,
    exact,
    known,
    largest,
    layer_of,
    measured,
    rows,
    targets,
    untested,
)
from mech_arith.statistics.independent import Measured, difference

READS = "one linear probe reads nine tenths of the variance of a"
ALONE = "it does not read a random function of a as well (a control of ours)"
MOVES = "the answer grows along the probe and shrinks against it, more than along random directions"
READ = 0.9


@CLAIMS.register("zhu_2024")
def steered(runs: Runs) -> list[Part]:
    """By R squared on other problems, and by the mean change of the answer for the largest steps.

    In the layer whose probe has the largest |R| on the fit split.
    """
    probes = [
        {**row, "fit": abs(r)}
        for row in rows(runs, "subspaces", value="a")
        if (r := known(row, "r_fit")) is not None
    ]
    best = largest(probes, "fit")
    read, control = (known(best or {}, name) for name in ("decoding_r2", "control_r2"))
    if best is None or read is None or control is None:
        return untested("no probe of a was found", READS, ALONE, MOVES)
    where = layer_of(best)
    reads = [
        Part(READS, exact(read), read >= READ, where=where),
        Part(ALONE, exact(control), control < READ, {"a itself": read}, where),
    ]
    along = [row for row in targets(runs, "effects", layer=best["layer"]) if _is_of_a(row)]
    down, up = (
        largest([{**row, "way": sign * row["strength"]} for row in along], "way")
        for sign in (-1, 1)
    )
    if down is None or up is None or not down["strength"] < 0 < up["strength"]:
        return [*reads, *untested("there are no shifts both ways", MOVES)]
    ends = down["strength"], up["strength"]
    controls = rows(runs, "effects", layer=best["layer"], arm="control")
    drawn = [
        x for row in controls if row["strength"] in ends and (x := known(row, "mean_abs_shift"))
    ]
    if not drawn:
        return [*reads, *untested("there are no random directions beside it", MOVES)]
    random = sum(drawn) / len(drawn)
    beside = {"random directions, either way": random}
    number = _half_apart(down, up, sign=1.0 if best["r_fit"] >= 0 else -1.0)
    if not isfinite(number.low):
        return [*reads, *untested("fewer than ten answers move either way", MOVES)]
    return [*reads, Part(MOVES, number, number.low > random, beside, where)]


def _is_of_a(row: Row) -> bool:
    return "a" in row["chosen_for"]


def _half_apart(down: Row, up: Row, *, sign: float) -> Measured:
    """Half of the distance between the answers after steps of either sign."""
    apart = difference(measured(down, "mean_shift"), measured(up, "mean_shift"), level=LEVEL)
    low, high = sorted((sign * apart.low / 2, sign * apart.high / 2))
    return Measured(number=sign * apart.number / 2, low=low, high=high)
