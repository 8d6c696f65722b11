"""The edits of every target and its controls: what is run, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.engine.run import SiteGrid
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Controls, Target, arms
from mech_arith.interventions.interchange import run_all
from mech_arith.interventions.result import InterventionResult
from mech_arith.problems.sources import Sources


@dataclass(frozen=True)
class Treatment:
    """How far one target moves each problem."""

    site: Site
    target: Target
    changes: Float64[Tensor, "m s n k"]
    rows: Int64[Tensor, " n"]
    """Indices of these problems among the edited ones."""
    sources: Sources | None = None
    """What it goes towards."""


def treat(
    session: Session,
    bases: Bases,
    treatments: Sequence[Treatment],
    controls: Controls,
    slopes: Sequence[float],
    *,
    seed: int,
) -> list[InterventionResult]:
    """Run all edits of all arms.

    Args:
        session: the model under study.
        bases: the problems that are edited, and what tracing found, by site.
        treatments: what is done to them.
        controls: what each target is compared with.
        slopes: of the edit at each strength.
        seed: of control directions.
    """
    tried = [
        arms(bases.traces[treatment.site], treatment.target, controls, seed=seed)
        for treatment in treatments
    ]
    grids = [
        grid_of(treatment, torch.cat([arm.frames for arm in of_treatment]), len(bases), slopes)
        for treatment, of_treatment in zip(treatments, tried, strict=True)
    ]
    answers = run_all(session, bases.baseline, grids, description="intervention")
    return [
        InterventionResult(
            treatment.site,
            treatment.target,
            tuple(of_treatment),
            treatment.changes,
            bases.traces[treatment.site].coordinates[treatment.rows][
                :, list(treatment.target.components)
            ],
            treatment.rows,
            found.of(treatment.rows).split(-1, *treatment.changes.shape[:2]),
        )
        for treatment, of_treatment, found in zip(treatments, tried, answers, strict=True)
    ]


def grid_of(
    moved: Treatment | InterventionResult,
    frames: Float[Tensor, "f k width"],
    n: int,
    slopes: Sequence[float],
) -> SiteGrid:
    """The changes of a target within subspaces, for all n edited problems.

    Problems that have nowhere to go stay where they are.
    """
    sources, strengths, _, rank = moved.changes.shape
    changes = moved.changes.new_zeros(sources, strengths, n, rank)
    changes[:, :, moved.rows] = moved.changes
    by_change = torch.tensor(slopes, dtype=torch.float64).repeat(sources)
    return SiteGrid(
        moved.site, frames, changes.flatten(0, 1), by_change if moved.site.in_answer else None
    )
