"""Edits folded into weights: the matrix that writes a point writes what the edit would make of it.

Weights act at every position alike. So a folded edit is the edit of activations that applies one
rule at every position of the prompt, and of the answer as it is written: along one direction of the
point's width, with one line from coordinate to new coordinate for all problems.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.interventions.edits.base import Edit, edits_that
from mech_arith.models.base import Model, Place
from mech_arith.models.editable import EditableModel, matrix
from mech_arith.models.prompts import Prompts

FOLDED_POINTS = ("attn_out", "mlp_out", "z")
"""Those that a matrix of the block writes; of `z` the one that reads it."""

AGREES = 1e-3
"""Size of the difference between folded and hooked read-outs, over that of what the edit does."""

OWN_DOSE = "moves each problem by a dose of its own, while weights are the same for all"
"""Why an edit towards other values is not folded."""

TRIED = (0.01, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
"""Coordinates at which an edit is tried for being a line, in standard deviations to both sides:
over the observed range, and beyond it, where other positions of the prompt are."""


@dataclass(frozen=True)
class Fold:
    """A change of every position's activation by a line in its coordinate on each direction."""

    layer: int
    point: str
    frame: Float64[Tensor, "k width"]
    """Orthonormal directions."""
    gain: Float64[Tensor, " k"]
    """How far the activation moves along each direction per unit of its coordinate, which is
    measured from the origin here."""
    offset: Float64[Tensor, " k"]
    """How far it moves where that coordinate is zero, in activation units."""

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves the weights as they are."""
        return not bool((self.gain != 0).any() or (self.offset != 0).any())

    @property
    def size(self) -> tuple[float, float]:
        """How much there is of it: by the largest gain first, then by the largest offset."""
        # What is left of a gain of nothing by rounding must not decide.
        return round(float(self.gain.abs().max()), 9), float(self.offset.abs().max())

    def rms(self, mean: Float[Tensor, " width"], moments: Float64[Tensor, "k 2"]) -> float:
        """Root mean square of the change, from the first two moments of each coordinate, which are
        measured from `mean` there.
        """
        first, second = moments.unbind(1)
        constant = self._at(mean)
        square = self.gain.square() * second + 2 * self.gain * constant * first + constant.square()
        return math.sqrt(max(float(square.sum()), 0.0))

    def along(
        self, frame: Float[Tensor, "k width"], mean: Float[Tensor, " width"], *, factor: float
    ) -> "Fold":
        """The same lines in the coordinates of another frame, measured from `mean`, times a
        factor.
        """
        frame, gain = frame.double(), factor * self.gain
        offset = factor * self._at(mean) - gain * (frame @ mean.double())
        return Fold(self.layer, self.point, frame, gain, offset)

    def _at(self, mean: Float[Tensor, " width"]) -> Float64[Tensor, " k"]:
        """How far an activation at the mean moves."""
        return self.offset + self.gain * (self.frame @ mean.double())

    def change(self, activation: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows k"]:
        """How far activations move along each direction."""
        coordinates = activation @ self.frame.to(activation).mT
        return self.gain.to(activation) * coordinates + self.offset.to(activation)

    def of_activation(self, activation: Float[Tensor, "*rows width"]) -> Tensor:
        """The same edit, made on activations: what a model with the folded weights computes."""
        return activation + self.change(activation) @ self.frame.to(activation)


def fold_of(
    place: Place,
    frame: Float[Tensor, "k width"],
    origin: Float[Tensor, " width"],
    edit: Edit,
    strength: float,
    *,
    sd: Float64[Tensor, " k"],
) -> Fold:
    """An edit of coordinates as a line that is the same at all positions.

    With c = v.(A - origin) on each direction v, a rule c -> p c + q moves A along v by
    (p - 1) c + q.

    Args:
        place: the site's layer and point.
        frame: orthonormal directions.
        origin: the activation whose coordinates are 0: the mean, or zero for uncentred edits.
        edit: the rule.
        strength: in the edit's unit.
        sd: each coordinate's standard deviation on the fit split, or its part of a step along the
            value's line.

    Raises:
        UserError: the edit is no such line, or the point is written by no one matrix.
    """
    check_foldable(edit, place[1])
    frame = frame.double()
    lines = [_line(edit, strength, sd=of_one) for of_one in sd.tolist()]
    at_zero, gain = torch.tensor(lines, dtype=torch.float64).unbind(1)
    offset = at_zero - gain * (frame @ origin.double())
    return Fold(*place, frame, gain, offset)


def _line(edit: Edit, strength: float, *, sd: float) -> tuple[float, float]:
    """How far the edit moves a coordinate of 0, and how much farther for each unit of it.

    Raises:
        UserError: no line goes through what it does to coordinates within the observed range and
            far beyond it.
    """
    points = sd * torch.tensor(TRIED, dtype=torch.float64)
    tried = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), -points, points])
    moved = edit.change(tried, strength, sd=sd).double()
    at_zero, gain = float(moved[0]), float(moved[1] - moved[0])
    line = at_zero + gain * tried
    scale = tried.abs() + moved.abs() + abs(at_zero)
    apart = ((moved - line).abs() > 1e-9 * scale).nonzero()[:, 0]
    if len(apart):
        at = apart[0]
        raise UserError(
            "expected an edit that is one line in the coordinate with intervention.via=weights, "
            f"got {edit.name!r}, which moves {float(tried[at]):.3g} by {float(moved[at]):.3g}, "
            f"where the line through 0 and 1 has {float(line[at]):.3g}; choose "
            "intervention.via=activations"
        )
    return at_zero, gain


def fold(model: Model, change: Fold) -> EditableModel:
    """The model with an edit in its weights; the one given stays as it is.

    With the block's matrix W and bias b, activations A = W x + b become A + V^T (g V A + o) where W
    becomes (I + V^T g V) W, and b becomes b + V^T (g V b + o). The rows of V are the directions, g
    is diagonal. At `z`, which the matrix reads, W (z + V^T (g V z + o)) + b is
    W (I + V^T g V) z + (b + W V^T o).

    All other tensors are shared with the model given.

    Raises:
        UserError: no one matrix writes the point, or the model's weights cannot be had.
    """
    editable = check_editable(model)
    weight, bias = matrix(editable.projection(change.layer, change.point))
    v, gain, offset = (part.to(weight) for part in (change.frame, change.gain, change.offset))
    if change.point == "z":
        along = weight @ v.mT
        weight = weight + (along * gain) @ v
        added = along @ offset
    else:
        weight = weight + (v.mT * gain) @ (v @ weight)
        added = (gain * (v @ bias if bias is not None else 0.0) + offset) @ v
    if bias is not None or bool((change.offset != 0).any()):
        bias = added if bias is None else bias + added
    return editable.with_projection(change.layer, change.point, weight, bias)


def check_editable(model: Model) -> EditableModel:
    """The model, whose weights can be edited.

    Raises:
        UserError: they cannot.
    """
    if not isinstance(model, EditableModel):
        raise UserError(
            f"expected a model with matrices to edit, got {model.name}; choose "
            "intervention.via=activations"
        )
    return model


def check_foldable(edit: Edit, point: str, strengths: Sequence[float] = ()) -> None:
    """Raise a UserError, which says why, where no change of weights is the same as an edit.

    At the strengths given the edit is tried for being a line, with coordinates of unit variance.
    """
    if not edit.is_affine or edit.target is not None:
        why = "is no line in the coordinate" if edit.target is None else OWN_DOSE
        raise UserError(
            f"expected one of the edits {edits_that(are_affine=True)} with "
            f"intervention.via=weights, got {edit.name!r}, which {why}; choose one of those, or "
            "intervention.via=activations"
        )
    if point not in FOLDED_POINTS:
        raise UserError(
            f"expected tracing.point attn_out, mlp_out or z with intervention.via=weights, got "
            f"{point!r}: the residual stream is a sum of what all blocks below write, so no one "
            "matrix holds it; choose one of those, or intervention.via=activations"
        )
    for strength in strengths:
        _line(edit, strength, sd=1.0)


def check_single(positions: Sequence[str], prompts: Prompts) -> None:
    """Raise a UserError where a site is more than one position."""
    for name in positions:
        count = len(prompts.positions(name)[0])
        if count > 1:
            raise UserError(
                f"expected a single position with intervention.via=weights, got {name!r} of {count}"
                " positions: weights act at every position alike, along one direction of one "
                "position's width; choose tracing.positions=last, another single one or each, or "
                "intervention.via=activations"
            )


@torch.inference_mode()
def difference(model: Model, folded: Model, change: Fold, prompts: Prompts) -> float:
    """How far a folded model is from the same edit made on activations, at every position.

    Whole passes over the first two problems are compared.

    Returns:
        Size of the difference between what is read out, over the size of what the edit does to it.

    Raises:
        UserError: it is not the same edit: something stands between the matrix and the point.
    """
    tokens = prompts.whole(prompts.layouts[0].part(slice(2))).to(model.device)
    place = {(change.layer, change.point): change.of_activation}
    clean, edited = model.full_pass(tokens, {}), model.full_pass(tokens, place)
    apart = (folded.full_pass(tokens, {}) - edited).double().norm()
    size = float(apart / ((edited - clean).double().norm() + 0.1 * clean.double().norm()))
    limit = AGREES if model.dtype == torch.float32 else 0.1
    if not size <= limit:
        raise UserError(
            f"expected weights of {model.name} that do what the edit of {change.point} at layer "
            f"{change.layer} does, within {limit:g}, got a relative difference of {size:.2g}; "
            "choose intervention.via=activations, and report the model"
        )
    return size
