"""What an edit is: a rule for coordinates, with one strength, and what it says of itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.interventions.edits import EDITS

WHOLE_WAY = 1.0
"""The strength at which an edit arrives at the wanted value."""


class EditTarget(Enum):
    """Where an edit takes a coordinate, beyond what the coordinate itself says."""

    PREDICTED = "fit"
    """To where the fit puts the wanted value."""
    SOURCE = "source"
    """To the coordinate of a problem that has the wanted value."""


@dataclass(frozen=True)
class Edit(ABC):
    """A rule that moves a coordinate by a strength.

    An edit of one's own is a subclass with `moved`, `unit` and `no_change`, registered by
    `@EDITS.register(NAME)`, and a file conf/intervention/NAME.yaml with its strengths.
    """

    name: str
    """The one under which it is registered."""

    unit: ClassVar[str]
    """What the strength counts, as axis labels say it."""
    no_change: ClassVar[float]
    """The strength at which nothing happens."""
    target: ClassVar[EditTarget | None] = None
    """Of an edit that gives the coordinate the place of another value; None for the others."""
    is_affine: ClassVar[bool] = False
    """The new coordinate is p c + q, with the same p and q for all problems: weights can carry
    it."""
    goes_along_the_value: ClassVar[bool] = False
    """It moves all problems alike: within a subspace of several directions along the line on which
    the value lies there, and `sd` is a step along that line."""
    can_be_uncentred: ClassVar[bool] = False
    """It means something for a coordinate that is measured from the origin, too."""

    @abstractmethod
    def moved(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"],
    ) -> Float[Tensor, "*rows k"]:
        """The new coordinates; see `change`. `wanted` is `coordinate` where `target` is None."""

    def change(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"] | None = None,
    ) -> Float[Tensor, "*rows k"]:
        """How far each coordinate moves: exactly zero at the strength of no change.

        Args:
            coordinate: on each direction of the subspace, zero at the mean (or at the origin, for
                the uncentred variant).
            strength: in the edit's unit.
            sd: standard deviation of each coordinate on the fit split; see `goes_along_the_value`.
            wanted: the coordinates to go to, of an edit that goes somewhere.

        Raises:
            ValueError: there is nowhere to go.
        """
        if wanted is None:
            if self.target is not None:
                raise ValueError(f"expected wanted coordinates for the edit {self.name}, got none")
            wanted = coordinate
        return self.moved(coordinate, strength, sd=sd, wanted=wanted) - coordinate

    def slope(self, strength: float) -> float:
        """By how much the new coordinate rises with the old one: p of an edit p c + q.

        Of an edit that is no line in the coordinate, that from the mean to one unit beyond.
        """
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        wanted = ends if self.target is None else torch.zeros_like(ends)
        low, high = self.moved(ends, strength, sd=1.0, wanted=wanted).tolist()
        return high - low


@dataclass(frozen=True)
class TargetEdit(Edit):
    """Gives the coordinate another value's place, or goes a share of the way; `target` says whose.

    An edit of this kind is a subclass with `target`.
    """

    unit: ClassVar[str] = "share of the way"
    no_change: ClassVar[float] = 0.0

    def moved(
        self,
        coordinate: Float[Tensor, "*rows k"],
        strength: float,
        *,
        sd: float | Float[Tensor, " k"],
        wanted: Float[Tensor, "*rows k"],
    ) -> Float[Tensor, "*rows k"]:
        """The share s of the way from c to w: c + s (w - c)."""
        return coordinate + strength * (wanted - coordinate)


def find_edit(name: str) -> Edit:
    """The edit of that name.

    Raises:
        UserError: there is none.
    """
    return EDITS.find(name)(name)


def edits_that(
    *, are_affine: bool = False, can_be_uncentred: bool = False, have_target: bool = False
) -> str:
    """Names of all edits with a property, for a message."""
    found = (find_edit(name) for name in EDITS.names())
    return ", ".join(
        edit.name
        for edit in found
        if edit.is_affine >= are_affine
        and edit.can_be_uncentred >= can_be_uncentred
        and (edit.target is not None) >= have_target
    )
