"""An edit: the coordinate is kept within so many standard deviations of its mean."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import Edit


@EDITS.register("clip")
@dataclass(frozen=True)
class Clip(Edit):
    """Large coordinates become as large as the bound. Do answers need the far ends?"""

    unit: ClassVar[str] = "sd, at most"
    no_change: ClassVar[float] = math.inf

    def moved(
        self, coordinate: Tensor, strength: float, *, sd: float | Tensor, wanted: Tensor
    ) -> Tensor:
        """The new coordinates, `[..., k]`; zero is the mean."""
        return coordinate.clamp(-strength * sd, strength * sd)
