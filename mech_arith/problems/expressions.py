"""Arithmetic expressions in which every sub-expression is a named value."""

from collections.abc import Mapping
from dataclasses import dataclass

from mech_arith.common.errors import UserError
from mech_arith.problems.computing import DIVISIONS, BoolArray, IntArray, compute, intervals
from mech_arith.problems.grammar import Node, names, read_constraint, read_expression, shown, walk
from mech_arith.problems.hypotheses import Hypothesis, of_tree


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

    hypothesis: Hypothesis
    """The tree as steps: every sub-expression is one."""

    @property
    def operands(self) -> tuple[str, ...]:
        """Letters, in order of first appearance."""
        return self.hypothesis.operands

    @property
    def values(self) -> tuple[str, ...]:
        """Operands, then sub-expressions in the order of evaluation, left before right; the answer
        is last. Sub-expressions without operands are constants and are left out.
        """
        return self.hypothesis.values

    @property
    def answer(self) -> str:
        """Name of the whole expression's value."""
        return self.hypothesis.answer

    def __str__(self) -> str:
        return self.answer

    def render(self, texts: Mapping[str, str]) -> Rendered:
        """Write the source with each operand replaced by its text.

        Parentheses around a sub-expression are no part of its span; the answer spans all.

        Raises:
            UserError: an operand has no text.
        """
        self.hypothesis.require(texts)
        nodes = list(walk(self.tree))
        leaves = sorted((node.span, texts[node.name]) for node in nodes if node.is_name)
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
        given = {name: operands[name] for name in self.operands}
        found, defined = compute({self.text: self.tree}, given)
        return found[self.text] & defined


def parse(text: str) -> Expression:
    """Read an expression: letters a to z, literals, `+ - * // %`, unary minus, max, min, ( ).

    Raises:
        UserError: anything else, or a text, nesting, literal or number of operators over the caps.
    """
    source, tree = read_expression(text)
    refuse_zero_divisors(tree, source)
    operands = _operands(tree, "expression", source)
    return Expression(source, tree, of_tree(tree, operands))


def parse_constraint(text: str) -> Constraint:
    """Read a condition: comparisons of expressions, chained or joined with and, or, not.

    Raises:
        UserError: as `parse`, or the text is a number and not a condition.
    """
    source, tree = read_constraint(text)
    refuse_zero_divisors(tree, source)
    return Constraint(source, tree, _operands(tree, "constraint", source))


def _operands(tree: Node, kind: str, source: str) -> tuple[str, ...]:
    found = names(tree)
    if not found:
        raise UserError(
            f"{kind} {shown(source)}: expected at least one operand (a letter a to z), got none; "
            "write for example " + ("a-b" if kind == "expression" else "a > b")
        )
    return found


def refuse_zero_divisors(tree: Node, source: str) -> None:
    """Raise a UserError for a divisor that is 0 whatever the operands are."""
    for node in walk(tree):
        if node.symbol not in DIVISIONS or names(node.arguments[1]):
            continue
        divisor = node.arguments[1]
        if intervals({divisor.name: divisor}, {})[divisor.name] == (0, 0):
            raise UserError(
                f"{shown(source)}: expected a divisor that can differ from 0, got "
                f"{divisor.name!r}; change it"
            )
