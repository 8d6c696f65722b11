"""The paper's locality test: does a coordinate mean to the model what it correlates with?

Suppose that the edited coordinate *is* a value (say b) and that nothing else changed. Then each
edited prediction y gives the b that solves the expression for y: this is the predicted function
f_p, the coordinate as a function of b. The actual function f_a really replaces b in the input and
reads the coordinate. Where the model uses the coordinate as b, the two agree.

Source: Matsumoto et al. (2022), section 5.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError
from mech_arith.common.progress import progress
from mech_arith.directions import tracing
from mech_arith.directions.tracing import Trace, read_coordinates
from mech_arith.engine import run as engine
from mech_arith.engine.run import SiteEdits, edits_key, run_edits
from mech_arith.engine.session import Session
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.locality.functions import Functions, Line, Probe, Sweep, functions
from mech_arith.interventions.run import line_of
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet
from mech_arith.problems.hypotheses import Hypothesis


@dataclass(frozen=True)
class LocalityPlan:
    """How finely the two functions are sampled."""

    n_problems: int | None
    """Of the report split; all for None."""
    coordinate_points: int
    coordinate_span: float
    """Width of the edited coordinates, in units of the observed range."""
    value_points: int
    ranges: dict[str, tuple[int, int]]
    """Of the operands that are really replaced."""
    ranks: tuple[int, ...] = ()
    """Of the subspaces of each value; none for its best component."""


CODE = (*engine.CODE, *tracing.CODE, sys.modules[__name__])
"""What an entry of the store depends on."""


def locality(session: Session, bases: Bases, plan: LocalityPlan) -> list[Functions]:
    """f_p and f_a of every value, at every site, along a direction of the value's own.

    f_a moves a sub-expression by each of its operands in turn: a coordinate that means b - c
    follows it whichever of the two moves. A value is left out if the answer is no affine function
    of it, or has a slope of zero. An operand is left out if a step of one moves the value by
    another amount, or if it also stands outside the value. What the session's store or checkpoint
    already has is not computed again.
    """
    bases = bases.take(min(plan.n_problems or len(bases), len(bases)))
    problems = bases.problems
    probes = [
        (move, _probe(session, bases, plan, move))
        for move in progress(_moves(problems), description="replacing", unit="values")
    ]
    asked = [
        (found, line, move, probe)
        for found in bases.traces.values()
        for move, probe in probes
        for line in _lines(found, probe.value, plan.ranks)
    ]
    swept = _sweep(session, bases, plan, list(dict.fromkeys(line for _, line, *_ in asked)))
    return [
        functions(found, line, problems, move.slope, swept[line], probe)
        for found, line, move, probe in asked
    ]


def _lines(found: Trace, value: str, ranks: Sequence[int]) -> list[Line]:
    """The direction within each of a value's subspaces along which its coordinates go with it."""
    frames = [found.frame(value, rank) for rank in ranks or (1,)]
    lines = []
    for frame in frames:
        if len(frame) == 1:
            lines.append(Line(found.site, frame, (1.0,)))
        elif frame:
            along = line_of(found, frame, value)
            if torch.isfinite(along).all():
                lines.append(Line(found.site, frame, tuple(along.tolist())))
    return lines


@dataclass(frozen=True)
class Move:
    """A value and an operand through which it can be moved in the input."""

    value: str
    operand: str
    step: int
    """How far the value goes when the operand rises by one: 1 or -1."""
    slope: Float64[Tensor, " n"]
    """The answer's change per unit of the value, by problem."""


def _moves(problems: ProblemSet) -> list[Move]:
    """Every way to move a value, if the answer is an affine function of it and not constant."""
    hypothesis = problems.hypothesis
    slopes = {value: _slope(hypothesis, value, problems) for value in hypothesis.values}
    return [
        Move(value, operand, step, slope)
        for value, slope in slopes.items()
        if slope is not None
        for operand in hypothesis.operands_of(value)
        if (step := _step(hypothesis, value, operand, problems))
    ]


def _slope(
    hypothesis: Hypothesis, value: str, problems: ProblemSet
) -> Float64[Tensor, " n"] | None:
    """The answer's change per unit of the value, by problem; None unless affine and not flat."""
    current = problems.values[value]
    try:
        answers = {
            by: torch.from_numpy(
                hypothesis.replace(value, current + by, problems.operands)
            ).double()
            for by in (-300, -1, 0, 1, 300)
        }
    except UserError:  # a divisor of 0 on the way: not affine
        return None
    slope = answers[1] - answers[0]
    straight = all(torch.equal(y - answers[0], by * slope) for by, y in answers.items())
    return slope if straight and bool((slope != 0).all()) else None


def _step(hypothesis: Hypothesis, value: str, operand: str, problems: ProblemSet) -> int:
    """+1 or -1: how far the value goes when the operand rises by one.

    0 where that is not so in every problem, or where the operand stands outside the value too.
    """
    if hypothesis.acts_beside(operand, value):
        return 0
    raised = {**problems.operands, operand: problems.operands[operand] + 1}
    if not hypothesis.defined(raised).all():
        return 0
    steps = set((hypothesis.evaluate(raised)[value] - problems.values[value]).tolist())
    return steps.pop() if steps in ({1}, {-1}) else 0


def _sweep(
    session: Session, bases: Bases, plan: LocalityPlan, wanted: Sequence[Line]
) -> dict[Line, Sweep]:
    """Edit coordinates along lines over their observed range, and somewhat beyond."""
    places, edits = [], []
    for line in wanted:
        found = bases.traces[line.site]
        observed = line.coordinate(found.coordinates)
        at = _evenly(observed, plan)
        direction = line.direction(found).expand(len(at), 1, -1)
        changes = at[:, None] - observed[None, : len(bases)]
        places.append(at)
        slopes = at.new_zeros(len(at)) if line.site.in_answer else None
        edits.append(SiteEdits(line.site, direction, changes[..., None], slopes))

    def answer() -> dict[str, Tensor]:
        n_rows = sum(asked.changes.numel() for asked in edits)
        with progress(n_rows, description="locality", unit="edits") as bar:
            answers = run_edits(session, bases.baseline, edits, bar=bar)
        return {f"edits {i}": found.numbers for i, found in enumerate(answers)}

    key = edits_key(session.model, bases.baseline, edits)
    answers = session.store.fetch("sweeps", key, answer, code=CODE)
    return {
        line: Sweep(at, answers[f"edits {i}"])
        for i, (line, at) in enumerate(zip(wanted, places, strict=True))
    }


def _evenly(observed: Float64[Tensor, " n"], plan: LocalityPlan) -> Float64[Tensor, " g"]:
    """Places over the observed range, and somewhat beyond."""
    middle = (observed.max() + observed.min()) / 2
    half = plan.coordinate_span * (observed.max() - observed.min()) / 2
    ends = float(middle - half), float(middle + half)
    return torch.linspace(*ends, plan.coordinate_points, dtype=torch.float64)


def _probe(session: Session, bases: Bases, plan: LocalityPlan, move: Move) -> Probe:
    """Move a value through one operand in the input and read the coordinates at every site."""
    problems = bases.problems
    low, high = plan.ranges[move.operand]
    observed = problems.values[move.value]
    ends = (low, high) if move.value == move.operand else (observed.min(), observed.max())
    places = np.linspace(*ends, plan.value_points).round().astype(np.int64)
    moved = problems.operands[move.operand][:, None] + (places - observed[:, None]) * move.step
    prompts = [
        bases.encode(session.model, problems.replaced(move.operand, numbers))
        for numbers in np.clip(moved, low, high).T
    ]
    at = _coordinates(session, bases, prompts)
    return Probe(
        move.value,
        move.operand,
        torch.from_numpy(places).double(),
        {site: at[f"site {i}"] for i, site in enumerate(bases.traces)},
        torch.from_numpy((moved >= low) & (moved <= high)),
    )


def _coordinates(session: Session, bases: Bases, prompts: Sequence[Prompts]) -> dict[str, Tensor]:
    """Of several sets of prompts on the components of every site, each [n, sets, k]."""
    model, traces = session.model, bases.traces
    key: dict[str, Any] = {
        **model.fingerprint,
        "sites": [site.key(*prompts) for site in traces],
        "components": [
            tensor_digest(found.subspace.directions, found.subspace.mean)
            for found in traces.values()
        ],
        "prompts": [of_one.digest() for of_one in prompts],
    }
    piece = session.checkpoint.piece("probe", key)

    def read() -> dict[str, Tensor]:
        found = [
            piece.fetch(f"place {place}", partial(read_coordinates, session, asked, traces))
            for place, asked in enumerate(prompts)
        ]
        return {name: torch.stack([at[name] for at in found], dim=1) for name in found[0]}

    return session.store.fetch("probes", key, read, code=CODE)
