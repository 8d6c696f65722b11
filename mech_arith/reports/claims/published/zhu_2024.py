"""Linear probes read numbers, and steering along them moves the answer."""

from math import isfinite

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, Runs, layer_text, measured, rows, targets, untested
from mech_arith.statistics.independent import Measured, difference

READS = "one linear probe reads nine tenths of the variance of a"
ALONE = "it does not read a random function of the operands as well"
MOVES = (
    "the answer grows along the probe and shrinks against it, by more than along random directions"
)
READ = 0.9


@CLAIMS.register("zhu_2024")
def steered(runs: Runs) -> list[Part]:
    """By R squared on other problems, and by the mean change of the answer for the largest steps."""
    found = rows(runs, "subspaces", value="a", rank=1)
    if found.empty:
        return [untested(says, "no probe of a was found") for says in (READS, ALONE, MOVES)]
    best = found.loc[found["r_fit"].abs().idxmax()]
    read = float(best["decoding_r2"])
    control = float(best["control_r2"])
    reads = [
        Part(READS, _exact(read), read >= READ, {}, layer_text(best)),
        Part(ALONE, _exact(control), control < READ, {"a itself": read}, layer_text(best)),
    ]
    sign = 1.0 if best["r_fit"] >= 0 else -1.0
    edits = targets(runs, "effects", layer=best["layer"], edit="shift")
    edits = edits[[("a" in of) for of in edits["chosen_for"]]]
    strengths = sorted(edits["strength"].unique())
    if len(strengths) < 2:
        return [*reads, untested(MOVES, "no shifts both ways")]
    down, up = (
        measured(edits[edits["strength"] == strength].iloc[0], "mean_shift")
        for strength in (strengths[0], strengths[-1])
    )
    if not all(isfinite(end) for one in (down, up) for end in (one.low, one.high)):
        few = Part(MOVES, None, False, {}, f"{layer_text(best)}: fewer than ten answers move")
        return [*reads, few]
    apart = difference(down, up, level=0.95)
    ends = sorted((sign * apart.low / 2, sign * apart.high / 2))
    number = Measured(number=sign * apart.number / 2, low=ends[0], high=ends[1])
    drawn = rows(runs, "effects", layer=best["layer"], edit="shift", arm="control")
    drawn = drawn[drawn["strength"].isin([strengths[0], strengths[-1]])]
    random = float(drawn["mean_abs_shift"].mean())
    beside = {"random directions, either way": random}
    return [*reads, Part(MOVES, number, number.low > random, beside, layer_text(best))]


def _exact(number: float) -> Measured:
    """A number that has no interval."""
    return Measured(number=number, low=number, high=number)
