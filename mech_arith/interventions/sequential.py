"""Control directions that are drawn until p is decided: few where they cost as much as the target.

Besag and Clifford's sequential test (`statistics.sequential_p`), of every number that is ranked
among drawn directions: the target's drop as a mean over strengths, and beside random directions of
the whole space also its drop at each strength. All of them share the draws; each p is of those up
to the one that decided it, whatever the others need. Directions come in rounds, half as many again
each time, so that they go through the model side by side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.session import Session
from mech_arith.interventions import FIRST_DRAWS
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Controls, further, orthonormal
from mech_arith.interventions.interchange import run_all
from mech_arith.interventions.result import Draws, InterventionResult
from mech_arith.interventions.treatments import grid_of

DropsOf = Callable[[Answers, Int64[Tensor, " n"]], Float64[Tensor, "s k"]]
"""From answers `[k, m, s, n]` under edits of some problems to the mean drop in accuracy of each
subspace at each strength."""


@dataclass(frozen=True)
class Drawing:
    """How directions are drawn, and what they cost."""

    controls: Controls
    slopes: tuple[float, ...]
    """Of the edit at each strength."""
    seed: int
    drops: DropsOf

    @property
    def stop_after(self) -> int:
        """Draws that cost as much as the target at which no more are made."""
        assert self.controls.stop_after is not None
        return self.controls.stop_after


@dataclass
class _Arm:
    """One kind of directions beside one target, as far as it is drawn."""

    result: InterventionResult
    name: str
    draws: Draws
    frames: Iterator[Float64[Tensor, "k width"]]
    """Those behind."""

    @property
    def is_open(self) -> bool:
        """More are to be drawn."""
        return self.draws.n < self.draws.most and not self.draws.decided(self.name)

    def next_frames(self) -> Float[Tensor, "m k width"]:
        """Half as many as there are already, and no fewer than at first."""
        n = min(self.draws.most - self.draws.n, max(FIRST_DRAWS, self.draws.n // 2))
        return orthonormal(torch.stack(list(islice(self.frames, n))))


def draw_on(
    session: Session, bases: Bases, results: Sequence[InterventionResult], drawing: Drawing
) -> list[InterventionResult]:
    """The results with all directions that it takes to decide each p.

    Args:
        session: the model; its checkpoint keeps each round apart, so that one that was killed goes
            on where it stopped.
        bases: the problems that are edited, and what tracing found, by site.
        results: of the target and the first draws.
        drawing: how more are drawn.
    """
    every = [list(_arms(bases, one, drawing)) for one in results]
    for number in count(1):
        some = [arm for of_one in every for arm in of_one if arm.is_open]
        if not some:
            break
        frames = [arm.next_frames() for arm in some]
        grids = [
            grid_of(arm.result, of_arm, len(bases), drawing.slopes)
            for arm, of_arm in zip(some, frames, strict=True)
        ]
        answers = run_all(
            session,
            bases.baseline,
            grids,
            description=f"further directions, round {number}",
            stage=f"draws_{number}",
        )
        for arm, found in zip(some, answers, strict=True):
            arm.draws = arm.draws.and_further(_drops(arm.result, found, drawing))
    return [
        replace(one, draws={arm.name: arm.draws for arm in of_one})
        for one, of_one in zip(results, every, strict=True)
    ]


def _arms(bases: Bases, one: InterventionResult, drawing: Drawing) -> Iterator[_Arm]:
    """The kinds of which more than the first may be drawn."""
    found, most = bases.traces[one.site], drawing.controls.most
    moving = one.moving
    of_target = drawing.drops(one.target_answers, one.rows)[:, 0]
    for arm, answers in one.by_arm():
        if arm.name in most and moving.any():
            drops = drawing.drops(answers, one.rows)
            draws = Draws(drops, of_target, moving, most[arm.name], drawing.stop_after)
            frames = further(found, one.target, arm.name, seed=drawing.seed)
            yield _Arm(one, arm.name, draws, frames)


def _drops(one: InterventionResult, answers: Answers, drawing: Drawing) -> Float64[Tensor, "s k"]:
    """Of the answers of all edited problems under further draws."""
    return drawing.drops(answers.of(one.rows).split(-1, *one.changes.shape[:2]), one.rows)
