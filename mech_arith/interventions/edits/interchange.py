"""Give the coordinate another value's place, as another problem has it."""

from dataclasses import dataclass
from typing import ClassVar

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import EditTarget, TargetEdit


@EDITS.register("interchange")
@dataclass(frozen=True)
class Interchange(TargetEdit):
    """Take the coordinate of a problem that differs in one value."""

    target: ClassVar[EditTarget | None] = EditTarget.SOURCE
