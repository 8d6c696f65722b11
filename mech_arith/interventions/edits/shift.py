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
    """Move the coordinate by so many standard deviations."""

    unit: ClassVar[str] = "sd"
    no_change: ClassVar[float] = 0.0
    is_affine: ClassVar[bool] = True

    def moved(
        self,
        coordinate: Float[Tensor, "*rows n"],
        strength: float,
        *,
        sd: float,
        wanted: Float[Tensor, "*rows n"],
    ) -> Float[Tensor, "*rows n"]:
        """C + s sd."""
        return coordinate + strength * sd
