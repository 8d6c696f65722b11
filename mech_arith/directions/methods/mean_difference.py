"""Difference of class means: from where a value is small to where it is large.

A value that has few numbers on the fit split has a class for each of them. Its directions are the
principal axes of the class means, each mean weighing as much as its class has problems: of two
classes this is their difference. Any other value has two classes, above its median and not.

Source: Marks & Tegmark (2024), "The geometry of truth", whose probe of two classes this is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.base import (
    METHODS,
    FitTask,
    Subspace,
    positive_peaks,
    values_of_frames,
)
from mech_arith.directions.moments import Joint, JointMoments, KeepsMoments
from mech_arith.problems import ProblemSet


@METHODS.register("mean_difference")
@dataclass
class MeanDifferenceFitter(KeepsMoments):
    """Class means of every value, in O((d + classes)^2) memory."""

    is_supervised: ClassVar[bool] = True
    is_per_value: ClassVar[bool] = True

    n_components: int
    max_classes: int = 10
    _classes: list[Float64[Tensor, " classes"]] = field(init=False, default_factory=list)
    """Of every value the largest number of each class but the last."""
    _moments: JointMoments = field(init=False, default_factory=JointMoments)

    def __post_init__(self) -> None:
        if self.max_classes < 2:
            raise UserError(
                f"expected tracing.options.max_classes >= 2, got {self.max_classes}; a difference "
                "takes two classes"
            )

    def check(self, problems: ProblemSet, ranks: Sequence[int]) -> None:
        """Refuse values without classes, and ranks for which there are too few.

        Raises:
            UserError: no value has two classes, or enough for the ranks.
        """
        numbers = {name: torch.from_numpy(of).double() for name, of in problems.values.items()}
        most = max((len(self._ends(of)) for of in numbers.values()), default=0)
        if most == 0:
            raise UserError(
                "expected a value of two classes or more on the fit split with "
                f"tracing.method=mean_difference, got one number of each of {', '.join(numbers)}; "
                "widen problems.operands"
            )
        if max(ranks, default=1) > most:
            raise UserError(
                f"expected tracing.rank <= {most} with tracing.method=mean_difference, got "
                f"{max(ranks)}: a value of n classes has n - 1 directions, and one of more numbers "
                f"than tracing.options.max_classes={self.max_classes} has 1; lower the rank or "
                "raise max_classes"
            )

    def start(self, task: FitTask) -> None:
        """Read the classes off the values of the fit split."""
        self._classes = [self._ends(of) for of in task.values.mT]

    def _ends(self, numbers: Float64[Tensor, " n"]) -> Float64[Tensor, " ends"]:
        """Between the classes of a value: each class ends with such a number."""
        known = numbers.unique()
        if len(known) <= self.max_classes:
            return known[:-1]
        # The lower one of two middle numbers; where no number is above, the next smaller one.
        median = numbers.median()
        return torch.minimum(median, known[-2])[None]

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        members = [
            torch.nn.functional.one_hot(torch.bucketize(of.contiguous(), ends), len(ends) + 1)
            for of, ends in zip(values.mT, self._classes, strict=True)
        ]
        self._moments.update(activations, torch.cat(members, dim=1).double())

    def fit(self) -> Subspace:
        """The axes of every value in turn, as many as were asked for or its classes allow.

        Raises:
            UserError: fewer rows than two.
        """
        found = self._moments.joint(1)
        axes, start = [], 0
        for ends in self._classes:
            members = slice(start, start + len(ends) + 1)
            axes.append(_axes(found, members)[: self.n_components])
            start = members.stop
        directions = positive_peaks(torch.cat(axes))
        return Subspace(
            found.mean,
            directions,
            found.along(directions),
            found.total_variance,
            of_value=values_of_frames(axes),
        )


def _axes(found: Joint, members: slice) -> Float64[Tensor, "k d"]:
    """Principal axes of the means of some classes, of which the columns `members` mark members."""
    share = found.mean_beside[members]
    to_sums = (found.count - 1) / found.count  # an indicator's covariance is share * (mean - mean)
    from_mean = to_sums * found.cross[:, members] / share.sqrt()
    _, sizes, axes = torch.linalg.svd(from_mean.mT, full_matrices=False)
    n_most = min(len(share) - 1, int((sizes.square() > found.floor).sum()))
    return axes[:n_most]
