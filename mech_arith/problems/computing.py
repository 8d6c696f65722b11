"""The numbers of a tree: computed exactly, in 64 bits, and bounded beforehand."""

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from jaxtyping import Bool, Int64

from mech_arith.common.errors import UserError
from mech_arith.problems.grammar import Node

IntArray = Int64[np.ndarray, " n"]
BoolArray = Bool[np.ndarray, " n"]
Interval = tuple[int, int]
Trees = Mapping[str, Node]
"""Named values in an order in which they can be computed, and the tree of each."""

DIVISIONS = ("//", "%")

_INT64_MAX = 2**63 - 1

_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "//": np.floor_divide,
    "%": np.remainder,
    "negative": np.negative,
    "max": lambda *arguments: reduce(np.maximum, arguments),
    "min": lambda *arguments: reduce(np.minimum, arguments),
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "not": np.logical_not,
    "and": lambda *arguments: reduce(np.logical_and, arguments),
    "or": lambda *arguments: reduce(np.logical_or, arguments),
}


def compute(
    trees: Trees, given: Mapping[str, IntArray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The numbers of trees and their nodes, by name, and the rows in which no divisor is 0.

    `given` holds the operands and any value that is set. A node that has the name of one of them,
    or of an earlier tree, is that. In the other rows the divisor counts as 1.
    """
    n = _common_length(given)
    _refuse_overflow(trees, given)
    found: dict[str, np.ndarray] = dict(given)
    defined = np.ones(n, dtype=bool)

    def visit(node: Node) -> np.ndarray:
        if node.name in found:
            return found[node.name]
        arguments = [visit(argument) for argument in node.arguments]
        if node.symbol in DIVISIONS:
            nonzero = arguments[1] != 0
            np.logical_and(defined, nonzero, out=defined)
            arguments[1] = np.where(nonzero, arguments[1], 1)
        found[node.name] = (
            _FUNCTIONS[node.symbol](*arguments)
            if arguments
            else np.full(n, int(node.symbol), dtype=np.int64)
        )
        return found[node.name]

    for name, tree in trees.items():
        found[name] = visit(tree)
    return found, defined


def _common_length(given: Mapping[str, np.ndarray]) -> int:
    shapes = {
        name: (str(array.dtype), array.shape)
        if isinstance(array, np.ndarray)
        else (type(array).__name__, ())
        for name, array in given.items()
    }
    kinds = set(shapes.values())
    if len(kinds) == 1:
        dtype, shape = next(iter(kinds))
        if dtype == "int64" and len(shape) == 1:
            return shape[0]
    got = ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in shapes.items())
    raise UserError(f"expected int64 arrays of one length (n,), got {got}; convert them")


def _refuse_overflow(trees: Trees, given: Mapping[str, np.ndarray]) -> None:
    ranges = {
        name: (int(array.min()), int(array.max())) if array.size else (0, 0)
        for name, array in given.items()
    }
    for name, (low, high) in intervals(trees, ranges).items():
        if max(-low, high) > _INT64_MAX:
            raise UserError(
                f"expected numbers within 64 bits, got {name!r} that may reach "
                f"{max(-low, high)}; use smaller operands"
            )


def intervals(trees: Trees, given: Mapping[str, Interval]) -> dict[str, Interval]:
    """The least and greatest number of every node, by name, in Python's unbounded integers."""
    found: dict[str, Interval] = dict(given)

    def visit(node: Node) -> Interval:
        if node.name not in found:
            found[node.name] = _interval(node, [visit(argument) for argument in node.arguments])
        return found[node.name]

    for name, tree in trees.items():
        found[name] = visit(tree)
    return found


def _interval(node: Node, arguments: list[Interval]) -> Interval:
    lows = [low for low, _ in arguments]
    highs = [high for _, high in arguments]
    match node.symbol:
        case "+":
            return sum(lows), sum(highs)
        case "-":
            return lows[0] - highs[1], highs[0] - lows[1]
        case "*":
            corners = [x * y for x in arguments[0] for y in arguments[1]]
            return min(corners), max(corners)
        case "//":
            # Monotone in either argument on each side of 0, so the ends of both sides suffice. A
            # divisor of 0 counts as 1 here too, until its row is refused.
            low, high = arguments[1]
            divisors = [y or 1 for y in (low, -1, 0, high) if low <= y <= high]
            corners = [x // y for x in arguments[0] for y in divisors]
            return min(corners), max(corners)
        case "%":
            (low, high), (least, greatest) = arguments
            bottom, top = min(0, least + 1), max(0, greatest - 1)
            return (
                max(bottom, low) if high <= 0 else bottom,
                min(top, high) if low >= 0 else top,
            )
        case "negative":
            return -highs[0], -lows[0]
        case "max":
            return max(lows), max(highs)
        case "min":
            return min(lows), min(highs)
        case literal if not arguments:
            return int(literal), int(literal)
        case _:  # a condition
            return 0, 1
