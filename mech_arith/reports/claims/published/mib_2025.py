"""A carry is a variable of its own, and a trained rotation finds it best."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    Part,
    Runs,
    cells_of,
    known,
    larger,
    largest,
    layer_of,
    measured,
    rows,
    untested,
)

CARRY = "ones_carry"
IS_ONE = "answers follow the carry along one trained direction, and not the operands"
BETTER = "they follow it there more often than along the principal component of the largest |R|"


@CLAIMS.register("mib_2025")
def carry(runs: Runs) -> list[Part]:
    """By the share of pairs, of those that tell the carry from the operands, that follow it."""
    das, pca = (
        rows(cells_of(runs, tracing=name), "hypotheses", value=CARRY) for name in ("das", "pca")
    )
    best = largest(das, "distinguishing")
    if best is None:
        return untested("there is no cell of tracing=das", IS_ONE, BETTER)
    at = ("layer", "rank", "rival", "rival_value")
    pca = [row for row in pca if all(row[name] == best[name] for name in at)]
    ours, chance = measured(best, "distinguishing"), known(best, "floor")
    beside = {"chance": chance, "random directions": known(best, "random")}
    here = [row for row in das if row["layer"] == best["layer"] and row["rank"] == best["rank"]]
    follows = all(row["supports"] == row["hypothesis"] for row in here)
    is_one = Part(IS_ONE, ours, bool(follows), beside, layer_of(best))
    if not pca:
        return [is_one, *untested("there is no cell of tracing=pca at that layer", BETTER)]
    theirs = measured(pca[0], "distinguishing")
    beside = {"principal component": theirs.number, "chance": chance}
    return [is_one, Part(BETTER, ours, larger(ours, theirs).low > 0, beside, layer_of(best))]
