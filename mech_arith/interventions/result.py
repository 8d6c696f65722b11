"""What edits were made at one site, and the answers under all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.interventions.controls import Arm, Target


@dataclass(frozen=True)
class InterventionResult:
    """One target and what it is compared with, at one site, and the answers under all edits."""

    site: Site
    target: Target
    arms: tuple[Arm, ...]
    changes: Float64[Tensor, "m s n"]
    """How far each problem is moved, towards each of m sources at each of s strengths; an edit that
    goes nowhere in particular has one."""
    coordinate: Float64[Tensor, " n"]
    """Clean, along the target's direction."""
    rows: Int64[Tensor, " n"]
    """Of these problems among those that are edited."""
    answers: Answers
    """[directions of all arms, m, s, n]."""
    folded_rms: Float64[Tensor, " s"] | None = None
    """How far edits folded into weights move activations: root mean square over all positions of
    all problems of the fit split, at each strength, in activation units."""

    @property
    def change_rms(self) -> Float64[Tensor, " s"]:
        """Root mean square of the changes at each strength, in activation units."""
        if self.folded_rms is not None:
            return self.folded_rms
        return torch.stack([change.square().mean().sqrt() for change in self.changes.unbind(1)])

    @property
    def key(self) -> dict[str, Any]:
        """What a table's rows say of it."""
        return {
            **self.site.columns(),
            "component": self.target.component,
            "chosen_for": self.target.chosen_for,
            "target_value": self.target.target_value,
        }

    def by_arm(self) -> Iterator[tuple[Arm, Answers]]:
        """Each arm with its answers, [k, m, s, n]."""
        start = 0
        for arm in self.arms:
            end = start + len(arm.directions)
            yield arm, self.answers.at(slice(start, end))
            start = end
