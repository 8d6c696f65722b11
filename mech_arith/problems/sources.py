"""Counterfactual problems: problems that differ from the base problem in one value.

A *source* of a problem is the same problem with the operands of one value taken from another
problem: there the value is v', and all that stands outside it is as it was. If a coordinate is the
value to the model, then giving it the place that v' has makes the model answer the expression
evaluated with the value replaced by v'.

Source: interchange interventions, Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mech_arith.problems import ProblemSet
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.statistics import n_classes

TRIES = 50
"""Partners drawn for a problem before all others are looked through."""

KNOWN_PAIRS = 4_000_000
"""Pairs of problems that are judged once and kept, where a search has no more."""

AT_ONCE = 2**18
"""Pairs of problems that are judged, or expected answers that are computed, together."""

Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Which pairs of a base and a partner, as rows of the problems, will do."""


@dataclass(frozen=True, eq=False)
class Sources:
    """For each of n problems m others in which one value alone is another."""

    value: str
    base: ProblemSet
    """The problems that have sources: those whose value can be changed."""
    rows: Int64[Tensor, " n"]
    """Row indices of `base` in the problems that were asked for."""
    problems: tuple[ProblemSet, ...]
    """m sets of n problems."""
    other: Float64[Tensor, "shuffles m n"]
    """What the problems with other sources, drawn in the same way, would be expected to answer."""
    seed: int = 0
    """Of the order in which sources are dealt out anew."""

    @cached_property
    def wanted(self) -> Float64[Tensor, "m n"]:
        """The value v' in each source."""
        return _stacked([source.values[self.value] for source in self.problems])

    @cached_property
    def expected(self) -> Float64[Tensor, "m n"]:
        """The answers of the base problems with the value replaced by v'."""
        wanted = [source.values[self.value] for source in self.problems]
        return _expected(self.base, self.value, wanted)

    @cached_property
    def usual(self) -> Float64[Tensor, " n"]:
        """The mean of the answers expected of each problem's sources, were they drawn anew."""
        return self.other.mean((0, 1))

    @cached_property
    def by_chance(self) -> Float64[Tensor, "shuffles m n"]:
        """`other`. Of a value that is judged by its classes, or has two numbers, the sources are
        dealt out anew among the problems: another source never has the problem's own number, and
        of two numbers, as of a carry, it always has the same.
        """
        if not self._is_of_classes and (self.other != self.expected[0]).any():
            return self.other
        random = np.random.default_rng([*self.value.encode(), self.seed])
        dealt = [
            source.values[self.value][random.permutation(len(self.base))]
            for _ in self.other
            for source in self.problems
        ]
        return _expected(self.base, self.value, dealt).view_as(self.other)

    @property
    def _is_of_classes(self) -> bool:
        """Whether the value is judged by its classes, as in the table of subspaces."""
        is_step = self.value in self.base.steps_beside_the_tree
        return is_step and n_classes(self.base.values[self.value]) > 0

    @cached_property
    def siblings_kept(self) -> float:
        """Share of sources in which all other steps of the value's level are as in the base."""
        siblings = self.base.hypothesis.siblings(self.value)
        kept = [
            np.logical_and.reduce(
                [source.values[name] == self.base.values[name] for name in siblings]
                + [np.ones(len(self.base), dtype=bool)]
            )
            for source in self.problems
        ]
        return float(np.mean(kept))

    @property
    def replaces_the_value_alone(self) -> bool:
        """The sources' own answers are the expected ones: the value's operands stand nowhere else.

        Otherwise a source differs from its base in more than the value.
        """
        own = _stacked([source.answers for source in self.problems])
        return bool((own == self.expected).all())


def draw_sources(
    problems: ProblemSet,
    value: str,
    *,
    m: int,
    n_shuffles: int,
    seed: int,
    constraints: Sequence[Constraint] = (),
) -> Sources | None:
    """Give each problem m sources, drawn among its fellows; None where no problem has any.

    A partner has another value, and with its operands the problem is defined and within the
    constraints. Problems for which no partner will do are left out. Where it can be, the other
    steps of the value's level stay as they are, and rival hypotheses expect other answers.

    Args:
        problems: the base problems.
        value: what sources differ in.
        m: sources of each problem.
        n_shuffles: times that they are drawn anew for the chance floor, whose p is never below
            1 / (n_shuffles + 1).
        seed: of all draws.
        constraints: kept by the sources too.
    """
    random = np.random.default_rng([seed, *value.encode()])
    inside = taken_operands(problems.hypothesis, value)
    search = _Search(problems, value, inside, tuple(constraints), random, m * (1 + n_shuffles))

    def drawn(rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        return search.partners(rows)

    everyone = np.arange(len(problems))
    first = drawn(everyone)
    rows = everyone[first >= 0]
    if not len(rows):
        return None
    partners = [first[rows], *(drawn(rows) for _ in range(m - 1))]
    base = problems.take(rows)
    others = [problems.values[value][drawn(rows)] for _ in range(n_shuffles * m)]
    other = _expected(base, value, others).unflatten(0, (n_shuffles, m))
    sources = tuple(_replaced(base, problems, inside, column) for column in partners)
    return Sources(value, base, torch.from_numpy(rows), sources, other, seed)


def taken_operands(hypothesis: Hypothesis, value: str) -> tuple[str, ...]:
    """The operands that a source has from another problem: those of the value.

    Of a step that has rivals they are all operands. Were it those of the value alone, the source's
    own answer would be the one that the value's hypothesis expects, and a subspace that carries
    everything to the answer would speak for whatever step it is asked for.
    """
    return hypothesis.operands if hypothesis.rival_values(value) else hypothesis.operands_of(value)


def _expected(
    base: ProblemSet, value: str, wanted: Sequence[Int64[np.ndarray, " n"]]
) -> Float64[Tensor, "m n"]:
    """The answers with the value replaced by each of the wanted ones, many at a time."""
    found: list[np.ndarray] = []
    at_a_time = max(1, AT_ONCE // len(base))
    for start in range(0, len(wanted), at_a_time):
        some = wanted[start : start + at_a_time]
        operands = {name: np.tile(column, len(some)) for name, column in base.operands.items()}
        answers = base.hypothesis.replace(value, np.concatenate(some), operands)
        found += [*answers.reshape(len(some), -1)]
    return _stacked(found)


def _replaced(
    base: ProblemSet,
    problems: ProblemSet,
    inside: Sequence[str],
    partner: Int64[np.ndarray, " n"],
) -> ProblemSet:
    """The base problems with some operands of their partners."""
    operands = {
        name: problems.operands[name][partner] if name in inside else numbers
        for name, numbers in base.operands.items()
    }
    return ProblemSet.of(base.template, operands)


@dataclass(frozen=True, eq=False)
class _Search:
    """For some problems another one each whose operands may be taken."""

    problems: ProblemSet
    value: str
    inside: tuple[str, ...]
    """The operands that are taken."""
    constraints: tuple[Constraint, ...]
    random: np.random.Generator
    n_draws: int
    """Partners that each problem is given, one after another."""

    def partners(self, rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        """For each row another problem; -1 where there is none."""
        allowed, preferred = self._judges
        if not self.is_choosy:
            return self._first(rows, allowed)
        found = self._first(rows, preferred)
        left = np.flatnonzero(found < 0)
        found[left] = self._first(rows[left], allowed)
        return found

    @cached_property
    def _judges(self) -> tuple[Judge, Judge]:
        """Whether pairs are allowed, and whether they are preferred."""
        n = len(self.problems)
        pays = self.is_choosy or n <= self.n_draws
        if not pays or n * n > KNOWN_PAIRS:
            return self._allowed, self._preferred
        return _known(self._allowed, n), _known(self._preferred, n)

    def _first(
        self,
        rows: Int64[np.ndarray, " some"],
        will_do: Judge,
    ) -> Int64[np.ndarray, " some"]:
        """The first that will do, in random order."""
        found, left = np.full(len(rows), -1), np.arange(len(rows))
        for _ in range(TRIES):
            if not len(left):
                return found
            partner = self.random.integers(len(self.problems), size=len(left))
            mask = will_do(rows[left], partner)
            found[left[mask]] = partner[mask]
            left = left[~mask]
        for place in left:
            everyone = self.random.permutation(len(self.problems))
            good = everyone[will_do(np.full(len(everyone), rows[place]), everyone)]
            found[place] = good[0] if len(good) else -1
        return found

    def _operands(self, base: np.ndarray, partner: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the base, and the partner's where the value is computed from them."""
        return {
            name: numbers[partner if name in self.inside else base]
            for name, numbers in self.problems.operands.items()
        }

    def _allowed(self, base: np.ndarray, partner: np.ndarray) -> np.ndarray:
        operands, values = self._operands(base, partner), self.problems.values[self.value]
        mask = values[base] != values[partner]
        mask &= self.problems.hypothesis.defined(operands)
        for constraint in self.constraints:
            mask &= constraint.holds(operands)
        return mask

    @cached_property
    def siblings(self) -> tuple[str, ...]:
        """Other steps of the value's level that share an operand with it."""
        hypothesis = self.problems.hypothesis
        return tuple(
            name
            for name in hypothesis.siblings(self.value)
            if not set(hypothesis.operands_of(name)).isdisjoint(self.inside)
        )

    @cached_property
    def rival_values(self) -> tuple[str, ...]:
        """What other hypotheses have in the value's place."""
        values = self.problems.hypothesis.rival_values(self.value)
        return tuple(dict.fromkeys(name for _, name in values))

    @property
    def is_choosy(self) -> bool:
        """Whether some partners are better than others."""
        return bool(self.siblings or self.rival_values)

    def _preferred(self, base: np.ndarray, partner: np.ndarray) -> np.ndarray:
        """The siblings stay, and rivals expect another answer: neither is the base's or the
        source's own.
        """
        mask = self._allowed(base, partner)
        rows = np.flatnonzero(mask)
        base, partner = base[rows], partner[rows]
        hypothesis, operands = self.problems.hypothesis, self._operands(base, partner)
        values = hypothesis.evaluate(operands)
        good = np.ones(len(rows), dtype=bool)
        for name in self.siblings:
            good &= values[name] == self.problems.values[name][base]
        own = {name: numbers[base] for name, numbers in self.problems.operands.items()}
        clean, theirs = self.problems.answers[base], values[hypothesis.answer]
        here = hypothesis.expected(self.value, values[self.value], own)
        for name in self.rival_values:
            there = hypothesis.expected(name, values[name], own)
            apart = [here != there]
            apart += [one != other for one in (here, there) for other in (clean, theirs)]
            good &= np.logical_and.reduce(apart)
        mask[rows] = good
        return mask


def _known(judge: Judge, n: int) -> Judge:
    """The same of pairs of n problems, each row of which is judged once, when it is asked for."""
    everyone = np.arange(n)
    table: np.ndarray = np.zeros((n, n), dtype=bool)
    seen: np.ndarray = np.zeros(n, dtype=bool)

    def looked_up(base: np.ndarray, partner: np.ndarray) -> np.ndarray:
        unseen = base[~seen[base]]
        if not len(unseen):
            return table[base, partner]
        new, at_a_time = np.unique(unseen), max(1, AT_ONCE // n)
        for some in (new[start : start + at_a_time] for start in range(0, len(new), at_a_time)):
            table[some] = judge(np.repeat(some, n), np.tile(everyone, len(some))).reshape(-1, n)
        seen[new] = True
        return table[base, partner]

    return looked_up


def _stacked(columns: Sequence[np.ndarray]) -> Float64[Tensor, "m n"]:
    return torch.from_numpy(np.stack(columns)).double()
