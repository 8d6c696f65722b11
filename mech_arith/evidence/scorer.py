"""What answers under edits are compared with."""

from dataclasses import dataclass, replace

from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.engine.run import Baseline
from mech_arith.evidence.metrics import exact
from mech_arith.statistics import Resampling


@dataclass(frozen=True)
class Scorer:
    """What answers are compared with, and how."""

    clean: Answers
    right: Float64[Tensor, " n"]
    tolerance: float
    """Within which an answer counts as exact."""
    written: bool
    """Answers are digits that the model wrote, and not regressed."""
    how: Resampling

    @classmethod
    def of_baseline(
        cls, baseline: Baseline, *, tolerance: float, written: bool, how: Resampling
    ) -> "Scorer":
        """Edited answers are compared with those before the edit, and with the right ones."""
        return cls(baseline.answers, baseline.asked.right, tolerance, written, how)

    def of(self, rows: Int64[Tensor, " m"]) -> "Scorer":
        """The same for some of the problems."""
        return replace(self, clean=self.clean.of(rows), right=self.right[rows])

    def drops(self, answers: Answers) -> Float64[Tensor, "*edits n"]:
        """1 where an edit costs the right answer, -1 where it brings it, 0 where neither."""
        before, after = (
            exact(numbers, self.right, tolerance=self.tolerance).double()
            for numbers in (self.clean.numbers, answers.numbers)
        )
        return before - after
