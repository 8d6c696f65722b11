"""The grammar of expressions: text to trees.

Text is read by a linear scan of its tokens, then by Python's `ast` in `eval` mode. Only the nodes
of this grammar are taken over. Nothing is ever compiled or executed.
"""

import ast
import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mech_arith.common.errors import UserError

MAX_CHARACTERS = 1_000
MAX_NESTING = 50
MAX_OPERATIONS = 100
MAX_LITERAL_DIGITS = 9

STEP = "step"
"""The kind of an expression that may name steps of a hypothesis."""

MAX_NAME = 30

_CALLS = ("max", "min")
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


@dataclass(frozen=True)
class Node:
    """One node of a tree: an operand, a literal, an operation or (in constraints) a condition."""

    symbol: str
    """The operand's letter, the step's name, the literal's digits, or the operator."""

    arguments: tuple["Node", ...]
    """Empty for operands, steps and literals."""

    name: str
    """Canonical text; two nodes of one name always have the same number."""

    span: tuple[int, int] = field(compare=False)
    """Half-open range of characters in the source, without parentheses around it."""

    @property
    def is_name(self) -> bool:
        """Whether the node is an operand's letter or a step's name."""
        return not self.arguments and not self.symbol.isdecimal()


def read_expression(text: str, *, kind: str = "expression") -> tuple[str, Node]:
    """An expression's text without spaces, and its tree. Steps of a hypothesis may name words.

    Raises:
        UserError: anything outside the grammar, or over the caps.
    """
    source, body = _read(text, kind)
    return source, _arithmetic(body, source)


def read_constraint(text: str) -> tuple[str, Node]:
    """A constraint's text without spaces, and its tree.

    Raises:
        UserError: anything outside the grammar, or over the caps, or a number and no condition.
    """
    source, body = _read(text, "constraint")
    return source, _condition(body, source)


def is_step_name(text: str) -> bool:
    """Whether a step may have this name: words that mean something to Python are none."""
    return (
        re.fullmatch(r"[a-z][a-z_0-9]*", text) is not None
        and len(text) <= MAX_NAME
        and not keyword.iskeyword(text)
        and text not in (*_CALLS, *_PRECEDENCE)
    )


# Reading


@dataclass(frozen=True)
class _Text:
    """A text to be read, and how to refuse it."""

    text: str
    kind: str

    @property
    def holds_conditions(self) -> bool:
        return self.kind == "constraint"

    @property
    def holds_words(self) -> bool:
        return self.kind == STEP

    def refusal(self, expected: str, at: int, got: str) -> UserError:
        place = f"at character {at + 1}" if at < len(self.text) else "at the end"
        names = "operands and earlier steps" if self.holds_words else "letters a to z"
        more = ", < <= > >= == !=, and, or, not" if self.holds_conditions else ""
        return UserError(
            f"{self.kind} {shown(self.text)}: expected {expected} {place}, got {got}; allowed are "
            f"{names}, whole numbers, + - * // %, max(x, y), min(x, y), parentheses{more}"
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
        is_name = is_letter or (whole.holds_words and is_step_name(token))
        if group == "word" and token not in words and not is_name:
            expected = "a name of small letters" if whole.holds_words else "a single letter a to z"
            raise whole.refusal(expected, at, shown(token))
        if group != "space":
            yield _Token(token, at, group in ("word", "number"), group == "number" or is_name)
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


def shown(text: str) -> str:
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
            rank = _PRECEDENCE[symbol]
            name = _wrapped(first, rank) + symbol + _wrapped(second, rank + 1)
            return Node(symbol, (first, second), name, span)
        case ast.Call(func=ast.Name(id=symbol), args=given, keywords=[]) if symbol in _CALLS:
            if len(given) < 2:
                raise UserError(
                    f"{shown(source)}: expected at least two arguments of {symbol}, got "
                    f"{len(given)}; write {symbol}(x, y)"
                )
            arguments = tuple(_arithmetic(argument, source) for argument in given)
            name = f"{symbol}({','.join(argument.name for argument in arguments)})"
            return Node(symbol, arguments, name, span)
    raise UserError(
        f"{shown(source)}: expected a number, got {shown(source[slice(*span)])}; use "
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
        f"{shown(source)}: expected a comparison, got {shown(source[slice(*span)])}; write for "
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


def walk(node: Node) -> Iterator[Node]:
    """All nodes, arguments before what they are arguments of, left before right."""
    for argument in node.arguments:
        yield from walk(argument)
    yield node


def names(node: Node) -> tuple[str, ...]:
    """The operands and steps at or below a node, in order of first appearance."""
    return tuple(dict.fromkeys(part.name for part in walk(node) if part.is_name))
