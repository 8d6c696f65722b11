"""Linear probes read numbers, and steering along them moves the answer."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, Runs, layer_text, measured, rows, targets, untested
from mech_arith.statistics.independent import Measured, difference

READS = "one linear probe reads nine tenths of the variance of a"
MOVES = (
    "the answer grows along the probe and shrinks against it, by more than along random directions"
)
READ = 0.9


@CLAIMS.register("zhu_2024")
def steered(runs: Runs) -> list[Part]:
    """By R squared on other problems, and by the mean change of the answer two deviations apart."""
    found = rows(runs, "subspaces", value="a", rank=1)
    if found.empty:
        return [untested(READS, "no probe of a"), untested(MOVES, "no probe of a")]
    best = found.loc[found["r_fit"].abs().idxmax()]
    read = float(best["decoding_r2"])
    reads = Part(
        READS,
        Measured(number=read, low=read, high=read),
        read >= READ,
        {"a random function of the operands": best["control_r2"]},
        layer_text(best),
    )
    sign = 1.0 if best["r_fit"] >= 0 else -1.0
    edits = targets(runs, "effects", layer=best["layer"], edit="shift")
    edits = edits[[("a" in of) for of in edits["chosen_for"]]]
    strengths = sorted(edits["strength"].unique())
    if len(strengths) < 2:
        return [reads, untested(MOVES, "no shifts both ways")]
    down, up = (
        measured(edits[edits["strength"] == strength].iloc[0], "mean_shift")
        for strength in (strengths[0], strengths[-1])
    )
    apart = difference(down, up, level=0.95)
    ends = sorted((sign * apart.low / 2, sign * apart.high / 2))
    number = Measured(number=sign * apart.number / 2, low=ends[0], high=ends[1])
    drawn = rows(runs, "effects", layer=best["layer"], edit="shift", arm="control")
    drawn = drawn[drawn["strength"].isin([strengths[0], strengths[-1]])]
    random = float(drawn["mean_abs_shift"].mean())
    beside = {"random directions, either way": random}
    return [reads, Part(MOVES, number, number.low > random, beside, layer_text(best))]
