"""How well answers answer, clean and edited."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mech_arith.statistics import r_squared


def exact(
    predicted: Float[Tensor, "*rows n"], right: Float[Tensor, " n"], *, tolerance: float
) -> Bool[Tensor, "*rows n"]:
    """Which predictions are within the tolerance; NaN never is."""
    return (predicted - right).abs() <= tolerance


def accuracy(
    predicted: Float[Tensor, " n"], right: Float[Tensor, " n"], *, tolerance: float
) -> float:
    """Share of exact answers."""
    return float(exact(predicted, right, tolerance=tolerance).double().mean())


@dataclass(frozen=True)
class EditOutcome:
    """What one edit did to the answers of many problems."""

    baseline_accuracy: float
    edited_accuracy: float
    mean_shift: float
    """Mean of edited minus clean prediction, where both are numbers; NaN where none is."""
    mean_abs_shift: float
    """Mean distance between edited and clean prediction. An edit that moves problems to both sides,
    as scaling a centred coordinate does, shows here and not in `mean_shift`."""
    not_a_number: float
    """Share of problems whose edited answer is no number."""
    r2: float
    """Of edited predictions against the right answers."""
    median_abs_error: float

    @property
    def accuracy_drop(self) -> float:
        """Baseline minus edited accuracy."""
        return self.baseline_accuracy - self.edited_accuracy


def edit_outcome(
    edited: Float[Tensor, " n"],
    clean: Float[Tensor, " n"],
    right: Float[Tensor, " n"],
    *,
    tolerance: float,
) -> EditOutcome:
    """Compare edited with clean predictions and with the right answers."""
    is_number = torch.isfinite(edited)
    both = is_number & torch.isfinite(clean)
    nothing = float("nan")
    return EditOutcome(
        baseline_accuracy=accuracy(clean, right, tolerance=tolerance),
        edited_accuracy=accuracy(edited, right, tolerance=tolerance),
        mean_shift=float((edited - clean)[both].mean()) if both.any() else nothing,
        mean_abs_shift=float((edited - clean)[both].abs().mean()) if both.any() else nothing,
        not_a_number=1 - float(is_number.double().mean()),
        r2=r_squared(edited, right),
        median_abs_error=(
            float((edited - right)[is_number].abs().median()) if is_number.any() else nothing
        ),
    )
