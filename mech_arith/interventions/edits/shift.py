"""Move every problem's coordinate alike."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit


@EDITS.register("shift")
@dataclass(frozen=True)
class Shift(Edit):
    """Move by so many standard deviations along the value's line."""

    unit: ClassVar[str] = "sd"
    no_change: ClassVar[float] = 0.0
    is_affine: ClassVar[bool] = True
    goes_along_the_value: ClassVar[bool] = True

    def moved(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"],
    ) -> Float[Tensor, "*rows k"]:
        """C + s sd."""
        return coordinate + strength * sd
