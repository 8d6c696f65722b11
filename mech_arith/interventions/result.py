"""What edits were made at one site, and the answers under all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.interventions.controls import CONTROL, TARGET, Arm, Target
from mech_arith.statistics import SequentialP, sequential_p


@dataclass(frozen=True)
class Draws:
    """All directions of one kind that were drawn beside a target, in order, until p was decided."""

    drops: Float64[Tensor, "s m"]
    """Mean drop in accuracy of each at each strength."""
    of_target: Float64[Tensor, " s"]
    """That of the target."""
    moving: Bool[Tensor, " s"]
    """Strengths that move any problem."""
    most: int
    """Directions that might have been drawn."""
    stop_after: int
    """Draws that cost as much at which a p is decided."""

    @property
    def n(self) -> int:
        """Directions that were drawn."""
        return self.drops.shape[1]

    @property
    def by_strength(self) -> SequentialP:
        """Of the target's drop at each strength, `[s]`."""
        return sequential_p(self.of_target, self.drops, stop_after=self.stop_after)

    @property
    def of_mean(self) -> SequentialP:
        """Of its mean drop over the strengths that move anything."""
        target, drops = self.of_target[self.moving].mean(), self.drops[self.moving].mean(0)
        return sequential_p(target, drops, stop_after=self.stop_after)

    def decided(self, arm: str) -> bool:
        """Every p that is reported of this kind would stay what it is."""
        decided = bool(self.of_mean.decided)
        if arm == CONTROL:
            decided &= bool(self.by_strength.decided[self.moving].all())
        return decided

    def and_further(self, drops: Float64[Tensor, "s more"]) -> "Draws":
        """With more directions behind."""
        return replace(self, drops=torch.cat([self.drops, drops], dim=1))


@dataclass(frozen=True)
class InterventionResult:
    """One target and what it is compared with, at one site, and the answers under all edits."""

    site: Site
    target: Target
    arms: tuple[Arm, ...]
    changes: Float64[Tensor, "m s n k"]
    """How far each problem is moved along each of the target's k directions, towards each of m
    sources at each of s strengths; an edit that goes nowhere in particular has one."""
    coordinates: Float64[Tensor, "n k"]
    """Clean, along the target's directions."""
    rows: Int64[Tensor, " n"]
    """Indices of these problems among the edited ones."""
    answers: Answers
    """[subspaces of all arms, m, s, n]."""
    folded_rms: Float64[Tensor, " s"] | None = None
    """How far edits folded into weights move activations: root mean square over all positions of
    all problems of the fit split, at each strength, in activation units."""
    draws: Mapping[str, Draws] = field(default_factory=dict)
    """By arm what its p is of, where draws went on behind those of `arms` until it was decided."""

    @property
    def change_rms(self) -> Float64[Tensor, " s"]:
        """Root mean square of the changes at each strength, in activation units."""
        if self.folded_rms is not None:
            return self.folded_rms
        squared = self.changes.square().sum(3)
        return torch.stack([change.mean().sqrt() for change in squared.unbind(1)])

    @property
    def moves(self) -> Bool[Tensor, "m s n"]:
        """Whether a problem is moved at all."""
        return (self.changes != 0).any(3)

    @property
    def moving(self) -> Bool[Tensor, " s"]:
        """The strengths that move any problem; the others are no edit."""
        return self.moves.any(2).any(0)

    @property
    def key(self) -> dict[str, Any]:
        """What a table's rows say of it."""
        return {
            **self.site.columns(),
            "component": self.target.component,
            "rank": self.target.rank,
            "chosen_for": self.target.chosen_for,
            "target_value": self.target.target_value,
        }

    @property
    def target_answers(self) -> Answers:
        """Those of the target itself, [1, m, s, n]."""
        return next(answers for arm, answers in self.by_arm() if arm.name == TARGET)

    def by_arm(self) -> Iterator[tuple[Arm, Answers]]:
        """Each arm with its answers, [subspaces, m, s, n]."""
        start = 0
        for arm in self.arms:
            end = start + len(arm.frames)
            yield arm, self.answers.at(slice(start, end))
            start = end
