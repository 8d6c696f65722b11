"""Arithmetic expressions in which every sub-expression is a named value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Bool, Int64

from mech_arith.common.errors import UserError, unknown
from mech_arith.problems.grammar import Node, letters, read_constraint, read_expression, shown, walk

IntArray = Int64[np.ndarray, " n"]
BoolArray = Bool[np.ndarray, " n"]
Interval = tuple[int, int]

_INT64_MAX = 2**63 - 1
_DIVISIONS = ("//", "%")

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


@dataclass(frozen=True)
class Rendered:
    """An expression with its operands written out."""

    text: str

    spans: dict[str, list[tuple[int, int]]]
    """Value name -> half-open character ranges, one per occurrence, from left to right."""


@dataclass(frozen=True)
class Expression:
    """An arithmetic tree over operands named by single letters. Made by `parse`."""

    source: str
    """The text as written, parentheses kept, spaces dropped."""

    tree: Node

    operands: tuple[str, ...]
    """Letters, in order of first appearance."""

    values: tuple[str, ...]
    """Operands, then sub-expressions in the order of evaluation, left before right; the answer is
    last. Sub-expressions without operands are constants and are left out."""

    @property
    def answer(self) -> str:
        """Name of the whole expression's value."""
        return self.values[-1]

    def __str__(self) -> str:
        return self.answer

    def evaluate(self, operands: Mapping[str, IntArray]) -> dict[str, IntArray]:
        """Every value, by name; `//` and `%` round as Python's do.

        Raises:
            UserError: an operand is missing or not int64 of the others' length, a divisor is 0, or
                a value could leave the 64-bit integers.
        """
        self.require(operands)
        found = self._found({name: operands[name] for name in self.operands})
        return {name: found[name] for name in self.values}

    def defined(self, operands: Mapping[str, IntArray]) -> BoolArray:
        """Rows in which no divisor is 0. Raises as `evaluate` does, but for the divisors."""
        self.require(operands)
        return _compute(self.tree, {name: operands[name] for name in self.operands})[1]

    def bound(self, ranges: Mapping[str, Interval]) -> int:
        """The largest magnitude that any value can reach, by interval arithmetic.

        An upper bound: two occurrences of one operand are taken to vary apart. `ranges` are
        inclusive.
        """
        self.require(ranges)
        intervals = _intervals(self.tree, {name: ranges[name] for name in self.operands})
        return max(max(-intervals[name][0], intervals[name][1]) for name in self.values)

    def operands_of(self, value: str) -> tuple[str, ...]:
        """The operands that `value` is computed from, in order of first appearance."""
        for node in walk(self.tree):
            if node.name == value:
                return letters(node)
        raise unknown(f"value of {self.answer!r}", value, self.values)

    def replace(self, value: str, with_: IntArray, operands: Mapping[str, IntArray]) -> IntArray:
        """The answer when `value` is set to `with_` wherever it occurs and the rest follows.

        What stands below a sub-expression that is set plays no part, zero divisors included.

        Raises:
            UserError: `value` is not a value of this expression, or as `evaluate`.
        """
        if value not in self.values:
            raise unknown(f"value of {self.answer!r}", value, self.values)
        self.require(operands)
        given = {name: operands[name] for name in self.operands}
        return self._found({**given, value: with_})[self.answer]

    def can_replace(
        self, value: str, with_: IntArray, operands: Mapping[str, IntArray]
    ) -> BoolArray:
        """Rows in which no divisor is 0 when `value` is set to `with_`. Raises as `replace` does,
        but for the divisors.
        """
        self.require(operands)
        given = {name: operands[name] for name in self.operands}
        return _compute(self.tree, {**given, value: with_})[1]

    def render(self, texts: Mapping[str, str]) -> Rendered:
        """Write the source with each operand replaced by its text.

        Parentheses around a sub-expression are no part of its span; the answer spans all.

        Raises:
            UserError: an operand has no text.
        """
        self.require(texts)
        nodes = list(walk(self.tree))
        leaves = sorted((node.span, texts[node.name]) for node in nodes if node.is_operand)
        pieces, at = [], 0
        for (start, end), written in leaves:
            pieces += [self.source[at:start], written]
            at = end
        text = "".join([*pieces, self.source[at:]])
        growth = [(end, len(written) - 1) for (_, end), written in leaves]

        def moved(place: int) -> int:
            return place + sum(more for end, more in growth if end <= place)

        spans: dict[str, list[tuple[int, int]]] = {name: [] for name in self.values}
        for node in nodes:
            if node.name in spans:
                spans[node.name].append((moved(node.span[0]), moved(node.span[1])))
        spans[self.answer] = [(0, len(text))]
        return Rendered(text, {name: sorted(found) for name, found in spans.items()})

    def require(self, given: Mapping[str, object]) -> None:
        """Raise a UserError unless every operand is in `given`."""
        missing = [name for name in self.operands if name not in given]
        if missing:
            raise UserError(
                f"expected operands {', '.join(self.operands)} for {self.answer!r}, got "
                f"{', '.join(map(str, given)) or 'none'}; add {', '.join(missing)}"
            )

    def _found(self, given: Mapping[str, IntArray]) -> dict[str, np.ndarray]:
        """`_compute`, refusing zero divisors."""
        found, defined = _compute(self.tree, given)
        if not defined.all():
            row = int(np.flatnonzero(~defined)[0])
            drawn = ", ".join(f"{name}={int(found[name][row])}" for name in given)
            raise UserError(
                f"expected no divisor of {self.answer!r} to be 0, got {int((~defined).sum())} of "
                f"{len(defined)} rows with one (row {row}: {drawn}); narrow the operands' ranges"
            )
        return found


@dataclass(frozen=True)
class Constraint:
    """A condition on the operands. Made by `parse_constraint`."""

    text: str
    """As written, spaces between symbols dropped."""

    tree: Node

    operands: tuple[str, ...]
    """Letters, in order of first appearance."""

    def __str__(self) -> str:
        return self.text

    def holds(self, operands: Mapping[str, IntArray]) -> BoolArray:
        """Rows in which the condition holds; a row with a zero divisor anywhere in it does not.

        Raises:
            UserError: an operand is missing or not int64 of the others' length, or a number could
                leave the 64-bit integers.
        """
        missing = [name for name in self.operands if name not in operands]
        if missing:
            raise UserError(
                f"constraint {self.text!r} names {', '.join(missing)}, but the operands are "
                f"{', '.join(operands) or 'none'}; use those"
            )
        found, defined = _compute(self.tree, {name: operands[name] for name in self.operands})
        return found[self.tree.name] & defined


def parse(text: str) -> Expression:
    """Read an expression: letters a to z, literals, `+ - * // %`, unary minus, max, min, ( ).

    Raises:
        UserError: anything else, or a text, nesting, literal or number of operators over the caps.
    """
    source, tree = read_expression(text)
    _refuse_zero_divisors(tree, source)
    operands = _operands(tree, "expression", source)
    inner = [node.name for node in walk(tree) if node.arguments and letters(node)]
    # The tree's own name comes last by the order of the walk, unless the tree is one operand.
    return Expression(source, tree, operands, tuple(dict.fromkeys((*operands, *inner))))


def parse_constraint(text: str) -> Constraint:
    """Read a condition: comparisons of expressions, chained or joined with and, or, not.

    Raises:
        UserError: as `parse`, or the text is a number and not a condition.
    """
    source, tree = read_constraint(text)
    _refuse_zero_divisors(tree, source)
    return Constraint(source, tree, _operands(tree, "constraint", source))


def _operands(tree: Node, kind: str, source: str) -> tuple[str, ...]:
    found = letters(tree)
    if not found:
        raise UserError(
            f"{kind} {shown(source)}: expected at least one operand (a letter a to z), got none; "
            "write for example " + ("a-b" if kind == "expression" else "a > b")
        )
    return found


def _refuse_zero_divisors(tree: Node, source: str) -> None:
    """Raise a UserError for a divisor that is 0 whatever the operands are."""
    for node in walk(tree):
        if node.symbol not in _DIVISIONS or letters(node.arguments[1]):
            continue
        divisor = node.arguments[1]
        if _intervals(divisor, {})[divisor.name] == (0, 0):
            raise UserError(
                f"{shown(source)}: expected a divisor that can differ from 0, got "
                f"{divisor.name!r}; change it"
            )


# Numbers


def _compute(tree: Node, given: Mapping[str, IntArray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every node's number by name, and the rows in which no divisor is 0.

    `given` holds the operands and any value that is set. In the other rows the divisor counts
    as 1.
    """
    n = _common_length(given)
    _refuse_overflow(tree, given)
    found: dict[str, np.ndarray] = dict(given)
    defined = np.ones(n, dtype=bool)

    def visit(node: Node) -> np.ndarray:
        if node.name in found:
            return found[node.name]
        arguments = [visit(argument) for argument in node.arguments]
        if node.symbol in _DIVISIONS:
            nonzero = arguments[1] != 0
            np.logical_and(defined, nonzero, out=defined)
            arguments[1] = np.where(nonzero, arguments[1], 1)
        found[node.name] = (
            _FUNCTIONS[node.symbol](*arguments)
            if arguments
            else np.full(n, int(node.symbol), dtype=np.int64)
        )
        return found[node.name]

    visit(tree)
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


def _refuse_overflow(tree: Node, given: Mapping[str, np.ndarray]) -> None:
    ranges = {
        name: (int(array.min()), int(array.max())) if array.size else (0, 0)
        for name, array in given.items()
    }
    for name, (low, high) in _intervals(tree, ranges).items():
        if max(-low, high) > _INT64_MAX:
            raise UserError(
                f"expected numbers within 64 bits, got {name!r} that may reach "
                f"{max(-low, high)}; use smaller operands"
            )


def _intervals(tree: Node, given: Mapping[str, Interval]) -> dict[str, Interval]:
    """The least and greatest number of every node, by name, in Python's unbounded integers."""
    found: dict[str, Interval] = dict(given)

    def visit(node: Node) -> Interval:
        if node.name not in found:
            found[node.name] = _interval(node, [visit(argument) for argument in node.arguments])
        return found[node.name]

    visit(tree)
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
