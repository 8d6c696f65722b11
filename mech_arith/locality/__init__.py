"""The paper's locality test: does a coordinate mean to the model what it correlates with?

Suppose that the edited coordinate *is* a value (say b) and that nothing else changed. Then each
edited prediction y gives the b that solves the expression for y: this is the predicted function
f_p, the coordinate as a function of b. The actual function f_a really replaces b in the input and
reads the coordinate. Where the model uses the coordinate as b, the two agree.

Source: Matsumoto et al. (2022), section 5.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith import engine, tracing
from mech_arith.artifacts import Store
from mech_arith.batching import Batching
from mech_arith.digests import tensor_digest
from mech_arith.engine import Baseline, SiteEdits, edits_key, run_edits
from mech_arith.errors import UserError
from mech_arith.expressions import Expression, parse
from mech_arith.locality.compare import Probe, Sweep, compare
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.tracing import Trace, read_coordinates
from mech_arith.unfinished import Unfinished


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
    digits: int
    """Of the largest operand, so that prompts stay alike."""


CODE = (*engine.CODE, *tracing.CODE, sys.modules[__name__])
"""What an entry of the store depends on."""


@dataclass(frozen=True)
class _Bench:
    """A solver, its problems and what was traced, ready to be run."""

    solver: Solver
    baseline: Baseline
    problems: ProblemSet
    traces: Mapping[Site, Trace]
    plan: LocalityPlan
    batching: Batching
    store: Store
    unfinished: Unfinished

    def reading(self, prompts: Sequence[Prompts]) -> dict[str, Any]:
        """All that determines the coordinates of some prompts, apart from code."""
        return {
            **self.solver.fingerprint,
            "sites": [site.key(*prompts) for site in self.traces],
            "components": [
                tensor_digest(found.components.directions, found.components.mean)
                for found in self.traces.values()
            ],
            "prompts": [of_one.digest() for of_one in prompts],
        }


def locality(
    solver: Solver,
    baseline: Baseline,
    traces: Mapping[Site, Trace],
    report: ProblemSet,
    plan: LocalityPlan,
    *,
    batching: Batching,
    store: Store | None = None,
    unfinished: Unfinished | None = None,
) -> dict[str, pd.DataFrame]:
    """f_p against f_a for every value, at every site, in the value's best component.

    f_a moves a sub-expression by each of its operands in turn: a coordinate that means b - c
    follows it whichever of the two moves. Left out are values of which the answer is no affine
    function with a slope that is not zero, and operands that move the value by other than one each,
    or stand outside it as well. What the store has of other cells, or `unfinished` of an earlier
    attempt at this one, is not computed again.

    Returns:
        `locality`: a row per site, value and operand. `locality_curves`: the functions for the
        first problem, and the distance |f_p - f_a| over all.
    """
    n = min(plan.n_problems or len(report), len(report))
    problems = report.take(np.arange(n))
    kept = unfinished or Unfinished.nothing()
    bench = _Bench(
        solver, baseline.take(n), problems, traces, plan, batching, store or Store(None), kept
    )
    expression = report.template.expression
    slopes = {value: _slope(expression, value, problems) for value in expression.values}
    moves = [
        (value, operand, step)
        for value, slope in slopes.items()
        if slope is not None
        for operand in expression.operands_of(value)
        if (step := _step(expression, value, operand, problems))
    ]
    probes = [
        _probe(bench, value, operand, step)
        for value, operand, step in progress(moves, description="replacing", unit="values")
    ]
    rows, curves = [], []
    work = [
        (found, component, probe)
        for found in traces.values()
        for probe in probes
        if (component := found.best_component(probe.value)) is not None
    ]
    wanted = list(dict.fromkeys((found.site, component) for found, component, _ in work))
    swept = _sweep(bench, wanted)
    for found, component, probe in progress(work, description="locality", unit="functions"):
        slope = slopes[probe.value]
        assert slope is not None
        row, curve = compare(found, component, problems, slope, swept[found.site, component], probe)
        rows.append(row)
        curves.append(curve)
    empty = pd.DataFrame()
    return {
        "locality": pd.DataFrame(rows),
        "locality_curves": pd.concat(curves, ignore_index=True) if curves else empty,
    }


def _slope(
    expression: Expression, value: str, problems: ProblemSet
) -> Float64[Tensor, " n"] | None:
    """The answer's change per unit of the value, by problem; None unless affine and not flat."""
    current = problems.values[value]
    try:
        answers = {
            by: torch.from_numpy(
                expression.replace(value, current + by, problems.operands)
            ).double()
            for by in (-300, -1, 0, 1, 300)
        }
    except UserError:  # a divisor of 0 on the way: not affine
        return None
    slope = answers[1] - answers[0]
    straight = all(torch.equal(y - answers[0], by * slope) for by, y in answers.items())
    return slope if straight and bool((slope != 0).all()) else None


def _step(expression: Expression, value: str, operand: str, problems: ProblemSet) -> int:
    """+1 or -1: how far the value goes when the operand rises by one.

    0 where that is not so in every problem, or where the operand stands outside the value too.
    """
    inside = len(parse(value).render({o: o for o in expression.operands}).spans[operand])
    everywhere = len(expression.render({o: o for o in expression.operands}).spans[operand])
    raised = {**problems.operands, operand: problems.operands[operand] + 1}
    if not expression.defined(raised).all():
        return 0
    steps = set((expression.evaluate(raised)[value] - problems.values[value]).tolist())
    return steps.pop() if inside == everywhere and steps in ({1}, {-1}) else 0


def _sweep(bench: _Bench, wanted: Sequence[tuple[Site, int]]) -> dict[tuple[Site, int], Sweep]:
    """Edit components over their observed range, and somewhat beyond."""
    places, edits = [], []
    for site, component in wanted:
        found = bench.traces[site]
        at = _evenly(found.coordinates[:, component], bench.plan)
        direction = found.components.directions[component].expand(len(at), -1)
        own = found.coordinates[None, : len(bench.baseline), component]
        places.append(at)
        edits.append(SiteEdits(site, direction, at[:, None] - own))

    def answer() -> dict[str, Tensor]:
        n_rows = sum(asked.changes.numel() for asked in edits)
        with progress(n_rows, description="locality", unit="edits") as bar:
            answers = run_edits(
                bench.solver,
                bench.baseline,
                edits,
                batching=bench.batching,
                bar=bar,
                unfinished=bench.unfinished,
            )
        return {f"edits {i}": found.numbers for i, found in enumerate(answers)}

    key = edits_key(bench.solver, bench.baseline, edits)
    answers = bench.store.fetch("sweeps", key, answer, code=CODE)
    return {
        target: Sweep(at, answers[f"edits {i}"])
        for i, (target, at) in enumerate(zip(wanted, places, strict=True))
    }


def _evenly(observed: Float64[Tensor, " n"], plan: LocalityPlan) -> Float64[Tensor, " g"]:
    """Places over the observed range, and somewhat beyond."""
    middle = (observed.max() + observed.min()) / 2
    half = plan.coordinate_span * (observed.max() - observed.min()) / 2
    ends = float(middle - half), float(middle + half)
    return torch.linspace(*ends, plan.coordinate_points, dtype=torch.float64)


def _probe(bench: _Bench, value: str, operand: str, step: int) -> Probe:
    """Move a value through one operand in the input and read the coordinates at every site."""
    problems, plan = bench.problems, bench.plan
    low, high = plan.ranges[operand]
    observed = problems.values[value]
    ends = (low, high) if value == operand else (observed.min(), observed.max())
    places = np.linspace(*ends, plan.value_points).round().astype(np.int64)
    moved = problems.operands[operand][:, None] + (places - observed[:, None]) * step
    prompts = [
        bench.solver.encode(problems.replaced(operand, numbers), digits=plan.digits)
        for numbers in np.clip(moved, low, high).T
    ]
    key = bench.reading(prompts)
    piece = bench.unfinished.piece("probe", key)

    def read() -> dict[str, Tensor]:
        found = [
            piece.fetch(
                f"place {place}",
                lambda asked=asked: read_coordinates(
                    bench.solver, asked, bench.traces, batching=bench.batching
                ),
            )
            for place, asked in enumerate(prompts)
        ]
        return {name: torch.stack([at[name] for at in found], dim=1) for name in found[0]}

    at = bench.store.fetch("probes", key, read, code=CODE)
    return Probe(
        value,
        operand,
        torch.from_numpy(places).double(),
        {site: at[f"site {i}"] for i, site in enumerate(bench.traces)},
        torch.from_numpy((moved >= low) & (moved <= high)),
    )
