"""A column of evidence: how much of the value's variance the coordinate explains."""

from collections.abc import Mapping
from typing import Any

from mech_arith.evidence.columns import NUMBER, Column, register_column


def explained(row: Mapping[str, Any]) -> float:
    """R squared on the report split, from a finished row of the evidence."""
    return row["r"] ** 2


register_column(
    "evidence",
    Column(
        "explained",
        NUMBER,
        "Share of the value's variance that the coordinate explains.",
        label="R squared",
        of=explained,
    ),
)
