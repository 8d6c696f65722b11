"""A carry is a variable of its own, and a trained rotation finds it best."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    Part,
    Runs,
    cells_of,
    larger,
    layer_text,
    measured,
    rows,
    untested,
)

CARRY = "ones_carry"
IS_ONE = "answers follow the carry along one trained direction, and not the operands"
BETTER = (
    "they follow it through the trained direction more often than through one principal component"
)


@CLAIMS.register("mib_2025")
def carry(runs: Runs) -> list[Part]:
    """By the share of pairs, of those that tell the carry from the operands, that follow it."""
    das, pca = (
        rows(cells_of(runs, tracing=name), "hypotheses", value=CARRY) for name in ("das", "pca")
    )
    if das.empty:
        return [
            untested(IS_ONE, "no cell of tracing=das"),
            untested(BETTER, "no cell of tracing=das"),
        ]
    best = das.iloc[0]
    ours = measured(best, "distinguishing")
    beside = {
        "chance": best["floor"],
        "random directions": best["random"],
        "ceiling": best["ceiling"],
    }
    holds = best["supports"] == best["hypothesis"]
    parts = [Part(IS_ONE, ours, bool(holds), beside, layer_text(best))]
    if pca.empty:
        return [*parts, untested(BETTER, "no cell of tracing=pca")]
    theirs = measured(pca.iloc[0], "distinguishing")
    apart = larger(ours, theirs)
    more = {"one principal component": theirs.number, "chance": best["floor"]}
    return [*parts, Part(BETTER, ours, apart.low > 0, more, layer_text(best))]
