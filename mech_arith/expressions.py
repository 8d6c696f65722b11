"""Arithmetic expressions in which every sub-expression is a named value.

Text is read by a linear scan of its tokens, then by Python's `ast` in `eval` mode, of which only
the nodes of this grammar are taken over. Nothing is ever compiled or executed.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64

from mech_arith.errors import UserError, unknown

IntArray = Int64[np.ndarray, " n"]
BoolArray = Bool[np.ndarray, " n"]
Interval = tuple[int, int]

MAX_CHARACTERS = 1_000
MAX_NESTING = 50
MAX_OPERATIONS = 100
MAX_LITERAL_DIGITS = 9

_INT64_MAX = 2**63 - 1
_CALLS = ("max", "min")
_DIVISIONS = ("//", "%")
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2, "negative": 3}
_ATOM = 4

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}

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
class Node:
    """One node of a tree: an operand, a literal, an operation or (in constraints) a condition."""

    symbol: str
    """The operand's letter, the literal's digits, or the operator."""

    arguments: tuple["Node", ...]
    """Empty for operands and literals."""

    name: str
    """Canonical text; two nodes of one name always have the same number."""

    span: tuple[int, int] = field(compare=False)
    """Half-open range of characters in the source, without parentheses around it."""

    @property
    def is_operand(self) -> bool:
        """Whether the node is a letter."""
        return not self.arguments and self.symbol.isalpha()


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
        for node in _walk(self.tree):
            if node.name == value:
                return _letters(node)
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

    def render(self, texts: Mapping[str, str]) -> Rendered:
        """Write the source with each operand replaced by its text.

        Parentheses around a sub-expression are no part of its span; the answer spans all.

        Raises:
            UserError: an operand has no text.
        """
        self.require(texts)
        nodes = list(_walk(self.tree))
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
    source, body = _read(text, "expression")
    tree = _arithmetic(body, source)
    operands = _operands(tree, "expression", source)
    inner = [node.name for node in _walk(tree) if node.arguments and _letters(node)]
    # The tree's own name comes last by the order of the walk, unless the tree is one operand.
    return Expression(source, tree, operands, tuple(dict.fromkeys((*operands, *inner))))


def parse_constraint(text: str) -> Constraint:
    """Read a condition: comparisons of expressions, chained or joined with and, or, not.

    Raises:
        UserError: as `parse`, or the text is a number and not a condition.
    """
    source, body = _read(text, "constraint")
    tree = _condition(body, source)
    return Constraint(source, tree, _operands(tree, "constraint", source))


# Reading


@dataclass(frozen=True)
class _Text:
    """A text to be read, and how to refuse it."""

    text: str
    kind: str

    @property
    def holds_conditions(self) -> bool:
        return self.kind == "constraint"

    def refusal(self, expected: str, at: int, got: str) -> UserError:
        place = f"at character {at + 1}" if at < len(self.text) else "at the end"
        more = ", < <= > >= == !=, and, or, not" if self.holds_conditions else ""
        return UserError(
            f"{self.kind} {_shown(self.text)}: expected {expected} {place}, got {got}; allowed are "
            f"letters a to z, whole numbers, + - * // %, max(x, y), min(x, y), parentheses{more}"
        )


@dataclass(frozen=True)
class _Token:
    text: str
    at: int
    is_word: bool
    is_operand: bool


_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<number>[0-9]+)|(?P<word>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<symbol>//|<=|>=|==|!=|[-+*%(),<>])"
)


def _read(text: str, kind: str) -> tuple[str, ast.expr]:
    """The text without spaces, and its syntax tree.

    Python's parser is given only what is small, shallow and in order, and so never refuses it.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"expected text of at most {MAX_CHARACTERS} characters for the {kind}, got "
            f"{len(text)}; shorten it"
        )
    whole = _Text(text, kind)
    tokens = list(_tokens(whole))
    _check_order(tokens, whole)
    pieces = [
        " " + token.text if token.is_word and before.is_word else token.text
        for before, token in pairwise([_Token("", 0, False, False), *tokens])
    ]
    source = "".join(pieces)
    return source, ast.parse(source, mode="eval").body


def _tokens(whole: _Text) -> Iterator[_Token]:
    """Cut the text up; refuse characters, names and literals that the grammar has not."""
    words = (*_CALLS, "and", "or", "not") if whole.holds_conditions else _CALLS
    at = 0
    while at < len(whole.text):
        match = _TOKEN.match(whole.text, at)
        if match is None:
            raise whole.refusal("an operand or operator", at, repr(whole.text[at]))
        token, group = match[0], match.lastgroup
        if group == "symbol" and token in _COMPARISONS and not whole.holds_conditions:
            raise whole.refusal("an arithmetic operator", at, repr(token))
        if group == "number" and len(token) > MAX_LITERAL_DIGITS:
            digits = f"{len(token)} digits"
            raise whole.refusal(f"at most {MAX_LITERAL_DIGITS} digits", at, digits)
        if group == "number" and token.startswith("0") and token != "0":
            raise whole.refusal("a number without leading zeros", at, repr(token))
        is_letter = len(token) == 1 and token.isalpha() and token.islower()
        if group == "word" and token not in words and not is_letter:
            raise whole.refusal("a single letter a to z", at, _shown(token))
        if group != "space":
            yield _Token(token, at, group in ("word", "number"), group == "number" or is_letter)
        at = match.end()


def _check_order(tokens: Sequence[_Token], whole: _Text) -> None:
    """Refuse tokens that are out of order, nested too deeply or too many, in linear time."""
    binary = {*_BINARY.values(), *_COMPARISONS, "and", "or"}
    before_not = ("", "(", "and", "or", "not")
    open_: list[tuple[bool, int]] = []  # per parenthesis: is it a call's, prefixes before it
    prefixes = depth = operations = 0
    operand_next, before = True, ""
    for token in tokens:
        text = token.text
        if before in _CALLS and text != "(":
            raise whole.refusal("'('", token.at, repr(text))
        if operand_next and (text == "-" or (text == "not" and before in before_not)):
            prefixes, depth, operations = prefixes + 1, depth + 1, operations + 1
        elif operand_next and text == "(":
            open_.append((before in _CALLS, prefixes))
            prefixes, depth = 0, depth + 1
        elif operand_next and text in _CALLS:
            operations += 1
        elif operand_next and token.is_operand:
            prefixes, depth, operand_next = 0, depth - prefixes, False
        elif not operand_next and text in binary:
            operand_next, operations = True, operations + 1
        elif not operand_next and text == "," and open_ and open_[-1][0]:
            operand_next = True
        elif not operand_next and text == ")" and open_:
            depth -= 1 + open_.pop()[1]
        else:
            expected = "an operand" if operand_next else "an operator"
            raise whole.refusal(expected, token.at, repr(text))
        if depth > MAX_NESTING:
            raise whole.refusal(f"at most {MAX_NESTING} levels of nesting", token.at, "one more")
        if operations > MAX_OPERATIONS:
            raise whole.refusal(f"at most {MAX_OPERATIONS} operators", token.at, "one more")
        before = text
    if operand_next or open_:
        expected = "')'" if not operand_next else "'('" if before in _CALLS else "an operand"
        raise whole.refusal(expected, len(whole.text), "nothing")


def _shown(text: str) -> str:
    """A text as one short line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


# Trees


def _arithmetic(node: ast.expr, source: str) -> Node:
    """Take over a number-valued node of the grammar; refuse every other."""
    span = _span(node)
    match node:
        case ast.Name(id=letter):
            return Node(letter, (), letter, span)
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return Node(str(number), (), str(number), span)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            argument = _arithmetic(operand, source)
            name = "-" + _wrapped(argument, _PRECEDENCE["negative"])
            return Node("negative", (argument,), name, span)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            symbol = _BINARY[type(operator)]
            first, second = _arithmetic(left, source), _arithmetic(right, source)
            if symbol in _DIVISIONS and not _letters(second):
                _refuse_zero(second, source)
            rank = _PRECEDENCE[symbol]
            name = _wrapped(first, rank) + symbol + _wrapped(second, rank + 1)
            return Node(symbol, (first, second), name, span)
        case ast.Call(func=ast.Name(id=symbol), args=given, keywords=[]) if symbol in _CALLS:
            if len(given) < 2:
                raise UserError(
                    f"{_shown(source)}: expected at least two arguments of {symbol}, got "
                    f"{len(given)}; write {symbol}(x, y)"
                )
            arguments = tuple(_arithmetic(argument, source) for argument in given)
            name = f"{symbol}({','.join(argument.name for argument in arguments)})"
            return Node(symbol, arguments, name, span)
    raise UserError(
        f"{_shown(source)}: expected a number, got {_shown(source[slice(*span)])}; use "
        "conditions only in constraints, and only around comparisons"
    )


def _condition(node: ast.expr, source: str) -> Node:
    """Take over a truth-valued node of the grammar; refuse every other."""
    span = _span(node)
    match node:
        case ast.Compare(left=left, ops=operators, comparators=others):
            terms = [_arithmetic(term, source) for term in (left, *others)]
            symbols = [_COMPARE[type(operator)] for operator in operators]
            pairs = [
                Node(symbol, (first, second), f"{first.name}{symbol}{second.name}", span)
                for (first, second), symbol in zip(pairwise(terms), symbols, strict=True)
            ]
            return pairs[0] if len(pairs) == 1 else _joined("and", tuple(pairs), span)
        case ast.BoolOp(op=operator, values=given):
            symbol = "and" if isinstance(operator, ast.And) else "or"
            return _joined(symbol, tuple(_condition(part, source) for part in given), span)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            argument = _condition(operand, source)
            return Node("not", (argument,), f"not ({argument.name})", span)
    raise UserError(
        f"{_shown(source)}: expected a comparison, got {_shown(source[slice(*span)])}; write for "
        "example b > c"
    )


def _joined(symbol: str, parts: tuple[Node, ...], span: tuple[int, int]) -> Node:
    return Node(symbol, parts, f" {symbol} ".join(f"({part.name})" for part in parts), span)


def _span(node: ast.expr) -> tuple[int, int]:
    # The scan lets only ASCII on one line through, so ast's bytes are characters.
    assert node.end_col_offset is not None
    return node.col_offset, node.end_col_offset


def _wrapped(node: Node, rank: int) -> str:
    """The node's name, in parentheses where it binds more loosely than `rank`."""
    return node.name if _PRECEDENCE.get(node.symbol, _ATOM) >= rank else f"({node.name})"


def _walk(node: Node) -> Iterator[Node]:
    """All nodes, arguments before what they are arguments of, left before right."""
    for argument in node.arguments:
        yield from _walk(argument)
    yield node


def _letters(node: Node) -> tuple[str, ...]:
    """The operands at or below a node, in order of first appearance."""
    return tuple(dict.fromkeys(part.name for part in _walk(node) if part.is_operand))


def _operands(tree: Node, kind: str, source: str) -> tuple[str, ...]:
    found = _letters(tree)
    if not found:
        raise UserError(
            f"{kind} {_shown(source)}: expected at least one operand (a letter a to z), got none; "
            "write for example " + ("a-b" if kind == "expression" else "a > b")
        )
    return found


def _refuse_zero(divisor: Node, source: str) -> None:
    if _intervals(divisor, {})[divisor.name] == (0, 0):
        raise UserError(
            f"{_shown(source)}: expected a divisor that can differ from 0, got "
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
