"""Problems of one template, with every value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64, Integer

from mech_arith.common.errors import unknown
from mech_arith.problems.computing import IntArray
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.templates import Prompt, Template


@dataclass(frozen=True)
class Design:
    """How problems were chosen among those allowed."""

    value: str | None = None
    """The one that was drawn nearly uncorrelated with the others; None if all were as likely."""

    uniform_sd: float | None = None
    """Standard deviation of that value where all problems are as likely."""

    @property
    def name(self) -> str:
        return UNIFORM if self.value is None else DECORRELATED


UNIFORM, DECORRELATED = "uniform", "decorrelated"
"""Names of designs."""


@dataclass(frozen=True, eq=False)
class ProblemSet:
    """n problems of one template."""

    template: Template

    operands: dict[str, Int64[np.ndarray, " n"]]
    """Operand -> its numbers."""

    values: dict[str, Int64[np.ndarray, " n"]]
    """Every value of the hypothesis, operands and answer included -> its numbers."""

    design: Design = Design()
    """How they were drawn."""

    @classmethod
    def of(cls, template: Template, operands: Mapping[str, IntArray]) -> "ProblemSet":
        """The problems that have these operands.

        Raises:
            UserError: as `Hypothesis.evaluate`.
        """
        values = template.hypothesis.evaluate(operands)
        return cls(template, {name: values[name] for name in template.expression.operands}, values)

    @property
    def hypothesis(self) -> Hypothesis:
        """By which the answer is taken to be computed: it names the values."""
        return self.template.hypothesis

    @property
    def steps_beside_the_tree(self) -> tuple[str, ...]:
        """The values of hypotheses that are no sub-expressions of the template."""
        own = self.template.expression.values
        return tuple(value for value in self.values if value not in own)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def answers(self) -> Int64[np.ndarray, " n"]:
        """The answer of each problem."""
        return self.values[self.hypothesis.answer]

    def take(self, indices: Integer[np.ndarray, " m"]) -> "ProblemSet":
        """The problems at `indices`, in that order."""
        values = {name: numbers[indices] for name, numbers in self.values.items()}
        return replace(self, operands={name: values[name] for name in self.operands}, values=values)

    def replaced(self, operand: str, numbers: Int64[np.ndarray, " n"]) -> "ProblemSet":
        """The same problems with one operand's numbers exchanged, and all that follows from it.

        Raises:
            UserError: `operand` is not an operand (a sub-expression has no input of its own), or
                as `Hypothesis.evaluate`.
        """
        if operand not in self.operands:
            raise unknown("operand", operand, self.operands)
        return self.of(self.template, {**self.operands, operand: numbers})

    def prompts(self, *, width: int = 0) -> list[Prompt]:
        """Each problem as text, operands zero-padded to `width` digits."""
        columns = [self.operands[name].tolist() for name in self.operands]
        return [
            self.template.render(dict(zip(self.operands, row, strict=True)), width=width)
            for row in zip(*columns, strict=True)
        ]
