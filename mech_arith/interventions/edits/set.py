"""Give the coordinate another value's place, as the fit has it."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit, EditTarget


@EDITS.register("set")
@dataclass(frozen=True)
class Set(Edit):
    """Move the coordinate to where the fit puts another value."""

    unit: ClassVar[str] = "share of the way"
    no_change: ClassVar[float] = 0.0
    target: ClassVar[EditTarget | None] = EditTarget.PREDICTED

    def moved(
        self,
        coordinate: Float[Tensor, "*rows n"],
        strength: float,
        *,
        sd: float,
        wanted: Float[Tensor, "*rows n"],
    ) -> Float[Tensor, "*rows n"]:
        """C + s (w - c)."""
        return coordinate + strength * (wanted - coordinate)
