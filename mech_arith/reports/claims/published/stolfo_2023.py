"""The result comes from the MLPs of late layers, at the last token."""

from typing import Any

import pandas as pd

from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, Runs, larger, measured, rows, untested
from mech_arith.statistics.independent import Measured

LATE = "of the MLPs at the last token, the one that changes the answer most is in the later half of the layers"
THERE = "it changes the answer more than any MLP of the later half does at the second number"
BEFORE = "of the attention blocks at the last token, the one that changes the answer most is in an earlier layer"


@CLAIMS.register("stolfo_2023")
def late(runs: Runs) -> list[Part]:
    """By exact effects: the source's whole output of the block put in place of the base's."""
    found = rows(runs, "screen")
    found = found[found["effect"].notna()] if "effect" in found else found
    needed = [("mlp_out", "last"), ("mlp_out", "b"), ("attn_out", "last")]
    parts = {
        key: found[(found["point"] == key[0]) & (found["position"] == key[1])] for key in needed
    }
    if any(part.empty for part in parts.values()):
        return [
            untested(says, "a point or a position is missing") for says in (LATE, THERE, BEFORE)
        ]
    half = (found["layer"].max() + 1) / 2
    mlp, operand, attention = parts.values()
    ours, theirs = _strongest(mlp), _strongest(operand[operand["layer"] >= half])
    moves = _strongest(attention)
    number, at_operand = _size(ours), _size(theirs)
    where = f"layer {int(ours['layer'])} of {int(2 * half)}"
    return [
        Part(LATE, number, bool(ours["layer"] >= half), {}, where),
        Part(
            THERE,
            number,
            larger(number, at_operand).low > 0,
            {"at the second number": at_operand.number},
            where,
        ),
        Part(
            BEFORE,
            _size(moves),
            bool(moves["layer"] < ours["layer"]),
            {},
            f"layer {int(moves['layer'])}",
        ),
    ]


def _strongest(found: pd.DataFrame) -> "pd.Series[Any]":
    return found.loc[found["effect"].abs().idxmax()]


def _size(row: "pd.Series[Any]") -> Measured:
    """The size of an effect, whichever way it goes."""
    effect = measured(row, "effect")
    if effect.number >= 0:
        return effect
    return Measured(number=-effect.number, low=-effect.high, high=-effect.low)
