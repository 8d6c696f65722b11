"""How well a value can be read from its subspace: a line fitted on one split, tried on the other.

A supervised method finds something for any values, also for ones that are not there. Beside each
reading stands the one of its control task: the same method, fitted to a random function of the
operands, read on problems that it has not seen.

Source: Hewitt & Liang (2019), "Designing and interpreting probes with control tasks".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.directions.base import Subspace
from mech_arith.problems import ProblemSet
from mech_arith.statistics import Inference, r_squared


def chosen_components(r_fit: Float64[Tensor, "k v"]) -> Int64[Tensor, " v"]:
    """For each value the component with the largest |R| on the fit split; -1 where none has any."""
    if not len(r_fit):
        return torch.full(r_fit.shape[1:], -1, dtype=torch.int64)
    found = r_fit.abs().nan_to_num(-1).max(0)
    return torch.where(found.values < 0, -1, found.indices)


@dataclass(frozen=True)
class Fitted:
    """Directions at a site with what is known of them and v values."""

    subspace: Subspace
    r_fit: Float64[Tensor, "k v"]
    """R on the fit split."""
    coordinates: Float64[Tensor, "n k"]
    """Of the report split's problems."""
    values: Float64[Tensor, "n v"]
    """Of the report split's problems."""
    value_mean: Float64[Tensor, " v"]
    """Of the fit split."""
    value_sd: Float64[Tensor, " v"]

    @cached_property
    def r_for_choice(self) -> Float64[Tensor, "k v"]:
        """R on the fit split; NaN where a direction was found for another value."""
        mine = [self.subspace.of(value) for value in range(self.r_fit.shape[1])]
        return self.r_fit.where(torch.stack(mine, dim=1), torch.nan) if mine else self.r_fit

    @cached_property
    def chosen(self) -> Int64[Tensor, " v"]:
        """The component that the fit split chooses for each value; -1 for none."""
        return chosen_components(self.r_for_choice)

    def frame(self, value: int, rank: int) -> tuple[int, ...]:
        """The directions of a value's subspace of a rank; none if there are too few.

        Of rank 1 it is the value's best component.
        """
        if rank == 1 and not self.subspace.has_own(value, rank):
            best = int(self.chosen[value])
            return () if best < 0 else (best,)
        return self.subspace.frame(value, rank)

    def readings(self, rank: int) -> tuple["Reading | None", ...]:
        """Every value, read from its subspace of a rank; None as in `Readings`."""
        varies = (self.value_sd > 0).tolist()
        frames = {v: self.frame(v, rank) for v, some in enumerate(varies) if some}
        known = {value: frame for value, frame in frames.items() if frame}
        if rank == 1:
            found = self._single_readings([*known], [frame[0] for frame in known.values()])
        else:
            found = [self.reading(frame, value) for value, frame in known.items()]
        by_value = dict(zip(known, found, strict=True))
        return tuple(by_value.get(value) for value in range(len(varies)))

    def _single_readings(self, values: Sequence[int], components: Sequence[int]) -> list["Reading"]:
        """`reading` of several values, each from one component of its own."""
        if not values:
            return []
        at, of = list(components), list(values)
        sd, subspace = self.value_sd[of], self.subspace
        slopes = self.r_fit[at, of] * subspace.sd[at] / sd
        with_values = slopes * sd.square()
        weights = with_values / subspace.covariance.double()[at, at]
        centred = self.coordinates[:, at] - subspace.mean_coordinates[at]
        read = self.value_mean[of] + centred * weights
        r_fit = (with_values * weights / sd.square()).clamp(0, 1).sqrt()
        r2 = r_squared(read.mT, self.values[:, of].mT)
        return [
            Reading((component,), read[:, place], float(r_fit[place]), float(r2[place]))
            for place, component in enumerate(at)
        ]

    def slope(self, components: Sequence[int], value: int) -> Float64[Tensor, " k"]:
        """How far coordinates go per unit of a value, by least squares over the fit split."""
        at = list(components)
        return self.r_fit[at, value] * self.subspace.sd[at] / self.value_sd[value]

    def reading(self, components: Sequence[int], value: int) -> "Reading":
        """The value as a line in some coordinates, by least squares over the fit split."""
        at = list(components)
        covariance = self.subspace.covariance.double()[at][:, at]
        with_value = self.slope(at, value) * self.value_sd[value].square()
        weights = torch.linalg.lstsq(covariance, with_value[:, None], driver="gelsd").solution[:, 0]
        centred = self.coordinates[:, at] - self.subspace.mean_coordinates[at]
        read = self.value_mean[value] + centred @ weights
        explained = with_value @ weights / self.value_sd[value].square()
        return Reading(
            tuple(at),
            read,
            r_fit=float(explained.clamp(0, 1).sqrt()),
            r2=float(r_squared(read[None], self.values[:, value])[0]),
        )


@dataclass(frozen=True)
class Reading:
    """A value as it is read from its subspace."""

    components: tuple[int, ...]
    """Directions of the subspace."""
    read: Float64[Tensor, " n"]
    """The report split's problems, in the value's unit."""
    r_fit: float
    """R of what is read with the value, on the fit split."""
    r2: float
    """Share of the value's variance that is read right, on the report split: 1 - residual / total
    sum of squares. Below 0 where the mean would be nearer."""


@dataclass(frozen=True)
class Readings:
    """What is read of every value from its subspace of one rank, at one site."""

    rank: int
    by_value: tuple[Reading | None, ...]
    """None where there is no subspace of that rank, or the value is constant."""
    control_r2: tuple[float, ...]
    """`r2` of the control task, whatever numbers it has for the value; NaN without one."""
    inference: Inference
    """Of what is read with every value, `[v, v]`; of rank 1 that of the components, `[k, v]`."""


def control_values(fit: ProblemSet, problems: ProblemSet) -> Float64[Tensor, "n v"]:
    """Values that are not there: for each of them a random function of its operands.

    Every combination of the operands that a value is computed from is given one of the numbers that
    the value has on the fit split, at random but always the same one. So the marginal distribution
    is the value's own, equal operands have equal numbers in both splits, and nothing else is to be
    learnt.
    """
    hypothesis = problems.hypothesis
    columns = []
    for index, value in enumerate(hypothesis.values):
        operands = [problems.operands[name] for name in hypothesis.operands_of(value)]
        numbers = np.sort(fit.values[value])
        columns.append(numbers[_draws(np.stack(operands, axis=1), index, len(numbers))])
    return torch.from_numpy(np.stack(columns, axis=1)).double()


def _draws(operands: np.ndarray, index: int, n: int) -> np.ndarray:
    """A number below n for each row of operands, which depends on nothing else."""
    known: dict[tuple[int, ...], int] = {}
    for row in map(tuple, np.unique(operands, axis=0).tolist()):
        mixed = np.random.SeedSequence([index, *(abs(x) for x in row), *(x < 0 for x in row)])
        known[row] = int(mixed.generate_state(1, np.uint64)[0] % n)
    return np.array([known[row] for row in map(tuple, operands.tolist())], dtype=np.int64)
