"""f_p and f_a, once the problems have been run: both as functions of a value at the same places."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mech_arith.directions.tracing import Trace
from mech_arith.engine.sites import Site
from mech_arith.problems import ProblemSet

DEGREE = 4
"""Of the polynomial that f_p is fitted with, as in the paper."""


@dataclass(frozen=True)
class Probe:
    """A value really replaced, by moving one of its operands, at several places."""

    value: str
    moved_by: str
    places: Float64[Tensor, " x"]
    """What the value is set to."""
    coordinates: dict[Site, Float64[Tensor, "n x k"]]
    """Of the problems so changed."""
    valid: Bool[Tensor, "n x"]
    """The operand stayed within its range."""


@dataclass(frozen=True)
class Line:
    """A direction within a subspace at a site."""

    site: Site
    components: tuple[int, ...]
    """Directions of the subspace."""
    weights: tuple[float, ...]
    """Of each direction; their squares sum to 1."""

    def coordinate(self, coordinates: Float64[Tensor, "*rows all"]) -> Float64[Tensor, "*rows"]:
        """Along the line, of problems with such coordinates on all directions of the site."""
        at = coordinates[..., list(self.components)]
        return at[..., 0] if self.weights == (1.0,) else at @ at.new_tensor(self.weights)

    def direction(self, found: Trace) -> Float[Tensor, " width"]:
        """Unit vector in the site's activations."""
        rows = found.subspace.directions[list(self.components)]
        return rows[0] if self.weights == (1.0,) else rows.new_tensor(self.weights) @ rows


@dataclass(frozen=True)
class Sweep:
    """A coordinate set to evenly spaced places in every problem."""

    places: Float64[Tensor, " g"]
    answers: Float64[Tensor, "g n"]
    """Then given by the model."""


@dataclass(frozen=True)
class Functions:
    """A coordinate as a function of one value, predicted (f_p) and actual (f_a)."""

    site: Site
    component: int
    rank: int
    value: str
    moved_by: str
    """The operand through which the value is moved in the input."""
    places: Float64[Tensor, " x"]
    """What the value is set to."""
    original: Float64[Tensor, " n"]
    """The value of each problem as it is."""
    predicted: Float64[Tensor, "n x"]
    actual: Float64[Tensor, "n x"]
    valid: Bool[Tensor, "n x"]
    """Where f_a is defined: the operand stays within its range."""
    covered: Bool[Tensor, "n x"]
    """Where both functions are."""
    observed_low: float
    """The smallest coordinate of the report split."""
    observed_high: float


def functions(
    found: Trace,
    line: Line,
    problems: ProblemSet,
    slope: Float64[Tensor, " n"],
    sweep: Sweep,
    probe: Probe,
) -> Functions:
    """f_p and f_a of one value in one component.

    Args:
        found: the site's trace.
        line: along which coordinates are edited.
        problems: n of them.
        slope: the answer's change per unit of the value, by problem.
        sweep: answers with the coordinate set.
        probe: coordinates with the value replaced.
    """
    original = torch.from_numpy(problems.values[probe.value]).double()
    right = torch.from_numpy(problems.answers).double()
    hypothetical = (original + (sweep.answers - right) / slope).mT
    predicted = _polynomial(hypothetical, sweep.places, probe.places)
    covered = (
        probe.valid
        & torch.isfinite(predicted)
        & (probe.places >= hypothetical.nan_to_num(torch.inf).amin(1, keepdim=True))
        & (probe.places <= hypothetical.nan_to_num(-torch.inf).amax(1, keepdim=True))
    )
    observed = line.coordinate(found.coordinates)
    return Functions(
        site=found.site,
        component=line.components[0],
        rank=len(line.components),
        value=probe.value,
        moved_by=probe.moved_by,
        places=probe.places,
        original=original,
        predicted=predicted,
        actual=line.coordinate(probe.coordinates[found.site]),
        valid=probe.valid,
        covered=covered,
        observed_low=float(observed.min()),
        observed_high=float(observed.max()),
    )


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
