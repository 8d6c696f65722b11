"""Edits: rules from a coordinate to a new coordinate, each with one strength."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float
from torch import Tensor

from mech_arith.errors import unknown


class Towards(Enum):
    """Where an edit takes a coordinate, beyond what the coordinate itself says."""

    FIT = "fit"
    """To where the fit puts the wanted value."""
    SOURCE = "source"
    """To the coordinate of a problem that has the wanted value."""


Rule = Callable[[Tensor, float, float, Tensor], Tensor]
"""(coordinate, strength, sd, wanted coordinate) -> new coordinate."""


@dataclass(frozen=True)
class Edit:
    """A rule that moves a coordinate by a strength."""

    name: str
    unit: str
    """What the strength counts, as axis labels say it."""
    no_change: float
    """The strength at which nothing happens."""
    rule: Rule
    towards: Towards | None = None
    """Of an edit that gives the coordinate the place of another value; None for the others."""

    def change(
        self,
        coordinate: Float[Tensor, "*rows n"],
        strength: float,
        *,
        sd: float,
        wanted: Float[Tensor, "*rows n"] | None = None,
    ) -> Float[Tensor, "*rows n"]:
        """How far each problem's coordinate moves: exactly zero at the strength of no change.

        Args:
            coordinate: zero at the mean (or at the origin, for the uncentred variant).
            strength: in the edit's unit.
            sd: the coordinate's standard deviation on the fit split.
            wanted: the coordinate to go to, of an edit that goes somewhere.

        Raises:
            ValueError: there is nowhere to go.
        """
        if wanted is None:
            if self.towards is not None:
                raise ValueError(f"expected wanted coordinates for the edit {self.name}, got none")
            wanted = coordinate
        return self.rule(coordinate, strength, sd, wanted) - coordinate


EDITS = {
    edit.name: edit
    for edit in (
        Edit("scale", "factor r", 1.0, lambda c, r, _sd, _to: c * r),
        Edit("shift", "sd", 0.0, lambda c, s, sd, _to: c + s * sd),
        Edit("ablate", "share removed", 0.0, lambda c, s, _sd, _to: c * (1 - s)),
        Edit("set", "share of the way", 0.0, lambda c, s, _sd, to: c + s * (to - c), Towards.FIT),
        Edit(
            "interchange",
            "share of the way",
            0.0,
            lambda c, s, _sd, to: c + s * (to - c),
            Towards.SOURCE,
        ),
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
