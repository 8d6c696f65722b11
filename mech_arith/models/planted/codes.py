"""A planted model that keeps a value in a subspace of several dimensions, and needs all of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import linprog
from torch import Tensor

from mech_arith.models.planted.model import BlockWeights, PlantedModel
from mech_arith.models.planted.planted import Plant, prompt_labels

D_MODEL, D_MLP = 64, 128
NOISE = (1.25, 0.5)
"""sd of coordinates that say nothing, beside circles of radius 1: one is louder than they are."""


@dataclass(frozen=True)
class Code:
    """A point of k dimensions for each number that a value may have: on a line and on circles."""

    numbers: Float64[Tensor, " n"]
    """Consecutive whole numbers."""
    periods: tuple[float, ...]
    """One circle of radius 1 each; of period 2 its cosine alone."""
    line: bool
    """Whether the first coordinate is the number, with the sd of a circle's coordinate."""

    @classmethod
    def of_rank(cls, rank: int, numbers: Float64[Tensor, " n"]) -> "Code":
        """The line of rank 1, otherwise circles of n, n/2, n/3, ... numbers; where the rank is odd
        also the cosine of period 2. None of the coordinates is to spare.
        """
        circles = [len(numbers) / turns for turns in range(1, 1 + rank // 2)]
        odd = [2.0] if rank % 2 and rank > 1 else []
        return cls(numbers, (*odd, *circles), line=rank == 1)

    @property
    def points(self) -> Float64[Tensor, "n k"]:
        """Of every number."""
        x = self.numbers
        parts = [(x - x.mean()) / x.std() / 2**0.5] if self.line else []
        for period in self.periods:
            angle = 2 * torch.pi * x / period
            parts += [angle.cos()] if period == 2 else [angle.cos(), angle.sin()]
        return torch.stack(parts, dim=1)

    def readers(self) -> Float64[Tensor, "n k"]:
        """For each number a direction along which its point lies farther than all others, by 1.

        Raises:
            ValueError: a point lies between others.
        """
        points = self.points.numpy()
        k = points.shape[1]
        directions = []
        for own, point in enumerate(points):
            apart = point - np.delete(points, own, axis=0)
            # Of all u with u (point - other) >= 1 for every other the one with the least sum |u_i|.
            found = linprog(
                np.ones(2 * k),
                A_ub=-np.hstack([apart, -apart]),
                b_ub=-np.ones(len(apart)),
                bounds=(0, None),
            )
            if not found.success:
                raise ValueError(f"expected points none of which lies between others, got {point}")
            directions.append(found.x[:k] - found.x[k:])
        return torch.from_numpy(np.stack(directions))

    def neurons(
        self,
    ) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """Neurons that together give the number of a point.

        Of each the direction that it reads, the threshold that it takes off, and what it gives per
        unit above. On circles there is one for each number; a line is read as it is.
        """
        points, numbers = self.points, self.numbers
        if not self.periods:
            slope = numbers.diff()[:1] / points.diff(dim=0)[:1, 0]
            # The first gives the smallest number wherever the point is.
            reads = torch.stack([torch.zeros_like(points[0]), torch.ones_like(points[0])])
            thresholds = torch.stack([torch.tensor(-1.0, dtype=torch.float64), points[0, 0]])
            return reads, thresholds, torch.cat([numbers[:1], slope])
        reads = self.readers()
        return reads, (reads * points).sum(1) - 1, numbers


class CodedModel(PlantedModel):
    """Writes one value as a code's point, and reads the number back off it, to answer.

    All is at `=`: there an MLP makes the points of the value, as a function that is linear between
    whole numbers, along `axes`. At the reader's layer another has a neuron for each number, which
    fires at its point alone. So the answer follows the point, in all of its coordinates. The
    plant's unread value is not written.
    """

    def __init__(self, plant: Plant, code: Code) -> None:
        self.code = code
        super().__init__(plant)

    @classmethod
    def drawn(cls, seed: int, rank: int) -> "CodedModel":
        """Of a random expression, in a random basis, with a code of some rank for 9 numbers."""
        plant = _at_the_end(Plant.drawn(seed))
        return cls(plant, Code.of_rank(rank, _numbers(plant)))

    @classmethod
    def with_helix(cls, seed: int) -> "CodedModel":
        """The same with 19 numbers on a line and circles of periods 2, 5 and 10: of rank 6."""
        plant = replace(_at_the_end(Plant.drawn(seed)), largest=9)
        return cls(plant, Code(_numbers(plant), (2.0, 5.0, 10.0), line=True))

    @property
    def axes(self) -> Float64[Tensor, "k d"]:
        """Of the code's coordinates: an orthonormal frame of the value's subspace."""
        return self.directions.spare[: self.code.points.shape[1]]

    def _blocks(self) -> list[BlockWeights]:
        plant = self.plant
        blocks = [BlockWeights.zeros(self.d_model, D_MLP) for _ in range(self.n_layers)]
        self._spread_noise(blocks[0], 0)
        self._write_code(blocks[plant.read.layer])
        self._read_code(blocks[plant.reader])
        return blocks

    def _write_code(self, block: BlockWeights) -> None:
        read, code = self.plant.read, self.code
        terms = self._operand_terms(self.plant.coefficients[read.value])
        heads = range(1, 1 + len(terms))
        total, scratch = self._bring(block, heads, read.position, terms)
        one = self.directions.place[read.position]  # 1 at this position, and 0 elsewhere
        slopes = code.points.diff(dim=0)
        turns = torch.cat([slopes[:1], slopes.diff(dim=0)])
        hinges = total - code.numbers[:-1, None] * one
        reads = torch.cat([one[None], hinges, scratch, -scratch])
        points = torch.cat([code.points[:1], turns]) @ self.axes
        self._add_neurons(block, reads, torch.cat([points, -scratch, scratch]))

    def _read_code(self, block: BlockWeights) -> None:
        terms, count = self._answer_terms()
        heads = range(1 + 2, 1 + 2 + len(terms))  # behind those that may write the code
        total, scratch = self._bring(block, heads, self.plant.read.position, terms)
        one, answer = self.directions.place[self.plant.read.position], self.directions.answer
        reads, thresholds, numbers = self.code.neurons()
        neurons = reads @ self.axes - thresholds[:, None] * one
        linear = torch.cat([total[None], scratch])
        gives = torch.cat([answer[None], -scratch])
        self._add_neurons(
            block,
            torch.cat([neurons, linear, -linear]),
            torch.cat([count * numbers[:, None] * answer, gives, -gives]),
        )


def _at_the_end(plant: Plant) -> Plant:
    end = len(prompt_labels(plant.template)) - 1
    return replace(
        plant, read=plant.read._replace(position=end), d_model=D_MODEL, noise=NOISE, operand_sd=1.0
    )


def _numbers(plant: Plant) -> Float64[Tensor, " n"]:
    """All that the value may have."""
    signs = plant.coefficients[plant.read.value].values()
    low = sum(min(k, 0) for k in signs) * plant.largest
    high = sum(max(k, 0) for k in signs) * plant.largest
    return torch.arange(low, high + 1, dtype=torch.float64)
