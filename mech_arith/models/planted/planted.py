"""What a planted model is made to do: the truth that tracing and intervention are to find."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.algorithms import Task
from mech_arith.problems.asked import AskedHypothesis
from mech_arith.problems.computing import Interval, intervals
from mech_arith.problems.expressions import parse
from mech_arith.problems.hypotheses import TREE
from mech_arith.problems.templates import Template, build_template

MOST_LAYERS = 6
WIDTHS = (24, 32, 48, 64)
N_DISTRACTORS = 2
"""Tokens of a prompt that say nothing of the problem."""

LEFT_TO_RIGHT = "left_to_right"
RIVALS = (TREE, LEFT_TO_RIGHT)
"""Hypotheses by which a plant of rivals may compute."""

RUNG = 2.5
"""Of neighbouring coordinates at a planted position one is so many times as large. Where two are
alike in size no method that goes by variance could tell them apart."""


class WrittenValue(NamedTuple):
    """A value, and where it is written into the residual stream."""

    value: str
    layer: int
    position: int
    sd: float
    """Of its coordinate over uniformly drawn problems, in activation units."""


@dataclass(frozen=True)
class Plant:
    """A linear expression's values: one written and read, one written and not read, one absent."""

    expression: str
    largest: int
    """Largest operand; the least is 0. Each number is one token."""
    n_layers: int
    d_model: int
    causal: bool
    read: WrittenValue
    reader: int
    """The layer that reads it, and the operands that do not make it up, and writes the answer."""
    unread: WrittenValue
    absent: str
    """A value that is written nowhere; '' for a plant of rivals, which has none."""
    operand_sd: float
    """Of an operand's coordinate at its own position."""
    noise: tuple[float, ...]
    """sd of each coordinate that follows the distractors alone, at all positions but theirs."""
    seed: int
    """Of the directions and the distractors."""
    hypotheses: tuple[str, ...] = (TREE,)
    """The one that it computes by, and its rival if it has one."""
    n_pauses: int = 1
    """Tokens `;` between the operands and `=`."""

    @classmethod
    def of_rivals(cls, seed: int, hypothesis: str) -> "Plant":
        """A plant of a-(b-c) or the like, computed by the `tree` or from `left_to_right`.

        The step of the hypothesis is read; the step of the other one is written and not read. So
        both can be traced, and only one is used.
        """
        random = np.random.default_rng([seed, *b"rivals"])
        first, second = random.choice(["+", "-"], size=2)
        steps = {TREE: f"b{second}c", LEFT_TO_RIGHT: f"a{first}b"}
        rival = LEFT_TO_RIGHT if hypothesis == TREE else TREE
        template = build_template("plant", f"a{first}(b{second}c)")
        n_layers, causal = int(random.integers(3, MOST_LAYERS + 1)), bool(random.integers(2))
        reader = int(random.integers(1, n_layers))
        rungs = iter(_rungs(random, n_noise=int(random.integers(1, 4))))
        end = len(prompt_labels(template)) - 1
        return cls(
            expression=str(template.expression),
            largest=9,
            n_layers=n_layers,
            d_model=int(random.choice(WIDTHS)),
            causal=causal,
            read=WrittenValue(steps[hypothesis], int(random.integers(reader)), end, next(rungs)),
            reader=reader,
            # On `;`: behind `=` the two and the answer would follow from each other.
            unread=WrittenValue(steps[rival], int(random.integers(reader)), end - 1, next(rungs)),
            absent="",
            operand_sd=next(rungs),
            noise=tuple(rungs),
            seed=seed,
            hypotheses=(hypothesis, rival),
        )

    @classmethod
    def drawn(cls, seed: int) -> "Plant":
        """A plant of random expression, layers, positions, sizes and noise.

        The expression has three intermediate values of two operands each. At a planted position the
        coordinates' sizes are powers of `RUNG`, in random order; at most one is larger than the one
        that is read, for the fitted direction strays from the true one by about sd/sd_read/sqrt(n)
        towards each larger one, and so do the answers under an edit of it.
        """
        random = np.random.default_rng([seed, *b"plant"])
        ab, cd, ef = (f"{x}{random.choice(['+', '-'])}{y}" for x, y in ("ab", "cd", "ef"))
        first, second = random.choice(["+", "-"], size=2)
        template = build_template("plant", f"({ab}){first}({cd}){second}({ef})")
        read, unread, absent = random.permutation([ab, cd, ef]).tolist()
        n_layers = int(random.integers(3, MOST_LAYERS + 1))
        reader = int(random.integers(1, n_layers))
        causal = bool(random.integers(2))
        rungs = iter(_rungs(random, n_noise=int(random.integers(1, 4))))

        def written(value: str, *, at_the_end: bool) -> WrittenValue:
            places = _places(template, value, causal=causal)
            position = random.choice(places if at_the_end else places[:-1])
            return WrittenValue(value, int(random.integers(reader)), int(position), next(rungs))

        return cls(
            expression=str(template.expression),
            largest=4,
            n_layers=n_layers,
            d_model=int(random.choice(WIDTHS)),
            causal=causal,
            read=written(read, at_the_end=True),
            reader=reader,
            # Behind `=` two values and the answer would together hold the third.
            unread=written(unread, at_the_end=False),
            absent=absent,
            operand_sd=next(rungs),
            noise=tuple(rungs),
            seed=seed,
        )

    @property
    def hypothesis(self) -> str:
        """By which it computes."""
        return self.hypotheses[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands at each position of a prompt."""
        return prompt_labels(self.template, self.n_pauses)

    @cached_property
    def ranges(self) -> dict[str, Interval]:
        """Of the operands, both ends included."""
        return dict.fromkeys(parse(self.expression).operands, (0, self.largest))

    @cached_property
    def template(self) -> Template:
        """Its expression, symbolic, with the hypotheses."""
        template = build_template("plant", self.expression)
        if self.hypotheses == (TREE,):
            return template
        tree = template.expression.hypothesis
        answers = intervals(tree.trees, self.ranges)[tree.answer]
        task = Task(template.expression, self.ranges, answers)
        own, *rivals = (AskedHypothesis(name).build(task) for name in self.hypotheses)
        return replace(template, computed_by=replace(own, rivals=tuple(rivals)))

    @cached_property
    def coefficients(self) -> dict[str, dict[str, int]]:
        """Of every value the operands that make it up, and how often each counts."""
        operands = self.template.expression.operands
        ones = dict(zip(operands, np.eye(len(operands), dtype=np.int64), strict=True))
        values = self.template.hypothesis.evaluate(ones)
        return {
            value: {name: int(k) for name, k in zip(operands, of, strict=True) if k}
            for value, of in values.items()
        }

    def sd(self, value: str) -> float:
        """Of a value over uniformly drawn problems."""
        of_operand = ((self.largest + 1) ** 2 - 1) / 12
        return (of_operand * sum(k * k for k in self.coefficients[value].values())) ** 0.5

    def problems(self, n: int) -> ProblemSet:
        """So many distinct problems of all that it can read."""
        return draw(self.template, n=n, ranges=self.ranges, seed=self.seed)


def operand_positions(template: Template) -> dict[str, int]:
    """Where each operand's token is: behind the first token and the distractors."""
    return {name: 1 + N_DISTRACTORS + i for i, name in enumerate(template.expression.operands)}


def prompt_labels(template: Template, n_pauses: int = 1) -> tuple[str, ...]:
    """What stands at each position."""
    return ("[", *["?"] * N_DISTRACTORS, *template.expression.operands, *[";"] * n_pauses, "=")


def _places(template: Template, value: str, *, causal: bool) -> list[int]:
    """Positions at which a value may be written; the last is that of `=`.

    Not at its own operands, whose coordinate goes with it, nor before them if none is seen there.
    """
    positions: Mapping[str, int] = operand_positions(template)
    own = [positions[name] for name in template.hypothesis.operands_of(value)]
    first = max(own) if causal else N_DISTRACTORS
    return [at for at in range(first + 1, len(prompt_labels(template))) if at not in own]


def _rungs(random: np.random.Generator, *, n_noise: int) -> list[float]:
    """Sizes: of what is read, of what is not, of the operands, and of the noise."""
    sizes = RUNG ** -np.arange(3.0 + n_noise)
    read = int(random.integers(2))
    others = random.permutation(np.delete(sizes, read))
    return [float(sizes[read]), *others.tolist()]
