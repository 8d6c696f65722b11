"""Edits: rules from a coordinate to a new coordinate, each with one strength."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mech_arith.errors import unknown

Rule = Callable[[Tensor, float, float], Tensor]
"""(coordinate, strength, sd) -> new coordinate."""


@dataclass(frozen=True)
class Edit:
    """A rule that moves a coordinate by a strength."""

    name: str
    unit: str
    """What the strength counts, as axis labels say it."""
    no_change: float
    """The strength at which nothing happens."""
    rule: Rule

    def change(
        self, coordinate: Float[Tensor, " n"], strength: float, *, sd: float
    ) -> Float[Tensor, " n"]:
        """How far each problem's coordinate moves: exactly zero at the strength of no change.

        Args:
            coordinate: zero at the mean (or at the origin, for the uncentred variant).
            strength: in the edit's unit.
            sd: the coordinate's standard deviation on the fit split.
        """
        return self.rule(coordinate, strength, sd) - coordinate


EDITS = {
    edit.name: edit
    for edit in (
        Edit("scale", "factor r", 1.0, lambda c, r, _: c * r),
        Edit("shift", "sd", 0.0, lambda c, s, sd: c + s * sd),
        Edit("ablate", "share removed", 0.0, lambda c, s, _: c * (1 - s)),
    )
}
"""By name. `scale` is the paper's."""


def find_edit(name: str) -> Edit:
    """The edit of that name.

    Raises:
        UserError: there is none.
    """
    if name not in EDITS:
        raise unknown("edit", name, [*EDITS, "none"])
    return EDITS[name]
