"""Give the coordinate another value's place, as another problem has it."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit, EditTarget


@EDITS.register("interchange")
@dataclass(frozen=True)
class Interchange(Edit):
    """Take the coordinate of a problem that differs in one value."""

    unit: ClassVar[str] = "share of the way"
    no_change: ClassVar[float] = 0.0
    target: ClassVar[EditTarget | None] = EditTarget.SOURCE

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
