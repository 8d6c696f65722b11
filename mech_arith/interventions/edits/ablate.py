"""Take a coordinate out."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit


@EDITS.register("ablate")
@dataclass(frozen=True)
class Ablate(Edit):
    """Move the coordinate to its mean."""

    unit: ClassVar[str] = "share removed"
    no_change: ClassVar[float] = 0.0
    is_affine: ClassVar[bool] = True

    def moved(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"],
    ) -> Float[Tensor, "*rows k"]:
        """(1 - s) c."""
        return coordinate * (1 - strength)
