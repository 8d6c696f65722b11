"""Hypotheses: ways to compute the answer, as named steps over the operands.

A hypothesis is a causal model of the answer. Setting one of its values and letting all that follows
from it follow gives the answer that an interchange should have, if the model computes that way.

Source: Geiger et al. (2021), "Causal abstractions of neural networks".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.computing import BoolArray, IntArray, Interval, Trees, compute, intervals
from mech_arith.problems.grammar import Node, names, walk

TREE = "tree"
"""Name of the hypothesis that the template's own sub-expressions are."""


@dataclass(frozen=True)
class Step:
    """A named value that is computed from operands and earlier steps."""

    name: str
    tree: Node


@dataclass(frozen=True)
class Hypothesis:
    """A way to compute the answer, and the rivals whose values are looked for beside its own."""

    name: str

    operands: tuple[str, ...]
    """Letters, in order of first appearance in the template."""

    steps: tuple[Step, ...]
    """In an order in which they can be computed; the last one is the answer."""

    rivals: tuple["Hypothesis", ...] = ()
    """Other ways to compute the same answer from the same operands. They have no rivals."""

    @cached_property
    def own_values(self) -> tuple[str, ...]:
        """Operands, then steps in their order; the answer is last. Rivals' are left out."""
        return tuple(dict.fromkeys((*self.operands, *(step.name for step in self.steps))))

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Operands, steps, the rivals' steps, and the answer."""
        more = [value for rival in self.rivals for value in rival.own_values]
        *own, answer = self.own_values
        return (*(name for name in dict.fromkeys([*own, *more]) if name != answer), answer)

    @property
    def answer(self) -> str:
        """Name of the answer's value."""
        return self.own_values[-1]

    @property
    def texts(self) -> list[str]:
        """The steps of the hypothesis and its rivals, as they may be written."""
        return [
            f"{each.name}: {step.name}: {step.tree.name}"
            for each in (self, *self.rivals)
            for step in each.steps
        ]

    def of(self, value: str) -> "Hypothesis":
        """The hypothesis whose value this is: this one, or else the first rival that has it.

        Raises:
            UserError: there is no such value.
        """
        for hypothesis in (self, *self.rivals):
            if value in hypothesis.own_values:
                return hypothesis
        raise unknown(f"value of {self.answer!r}", value, self.values)

    def alone(self) -> "Hypothesis":
        """The same without rivals."""
        return replace(self, rivals=())

    def evaluate(self, operands: Mapping[str, IntArray]) -> dict[str, IntArray]:
        """Every value, by name; `//` and `%` round as Python's do.

        Raises:
            UserError: an operand is missing or not int64 of the others' length, a divisor is 0, or
                a value could leave the 64-bit integers.
        """
        given = self._given(operands)
        found: dict[str, np.ndarray] = {}
        for hypothesis in (self, *self.rivals):
            found = {**hypothesis._found(hypothesis.trees, given), **found}
        return {name: found[name] for name in self.values}

    def defined(self, operands: Mapping[str, IntArray]) -> BoolArray:
        """Rows in which no divisor is 0. Raises as `evaluate` does, but for the divisors."""
        given = self._given(operands)
        each = [compute(hypothesis.trees, given)[1] for hypothesis in (self, *self.rivals)]
        return np.logical_and.reduce(each)

    def bound(self, ranges: Mapping[str, Interval]) -> int:
        """The largest magnitude that any value can reach, by interval arithmetic.

        An upper bound: two occurrences of one operand are taken to vary apart. `ranges` are
        inclusive.
        """
        given = self._given(ranges)
        return max(
            abs(end)
            for hypothesis in (self, *self.rivals)
            for name, span in intervals(hypothesis.trees, given).items()
            if name in hypothesis.own_values
            for end in span
        )

    def operands_of(self, value: str) -> tuple[str, ...]:
        """The operands that `value` is computed from, in order of first appearance."""
        owner = self.of(value)
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in owner.operands:
                found.setdefault(name)
                return
            for below in names(owner.trees[name]):
                visit(below)

        visit(value)
        return tuple(found)

    def replace(self, value: str, with_: IntArray, operands: Mapping[str, IntArray]) -> IntArray:
        """The answer when `value` is set to `with_` wherever it occurs and the rest follows.

        What stands below a value that is set plays no part, zero divisors included. A rival's value
        is followed as the rival would.

        Raises:
            UserError: `value` is not a value of this hypothesis or its rivals, or as `evaluate`.
        """
        return self.of(value).replace_all({value: with_}, operands)

    def replace_all(
        self, wanted: Mapping[str, IntArray], operands: Mapping[str, IntArray]
    ) -> IntArray:
        """The same with several of the hypothesis' own values set at once."""
        self._require_own(wanted)
        given = {**self._given(operands), **wanted}
        return self._found(self._upstream(given), given)[self.answer]

    def expected(
        self, value: str, with_: IntArray, operands: Mapping[str, IntArray]
    ) -> Float64[np.ndarray, " n"]:
        """The answers of `replace`; NaN where a divisor would be 0."""
        return self.of(value).expected_of_all({value: with_}, operands)

    def expected_of_all(
        self, wanted: Mapping[str, IntArray], operands: Mapping[str, IntArray]
    ) -> Float64[np.ndarray, " n"]:
        """The answers of `replace_all`; NaN where a divisor would be 0."""
        self._require_own(wanted)
        given = {**self._given(operands), **wanted}
        found, defined = compute(self._upstream(given), given)
        return np.where(defined, found[self.answer], np.nan)

    def _require_own(self, wanted: Mapping[str, IntArray]) -> None:
        for value in wanted:
            if value not in self.own_values:
                raise unknown(f"value of {self.answer!r}", value, self.own_values)

    @cached_property
    def used_steps(self) -> tuple[str, ...]:
        """The steps between operands and answer that the answer is computed from."""
        names = (step.name for step in self.steps)
        return tuple(name for name in names if name != self.answer and self.is_used(name))

    def rival_values(self, value: str) -> tuple[tuple[str, str], ...]:
        """What a step is to be told from: the name of every hypothesis that does not have it, with
        each value of that which a subspace might carry instead. None for a value of all.
        """
        own = self.of(value).own_values
        return tuple(
            (other.name, name)
            for other in (self.alone(), *self.rivals)
            if value not in other.own_values
            for name in other.competing
            if name not in own or name in self.operands
        )

    @cached_property
    def competing(self) -> tuple[str, ...]:
        """The steps on the way to the answer. Without any, the operands: each alone, for together
        they are what every step is made of.
        """
        return self.used_steps or tuple(name for name in self.operands if self.is_used(name))

    def is_used(self, value: str) -> bool:
        """Whether the answer is computed from a value. One that is not can only be traced."""
        owner = self.of(value)
        upstream = owner._upstream({})
        below = set().union(*(owner._below(tree, {}) for tree in upstream.values()))
        return value == self.answer or value in below

    def acts_beside(self, operand: str, value: str) -> bool:
        """Whether the answer is computed from an operand by a way that leads through no `value`."""
        owner, given = self.of(value), {value: None}
        return any(operand in owner._below(tree, given) for tree in owner._upstream(given).values())

    def level(self, value: str) -> int:
        """Steps on the longest way from an operand to a value; 0 for an operand."""
        return self.of(value)._levels[value]

    def siblings(self, value: str) -> tuple[str, ...]:
        """The other values of the same hypothesis on the same level."""
        levels = self.of(value)._levels
        return tuple(
            name for name, level in levels.items() if name != value and level == levels[value]
        )

    def require(self, given: Mapping[str, object]) -> None:
        """Raise a UserError unless every operand is in `given`."""
        missing = [name for name in self.operands if name not in given]
        if missing:
            raise UserError(
                f"expected operands {', '.join(self.operands)} for {self.answer!r}, got "
                f"{', '.join(map(str, given)) or 'none'}; add {', '.join(missing)}"
            )

    # This hypothesis by itself

    @cached_property
    def trees(self) -> dict[str, Node]:
        """The steps in their order."""
        return {step.name: step.tree for step in self.steps}

    @cached_property
    def _levels(self) -> dict[str, int]:
        found = dict.fromkeys(self.operands, 0)
        for name, tree in self.trees.items():
            below = [found[part] for part in self._below(tree, {}) if part != name]
            found.setdefault(name, 1 + max(below, default=0))
        return found

    def _given(self, operands: Mapping[str, Any]) -> dict[str, Any]:
        self.require(operands)
        return {name: operands[name] for name in self.operands}

    def _below(self, tree: Node, given: Mapping[str, object]) -> set[str]:
        """The operands and steps that a tree names directly, and not through what is given.

        A step may be named by an expression: then every node of that text is the step.
        """
        found: set[str] = set()
        left = list(tree.arguments) if tree.arguments else [tree]
        while left:
            node = left.pop()
            if node.name in given:
                continue
            is_step = node.name in self.trees and node.name != self.answer
            if is_step or node.name in self.operands:
                found.add(node.name)
            else:
                left += node.arguments
        return found

    def _upstream(self, given: Mapping[str, object]) -> dict[str, Node]:
        """The steps that the answer is computed from, where some values are given."""
        if self.answer in given:
            return {}
        needed = {self.answer}
        for name, tree in reversed(self.trees.items()):
            if name in needed:
                needed |= self._below(tree, given) - {name}
        return {name: tree for name, tree in self.trees.items() if name in needed}

    def _found(self, trees: Trees, given: Mapping[str, IntArray]) -> dict[str, np.ndarray]:
        """The numbers of some steps, refusing zero divisors."""
        found, defined = compute(trees, given)
        if not defined.all():
            row = int(np.flatnonzero(~defined)[0])
            drawn = ", ".join(f"{name}={int(found[name][row])}" for name in given)
            raise UserError(
                f"expected no divisor of {self.answer!r} to be 0, got {int((~defined).sum())} of "
                f"{len(defined)} rows with one (row {row}: {drawn}); narrow the operands' ranges"
            )
        return found


def of_tree(tree: Node, operands: tuple[str, ...]) -> Hypothesis:
    """Every sub-expression that has an operand is a step, left before right; the answer is last."""
    inner = {node.name: node for node in walk(tree) if node.arguments and names(node)}
    steps = [Step(name, node) for name, node in inner.items()] or [Step(tree.name, tree)]
    return Hypothesis(TREE, operands, tuple(steps))
