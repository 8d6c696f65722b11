"""The result comes from the MLPs of late layers, at the last token."""

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import (
    Part,
    Row,
    Runs,
    known,
    larger,
    largest,
    measured,
    rows,
    size,
    untested,
)

LATE = "the MLP that changes the answer most at the last token is in the later half of the layers"
THERE = "it changes the answer more than any MLP of the later half does at the second number"
BEFORE = "the attention that changes the answer most at the last token is in an earlier layer"


@CLAIMS.register("stolfo_2023")
def late(runs: Runs) -> list[Part]:
    """By exact effects: the source's whole output of a block put in place of the base's.

    The unit is that of the screen's metric, logits of the right answer less the source's.
    """
    found = [
        {**row, "size": abs(row["effect"])}
        for row in rows(runs, "screen")
        if known(row, "effect") is not None
    ]
    # All layers are candidates, measured exactly or not.
    n_layers = 1 + max((int(row["layer"]) for row in rows(runs, "screen")), default=0)

    def strongest(point: str, position: str, start: float = 0) -> Row | None:
        at = [
            row
            for row in found
            if (row["point"], row["position"]) == (point, position) and row["layer"] >= start
        ]
        return largest(at, "size")

    mlp, attention = strongest("mlp_out", "last"), strongest("attn_out", "last")
    operand = strongest("mlp_out", "b", n_layers / 2)
    if mlp is None or attention is None or operand is None:
        return untested("a point or a position has no exact effect", LATE, THERE, BEFORE)
    ours, theirs = size(measured(mlp, "effect")), size(measured(operand, "effect"))
    where = f"layer {int(mlp['layer'])} of {n_layers}"
    first = strongest("mlp_out", "b")
    early = {"of any layer at the second number": first["size"] if first else None}
    beside = {"at the second number, later half": theirs.number}
    earlier = bool(attention["layer"] < mlp["layer"])
    at = f"layer {int(attention['layer'])}"
    return [
        Part(LATE, ours, bool(mlp["layer"] >= n_layers / 2), early, where),
        Part(THERE, ours, larger(ours, theirs).low > 0, beside, where),
        Part(BEFORE, size(measured(attention, "effect")), earlier, {}, at),
    ]
