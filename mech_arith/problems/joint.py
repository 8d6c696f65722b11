"""Several steps of a hypothesis set at once, each to what another problem has.

If a model computes as a hypothesis says, it answers what the hypothesis makes of them, whichever
steps are set, and wherever each of them comes from.

Source: Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Callable
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
        """Choices that test all steps that they set.

        Another answer is expected than the problem's own, than that of every problem that a step is
        taken from, and than with any one of the steps left out. So an edit that does nothing,
        carries everything, or misses a step is wrong.

        Args:
            tolerance: within which an answer is exact: answers that differ by less than two of it
                are one.
        """
        answers, expected = self.problems.answers, self.expected()

        def apart(others: np.ndarray) -> np.ndarray:
            return np.abs(expected - others) > 2 * tolerance  # what is NaN is not apart

        found = apart(answers[self.rows])
        for column in range(len(self.steps)):
            left_out = self.chosen.copy()
            left_out[:, column] = False
            matters = apart(replace(self, chosen=left_out).expected())
            matters &= apart(answers[self.partner[:, column]])
            found &= matters | ~self.chosen[:, column]
        return found

    def redrawn(self, times: int, *, tolerance: float, seed: int) -> "JointSources":
        """The same choices so many times over, from problems that are drawn anew by the same rule.

        The first time of all choices comes first.
        """
        random = np.random.default_rng([seed, *self.hypothesis.name.encode(), times])
        again = replace(
            self,
            rows=np.tile(self.rows, times),
            chosen=np.tile(self.chosen, (times, 1)),
            partner=np.tile(self.partner, (times, 1)),
        )
        again._draw(random, tolerance, choose=None)
        return again

    def _draw(
        self,
        random: np.random.Generator,
        tolerance: float,
        choose: Callable[[Int64[np.ndarray, " open"], int], Bool[np.ndarray, "open k"]] | None,
    ) -> None:
        """Draw partners, and choices where they are not given, until they tell something."""
        waiting = np.arange(len(self.rows))
        for attempt in range(TRIES):
            if choose is not None:
                self.chosen[waiting] = choose(waiting, attempt)
            size = (len(waiting), len(self.steps))
            self.partner[waiting] = random.integers(len(self.problems), size=size)
            some = replace(
                self,
                rows=self.rows[waiting],
                chosen=self.chosen[waiting],
                partner=self.partner[waiting],
            )
            waiting = waiting[~some.telling(tolerance=tolerance)]
            if not len(waiting):
                break


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

    Two steps are set as often as any larger number of them, where that many can all matter; a
    single one where there is no other. Each is taken from a problem drawn by itself. Choices that
    tell something are drawn where there are any.

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
    least = min(2, k)
    n_set = random.integers(least, k + 1, size=m * n)

    def choose(waiting: Int64[np.ndarray, " open"], attempt: int) -> Bool[np.ndarray, "open k"]:
        size = (len(waiting), k)
        if attempt >= TRIES // 2:  # so many of these steps seem never to matter all at once
            n_set[waiting] = random.integers(least, k + 1, size=len(waiting))
        return random.random(size).argsort(1).argsort(1) < n_set[waiting, None]

    drawn = JointSources(
        problems,
        hypothesis,
        steps,
        np.tile(np.arange(n), m),
        np.zeros((m * n, k), dtype=bool),
        np.zeros((m * n, k), dtype=np.int64),
    )
    drawn._draw(random, tolerance, choose)
    return drawn
