"""Give the coordinate another value's place, as the fit has it."""

from dataclasses import dataclass
from typing import ClassVar

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import EditTarget, TargetEdit


@EDITS.register("set")
@dataclass(frozen=True)
class Set(TargetEdit):
    """Move the coordinate to where the fit puts another value."""

    target: ClassVar[EditTarget | None] = EditTarget.PREDICTED
