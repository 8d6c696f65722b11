"""All combinations of operands in their ranges, and those allowed among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Int64, UInt64

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.computing import BoolArray, IntArray, Interval
from mech_arith.problems.expressions import Constraint
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.ranges import checked_ranges, described

LARGEST_EXACT = 2**53
"""Above it float64, in which all statistics are kept, no longer has every whole number."""

MAX_ENUMERATED = 2**20
MIN_DRAWS = 2**22
DRAWS_PER_PROBLEM = 16
_CHUNK = 2**16


def checked_space(
    hypothesis: Hypothesis, ranges: Mapping[str, object], constraints: Sequence[Constraint]
) -> "Space":
    """The space of these ranges.

    Raises:
        UserError: a range or constraint is malformed, or a value could exceed `LARGEST_EXACT`.
    """
    ranges = checked_ranges(ranges, hypothesis.operands)
    _check_constraints(constraints, hypothesis.operands)
    bound = hypothesis.bound(ranges)
    if bound > LARGEST_EXACT:
        raise UserError(
            f"expected values of at most 2**53 = {LARGEST_EXACT}, got {hypothesis.answer!r} that "
            f"may reach {bound} with {described(ranges)}; narrow the ranges"
        )
    return Space(hypothesis, ranges, tuple(constraints))


@dataclass(frozen=True)
class Space:
    """All combinations of operands, numbered: the first operand counts fastest."""

    hypothesis: Hypothesis
    ranges: dict[str, Interval]
    constraints: tuple[Constraint, ...]

    @property
    def size(self) -> int:
        return prod(high - low + 1 for low, high in self.ranges.values())

    def at(self, numbers: Int64[np.ndarray, " m"]) -> dict[str, np.ndarray]:
        """The operands of these combinations; for spaces that 64 bits can number."""
        found = {}
        for name, (low, high) in self.ranges.items():
            numbers, digit = np.divmod(numbers, high - low + 1)
            found[name] = low + digit
        return found

    def keys(self, operands: Mapping[str, IntArray]) -> UInt64[np.ndarray, " n"]:
        """The combination's number modulo 2**64: problems with unlike keys are unlike."""
        first = next(iter(operands.values()))
        keys, weight = np.zeros(len(first), dtype=np.uint64), 1
        for name, (low, high) in self.ranges.items():
            keys += (operands[name] - low).astype(np.uint64) * np.uint64(weight % 2**64)
            weight *= high - low + 1
        return keys

    def allowed(self, operands: Mapping[str, IntArray]) -> BoolArray:
        """Problems without a divisor of 0 that meet every constraint."""
        mask = self.hypothesis.defined(operands)
        for constraint in self.constraints:
            mask &= constraint.holds(operands)
        return mask

    def draw(
        self, n: int, random: np.random.Generator, *, wanted: str, least: int | None = None
    ) -> dict[str, Int64[np.ndarray, " m"]]:
        """The operands of n distinct allowed combinations, in random order.

        Fewer are the first of more. Where there are less than n, `least` will do (n by default);
        below that it is an error, which says what is `wanted`.
        """
        pick = _enumerate if self.size <= MAX_ENUMERATED else _reject
        return pick(self, n, n if least is None else least, random, wanted)

    def __str__(self) -> str:
        under = ", ".join(repr(constraint.text) for constraint in self.constraints)
        return described(self.ranges) + (f", under {under}" if under else "")


def _enumerate(
    space: Space, n: int, least: int, random: np.random.Generator, wanted: str
) -> dict[str, np.ndarray]:
    """Choose up to n of all allowed combinations."""
    chunks = [
        np.arange(start, min(start + _CHUNK, space.size), dtype=np.int64)
        for start in range(0, space.size, _CHUNK)
    ]
    possible = np.concatenate([chunk[space.allowed(space.at(chunk))] for chunk in chunks])
    if len(possible) < least:
        raise UserError(
            f"expected {wanted} of {space.hypothesis.answer!r}, got only "
            f"{len(possible)} possible among {space.size} combinations of {space}; widen the "
            "ranges, loosen the constraints or lower problems.n"
        )
    return space.at(random.permutation(possible)[:n])


def _reject(
    space: Space, n: int, least: int, random: np.random.Generator, wanted: str
) -> dict[str, np.ndarray]:
    """Draw allowed combinations until there are n or the draws are used up."""
    limit = MIN_DRAWS + DRAWS_PER_PROBLEM * n
    found = {name: np.empty(0, dtype=np.int64) for name in space.ranges}
    count = drawn = 0
    while count < n and drawn < limit:
        rows = {
            name: random.integers(low, high, size=_CHUNK, endpoint=True)
            for name, (low, high) in space.ranges.items()
        }
        drawn += _CHUNK
        mask = space.allowed(rows)
        found = {name: np.concatenate([found[name], rows[name][mask]]) for name in found}
        _, first = np.unique(space.keys(found), return_index=True)
        first.sort()
        found = {name: numbers[first] for name, numbers in found.items()}
        count = len(first)
    if count < least:
        raise UserError(
            f"expected {wanted} of {space.hypothesis.answer!r}, got "
            f"{count} in {drawn} draws from {space.size} combinations of {space}; "
            "widen the ranges, loosen the constraints or lower problems.n"
        )
    return {name: numbers[:n] for name, numbers in found.items()}


def _check_constraints(constraints: Sequence[Constraint], operands: Sequence[str]) -> None:
    for constraint in constraints:
        for name in constraint.operands:
            if name not in operands:
                raise unknown(f"operand of constraint {constraint.text!r}", name, operands)
