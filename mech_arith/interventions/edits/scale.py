"""The paper's edit."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit


@EDITS.register("scale")
@dataclass(frozen=True)
class Scale(Edit):
    """Multiply the coordinate by r."""

    unit: ClassVar[str] = "factor r"
    no_change: ClassVar[float] = 1.0
    is_affine: ClassVar[bool] = True
    can_be_uncentred: ClassVar[bool] = True

    def moved(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"],
    ) -> Float[Tensor, "*rows k"]:
        """R c."""
        return coordinate * strength
