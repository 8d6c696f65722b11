"""The paper's locality test: does a coordinate mean to the model what it correlates with?

Suppose that the edited coordinate *is* a value (say b) and that nothing else changed. Then each
edited prediction y gives the b that solves the expression for y: this is the predicted function
f_p, the coordinate as a function of b. The actual function f_a really replaces b in the input and
reads the coordinate. Where the model uses the coordinate as b, the two agree.

Source: Matsumoto et al. (2022), section 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.engine import Baseline, edited_answers
from mech_arith.expressions import Expression, parse
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.statistics import pearson, r_squared
from mech_arith.tracing import Trace, coordinates

DEGREE = 4
"""Of the polynomial that f_p is fitted with, as in the paper."""


@dataclass(frozen=True)
class LocalityPlan:
    """How finely the two functions are sampled."""

    n_problems: int | None
    coordinate_points: int
    coordinate_span: float
    value_points: int
    operand_range: tuple[int, int]


@dataclass(frozen=True)
class _Probe:
    """A value really replaced: through one operand, at several places, in every problem."""

    places: Float64[Tensor, " x"]
    """What the value is set to."""
    coordinates: dict[Site, Float64[Tensor, "n x k"]]
    """Of the problems so changed."""
    valid: Bool[Tensor, "n x"]
    """The operand stayed within its range."""


def locality(
    solver: Solver,
    baseline: Baseline,
    traces: Mapping[Site, Trace],
    report: ProblemSet,
    plan: LocalityPlan,
    batch_size: int,
) -> dict[str, pd.DataFrame]:
    """f_p against f_a for every value, at every site, in the value's best component.

    Values of which the answer is no affine function (with a slope that is not zero) are left out.

    Returns:
        `locality`: a row per site and value. `locality_curves`: the functions for the first
        problem, and the distance |f_p - f_a| over all.
    """
    n = min(plan.n_problems or len(report), len(report))
    problems, baseline = report.take(np.arange(n)), baseline.take(n)
    expression = report.template.expression
    values = [v for v in expression.values if _slope(expression, v, problems) is not None]
    probes = {
        value: _probe(solver, problems, value, traces, plan, batch_size)
        for value in progress(values, description="replacing values", unit="values")
    }
    pairs = [(found, value) for found in traces.values() for value in values]
    rows, curves = [], []
    edits = {}
    with progress(len(pairs), description="locality", unit="functions") as bar:
        for found, value in pairs:
            component = found.best_component(value)
            key = (found.site, component)
            if key not in edits:
                edits[key] = _swept(solver, baseline, found, component, plan, batch_size)
            swept, predictions = edits[key]
            row, curve = _compare(found, component, value, problems, swept, predictions, probes)
            rows.append(row)
            curves.append(curve)
            bar.advance()
    return {"locality": pd.DataFrame(rows), "locality_curves": pd.concat(curves, ignore_index=True)}


def _slope(
    expression: Expression, value: str, problems: ProblemSet
) -> Float64[Tensor, " n"] | None:
    """The answer's change per unit of the value, by problem; None unless affine and not flat."""
    current = problems.values[value]
    steps = [
        torch.from_numpy(expression.replace(value, current + by, problems.operands)).double()
        for by in (-300, -1, 0, 1, 300)
    ]
    slope = steps[3] - steps[2]
    straight = all(
        torch.equal(step - steps[2], by * slope)
        for step, by in zip(steps, (-300, -1, 0, 1, 300), strict=True)
    )
    return slope if straight and bool((slope != 0).all()) else None


def _swept(
    solver: Solver,
    baseline: Baseline,
    found: Trace,
    component: int,
    plan: LocalityPlan,
    batch_size: int,
) -> tuple[Float64[Tensor, " g"], Float64[Tensor, "g n"]]:
    """The coordinate set to evenly spaced places in every problem, and the answers then given."""
    observed = found.coordinates[:, component]
    middle = (observed.max() + observed.min()) / 2
    half = plan.coordinate_span * (observed.max() - observed.min()) / 2
    swept = torch.linspace(
        float(middle - half), float(middle + half), plan.coordinate_points, dtype=torch.float64
    )
    changes = swept[:, None] - observed[None, : len(baseline.answers)]
    direction = found.components.directions[component]
    answers = edited_answers(
        solver,
        baseline,
        found.site,
        direction.expand(len(swept), -1),
        changes,
        batch_size=batch_size,
    )
    return swept, answers


def _probe(
    solver: Solver,
    problems: ProblemSet,
    value: str,
    traces: Mapping[Site, Trace],
    plan: LocalityPlan,
    batch_size: int,
) -> _Probe:
    """Replace a value in the input and read the coordinates at every site.

    An operand is replaced by itself; a sub-expression is moved by its first operand.
    """
    low, high = plan.operand_range
    operand = parse(value).operands[0]
    observed = problems.values[value]
    ends = (low, high) if value == operand else (observed.min(), observed.max())
    places = np.linspace(*ends, plan.value_points).round().astype(np.int64)
    slope = _operand_slope(value, operand, problems)
    parts: list[dict[Site, Tensor]] = []
    valid = []
    for place in places:
        moved = problems.operands[operand] + (place - observed) * slope
        inside = (moved >= low) & (moved <= high)
        replaced = problems.replaced(operand, np.clip(moved, low, high))
        tokens = solver.encode(replaced).tokens
        found = coordinates(
            solver,
            tokens,
            {site: trace.components for site, trace in traces.items()},
            batch_size=batch_size,
        )
        parts.append({site: projected.coordinates for site, projected in found.items()})
        valid.append(torch.from_numpy(inside))
    return _Probe(
        torch.from_numpy(places).double(),
        {site: torch.stack([part[site] for part in parts], dim=1) for site in traces},
        torch.stack(valid, dim=1),
    )


def _operand_slope(value: str, operand: str, problems: ProblemSet) -> int:
    """+1 or -1: how the operand must move for the value to rise by one."""
    inner = parse(value)
    mine = {name: problems.operands[name] for name in inner.operands}
    raised = inner.evaluate({**mine, operand: mine[operand] + 1})[value] - problems.values[value]
    return 1 if bool((raised == 1).all()) else -1


def _compare(
    found: Trace,
    component: int,
    value: str,
    problems: ProblemSet,
    swept: Float64[Tensor, " g"],
    predictions: Float64[Tensor, "g n"],
    probes: Mapping[str, _Probe],
) -> tuple[dict[str, object], pd.DataFrame]:
    """f_p and f_a of one value in one component, on the places that both cover."""
    probe = probes[value]
    expression = problems.template.expression
    slope = _slope(expression, value, problems)
    assert slope is not None
    original = torch.from_numpy(problems.values[value]).double()
    right = torch.from_numpy(problems.answers).double()
    hypothetical = (original + (predictions - right) / slope).mT
    predicted = _polynomial(hypothetical, swept, probe.places)
    actual = probe.coordinates[found.site][:, :, component]
    covered = (
        probe.valid
        & torch.isfinite(predicted)
        & (probe.places >= hypothetical.nan_to_num(torch.inf).amin(1, keepdim=True))
        & (probe.places <= hypothetical.nan_to_num(-torch.inf).amax(1, keepdim=True))
    )
    row = {
        "layer": found.site.layer,
        "position": found.site.position,
        "component": component,
        "value": value,
        "r": float(pearson(predicted[covered][:, None], actual[covered][:, None])[0, 0])
        if int(covered.sum()) > 2
        else float("nan"),
        "r2": r_squared(predicted[covered], actual[covered]),
        "covered": float(covered.double().mean()),
        "n_problems": len(problems),
    }
    observed = found.coordinates[:, component]
    curves = _curves(probe.places, original, predicted, actual, covered).assign(
        layer=found.site.layer,
        component=component,
        value=value,
        original=float(original[0]),
        observed_low=float(observed.min()),
        observed_high=float(observed.max()),
    )
    return row, curves


def _polynomial(
    x: Float64[Tensor, "n g"], y: Float64[Tensor, " g"], at: Float64[Tensor, " x"]
) -> Float64[Tensor, "n x"]:
    """Y as a polynomial of x, fitted to each row by least squares, at new places.

    Rows with too few distinct numbers to fit are NaN.
    """
    known = torch.isfinite(x)
    centre = x.nanmean(1, keepdim=True)
    reach = torch.where(known, (x - centre).abs(), 0).amax(1, keepdim=True)
    enough = (known.sum(1, keepdim=True) > DEGREE) & (reach > 0)
    scaled = torch.where(known, (x - centre) / reach.clamp(min=1e-12), 0)
    powers = torch.arange(DEGREE + 1)
    design = torch.where(known[..., None], scaled[..., None] ** powers, 0)
    target = torch.where(known, y.expand_as(x), 0)[..., None]
    coefficients = torch.linalg.lstsq(design, target, driver="gelsd").solution
    places = ((at - centre) / reach.clamp(min=1e-12))[..., None] ** powers
    return torch.where(enough, (places @ coefficients)[..., 0], torch.nan)


def _curves(
    places: Float64[Tensor, " x"],
    original: Float64[Tensor, " n"],
    predicted: Float64[Tensor, "n x"],
    actual: Float64[Tensor, "n x"],
    covered: Bool[Tensor, "n x"],
) -> pd.DataFrame:
    """The first problem's functions, and the median and quartiles of |f_p - f_a| by distance."""
    tables = []
    for kind, function, known in (
        ("f_p", predicted[0], covered[0]),
        ("f_a", actual[0], torch.isfinite(actual[0])),
    ):
        tables.append(
            pd.DataFrame({"kind": kind, "problem": 0, "x": places[known], "y": function[known]})
        )
    distance = (places - original[:, None])[covered].numpy()
    gap = (predicted - actual).abs()[covered].numpy()
    width = float(places[-1] - places[0]) / 10 or 1.0
    binned = pd.DataFrame({"x": np.round(distance / width) * width, "gap": gap}).groupby("x")["gap"]
    low, middle, high = (binned.quantile(share) for share in (0.25, 0.5, 0.75))
    if len(middle):
        tables.append(
            pd.DataFrame(
                {
                    "kind": "distance",
                    "problem": -1,
                    "x": middle.index,
                    "y": np.asarray(middle),
                    "low": np.asarray(low),
                    "high": np.asarray(high),
                }
            )
        )
    curves = pd.concat(tables, ignore_index=True)
    return curves.reindex(columns=["kind", "problem", "x", "y", "low", "high"])
