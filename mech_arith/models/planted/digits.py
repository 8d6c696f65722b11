"""Planted models of a sum of three that add by the tree, or digit by digit with carries."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.models.planted.model import N_HEADS, BlockWeights, PlantedModel, Term
from mech_arith.models.planted.planted import (
    MOST_LAYERS,
    N_DISTRACTORS,
    RUNG,
    WIDTHS,
    Plant,
    WrittenValue,
)
from mech_arith.problems.hypotheses import TREE

DIGITS = "digits"
RIVALS = (TREE, DIGITS)
"""Hypotheses by which a plant of digits may compute."""

ONES, CARRY, TENS = "ones", "ones_carry", "tens"
LARGEST, N_PAUSES, D_MLP = 19, 2, 32


@dataclass(frozen=True, kw_only=True)
class DigitPlant(Plant):
    """A plant of a+b+c or a+(b+c) that writes the steps of both hypotheses.

    It answers from those of one of them. `read` and `unread` are the sum of two operands and the
    carry, in this order if it computes by the tree.
    """

    ones: WrittenValue
    tens: WrittenValue

    @classmethod
    def drawn(cls, seed: int, hypothesis: str = DIGITS) -> "DigitPlant":
        """Of random layers, places and noise. They are the same for either hypothesis.

        There are three places: the carry has one, the tens another, and the sum and the ones share
        the third. These two do not go with each other, for the ones follow the third operand too.
        The sum, the carry and the tens are each the largest coordinate at their place: the answer
        is off by ten times as much as the tens.
        """
        random = np.random.default_rng([seed, *b"digits"])
        expression, inner = [("a+b+c", "a+b"), ("a+(b+c)", "b+c")][random.integers(2)]
        n_layers = int(random.integers(3, MOST_LAYERS + 1))
        reader = int(random.integers(2, n_layers))
        tens_layer = int(random.integers(1, reader))
        first = 1 + N_DISTRACTORS + 3
        places = (first + random.permutation(1 + N_PAUSES)).tolist()
        shared, (early, late) = places[0], sorted(places[1:])  # a causal model looks back only
        n_noise = int(random.integers(1, 4))
        ones, operand, *noise = random.permutation(RUNG ** -np.arange(1.0, 3 + n_noise)).tolist()
        inner = WrittenValue(inner, int(random.integers(reader)), shared, 1.0)
        carry = WrittenValue(CARRY, int(random.integers(tens_layer)), early, 1.0)
        read, unread = (inner, carry) if hypothesis == TREE else (carry, inner)
        return cls(
            expression=expression,
            largest=LARGEST,
            n_layers=n_layers,
            d_model=int(random.choice(WIDTHS[1:])),
            causal=bool(random.integers(2)),
            read=read,
            reader=reader,
            unread=unread,
            absent="",
            operand_sd=operand,
            noise=tuple(noise),
            seed=seed,
            hypotheses=(hypothesis, *(name for name in RIVALS if name != hypothesis)),
            n_pauses=N_PAUSES,
            ones=WrittenValue(ONES, int(random.integers(reader)), shared, ones),
            tens=WrittenValue(TENS, tens_layer, late, 1.0),
        )

    @property
    def inner(self) -> WrittenValue:
        """The sum of two operands."""
        return self.read if self.hypothesis == TREE else self.unread

    @property
    def carry(self) -> WrittenValue:
        """Of the ones."""
        return self.unread if self.hypothesis == TREE else self.read

    @property
    def steps(self) -> dict[str, tuple[WrittenValue, ...]]:
        """By hypothesis, all steps but the answer."""
        return {TREE: (self.inner,), DIGITS: (self.ones, self.carry, self.tens)}

    @cached_property
    def _sds(self) -> dict[str, float]:
        numbers = np.arange(self.largest + 1)
        grid = np.meshgrid(*[numbers] * len(self.ranges), indexing="ij")
        operands = {name: axis.ravel() for name, axis in zip(self.ranges, grid, strict=True)}
        values = self.template.hypothesis.evaluate(operands)
        return {name: float(of.std()) for name, of in values.items()}

    def sd(self, value: str) -> float:
        """Of a value over all problems."""
        return self._sds[value]


class DigitModel(PlantedModel):
    """Writes the sum of two operands and the columns with their carry, and answers from one.

    The token of an operand has its number and its tens. At each step's place and layer heads bring
    what the step is made of, and an MLP writes it: the carry by neurons that fire from 10 and from
    20 on, the tens from the written carry. At the reader's layer the answer is made from the ones
    and the tens alone, or from the sum of two and the third operand. The weights of models of one
    seed and unlike hypotheses differ in that layer alone.
    """

    def __init__(self, plant: DigitPlant) -> None:
        self.digits = plant
        super().__init__(plant)

    @property
    def along(self) -> dict[str, Float64[Tensor, " d"]]:
        """By the names of the written steps, what each adds to the stream per unit."""
        plant = self.digits
        written = (plant.inner, plant.ones, plant.carry, plant.tens)
        return {
            step.value: step.sd / plant.sd(step.value) * direction
            for step, direction in zip(written, self.directions.spare[1:5], strict=True)
        }

    @property
    def _digit(self) -> Float64[Tensor, " d"]:
        """Along which the token of a number has its tens."""
        return self.directions.spare[0]

    def _embeddings(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens, places = super()._embeddings(random)
        numbers = torch.arange(self.plant.largest + 1)
        tokens[: len(numbers)] += torch.outer((numbers // 10).double(), self._digit).float()
        return tokens, places

    def _blocks(self) -> list[BlockWeights]:
        plant, along = self.digits, self.along
        blocks = [BlockWeights.zeros(self.d_model, D_MLP) for _ in range(self.n_layers)]
        free = [iter(range(N_HEADS)) for _ in blocks]
        self._spread_noise(blocks[0], next(free[0]))
        inner = plant.coefficients[plant.inner.value]
        tens = [self._column(self._digit), self._written(plant.carry)]
        third = {name: 1 for name in plant.ranges if name not in inner}
        answers = {
            TREE: [self._written(plant.inner), *self._operand_terms(third)],
            DIGITS: [self._written(plant.ones), self._written(plant.tens, 10.0)],
        }
        answer, end = answers[plant.hypothesis], len(plant.labels) - 1
        for layer, position, terms, writes in (
            (*plant.inner[1:3], self._operand_terms(inner), along[plant.inner.value]),
            (*plant.tens[1:3], tens, along[TENS]),
            (plant.reader, end, answer, self.directions.answer),
        ):
            heads = [next(free[layer]) for _ in terms]
            self._add_step(blocks[layer], heads, position, terms, writes)
        for step, writes, carried in (
            (plant.ones, along[ONES], -10 * along[ONES]),
            (plant.carry, torch.zeros_like(along[CARRY]), along[CARRY]),
        ):
            self._add_column(blocks[step.layer], next(free[step.layer]), step, writes, carried)
        return blocks

    def _add_column(
        self,
        block: BlockWeights,
        head: int,
        step: WrittenValue,
        writes: Float64[Tensor, " d"],
        carried: Float64[Tensor, " d"],
    ) -> None:
        """Write something per unit of the sum of the operands' ones, and something per carry."""
        ones = self.directions.number / self._number - 10 * self._digit
        terms = [self._column(ones)]
        self._add_step(block, [head], step.position, terms, writes)
        total = terms[0].factor * self.directions.scratch[head]
        one = self.directions.place[step.position]  # 1 at this position, and 0 elsewhere
        # relu(x - 9) - relu(x - 10) is 1 from 10 on, and 0 up to 9.
        reads = torch.stack([total - edge * one for edge in (9, 10, 19, 20)])
        self._add_neurons(block, reads, torch.stack([carried, -carried] * 2))

    def _column(self, reads: Float64[Tensor, " d"]) -> Term:
        """The sum over all operands of what is read from their tokens."""
        positions = list(self._at.values())
        return Term(positions, reads, float(len(positions)))

    def _written(self, step: WrittenValue, count: float = 1.0) -> Term:
        """A step that is written, so many times."""
        along = self.along[step.value]
        return Term([step.position], along / along.dot(along), count)
