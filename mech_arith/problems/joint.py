"""Several steps of a hypothesis set at once, each to what another problem has.

If a model computes as a hypothesis says, it answers what the hypothesis makes of them, whichever
steps are set, and wherever each of them comes from.

Source: Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.sets import ProblemSet

TRIES = 50
"""Draws for a problem before one that tells nothing will do."""


@dataclass(frozen=True, eq=False)
class JointSources:
    """Choices of steps for some problems, and for each step the problem that it is taken from."""

    problems: ProblemSet
    hypothesis: Hypothesis
    steps: tuple[str, ...]
    """The k that may be set, of the hypothesis' own."""
    rows: Int64[np.ndarray, " draws"]
    """Of the problems whose steps are set."""
    chosen: Bool[np.ndarray, "draws k"]
    """Which steps are set."""
    partner: Int64[np.ndarray, "draws k"]
    """Rows of the problems that they are taken from."""

    def expected(self) -> Float64[np.ndarray, " draws"]:
        """The answers that the hypothesis expects; NaN where a divisor would be 0."""
        found = np.full(len(self.rows), np.nan)
        every, group = np.unique(self.chosen, axis=0, return_inverse=True)
        for index, chosen in enumerate(every):
            here = np.flatnonzero(group.ravel() == index)
            wanted = {
                step: self.problems.values[step][self.partner[here, column]]
                for column, step in enumerate(self.steps)
                if chosen[column]
            }
            operands = {name: x[self.rows[here]] for name, x in self.problems.operands.items()}
            found[here] = self.hypothesis.expected_of_all(wanted, operands)
        return found

    def telling(self, *, tolerance: float) -> Bool[np.ndarray, " draws"]:
        """Choices of which another answer is expected than the problem's own, and than that of
        every problem that a step is taken from: an edit that does nothing, or carries everything,
        is wrong.

        Args:
            tolerance: within which an answer is exact: answers that differ by less than two of it
                are one.
        """
        answers, expected = self.problems.answers, self.expected()
        apart = np.abs(expected - answers[self.rows]) > 2 * tolerance
        of_partners = np.abs(expected[:, None] - answers[self.partner]) > 2 * tolerance
        return apart & (of_partners | ~self.chosen).all(1)  # what is NaN is not apart

    def dealt_out(self, random: np.random.Generator) -> "JointSources":
        """The same with the steps taken from the problems of another one of these problems."""
        n = len(self.problems)
        partner = self.partner.reshape(-1, n, len(self.steps))[:, random.permutation(n)]
        return replace(self, partner=partner.reshape(self.partner.shape))


def draw_joint(
    problems: ProblemSet,
    hypothesis: Hypothesis,
    steps: tuple[str, ...],
    *,
    m: int,
    tolerance: float,
    seed: int,
) -> JointSources:
    """Choose steps m times for every problem: the first choices of all, then the second ones.

    As many steps are set as any other number of them, and each is taken from a problem drawn by
    itself. Choices that tell something are drawn where there are any.

    Args:
        problems: to be edited, and to be taken from.
        hypothesis: theirs or a rival.
        steps: of the hypothesis.
        m: choices for each problem.
        tolerance: see `JointSources.telling`.
        seed: of all draws.
    """
    n, k = len(problems), len(steps)
    random = np.random.default_rng([seed, *hypothesis.name.encode()])
    rows = np.tile(np.arange(n), m)
    drawn = JointSources(
        problems, hypothesis, steps, rows, np.zeros((m * n, k), bool), np.zeros((m * n, k), int)
    )
    n_set = random.integers(1, k + 1, size=m * n)
    open_draws = np.arange(m * n)
    for _ in range(TRIES):
        size = (len(open_draws), k)
        places = random.random(size).argsort(1).argsort(1)
        drawn.chosen[open_draws] = places < n_set[open_draws, None]
        drawn.partner[open_draws] = random.integers(n, size=size)
        some = replace(
            drawn,
            rows=rows[open_draws],
            chosen=drawn.chosen[open_draws],
            partner=drawn.partner[open_draws],
        )
        open_draws = open_draws[~some.telling(tolerance=tolerance)]
        if not len(open_draws):
            break
    return drawn
