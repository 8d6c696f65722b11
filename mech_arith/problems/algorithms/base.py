"""What a rule is asked, and the registry of rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mech_arith.common.errors import UserError
from mech_arith.common.registry import Registry
from mech_arith.problems.computing import Interval
from mech_arith.problems.expressions import Expression
from mech_arith.problems.grammar import Node, names, walk


@dataclass(frozen=True)
class Task:
    """A template, and the problems that are drawn from it."""

    expression: Expression
    ranges: Mapping[str, Interval]
    """Of each operand, inclusive."""
    answers: Interval
    """The least and the greatest answer among the problems."""

    def refusal(self, rule: str, expected: str, got: str) -> UserError:
        """The error where a rule does not apply to a template."""
        return UserError(
            f"hypothesis={rule} does not apply to {self.expression.answer!r}: expected {expected}, "
            f"got {got}; choose another hypothesis or template"
        )


class Rule(Protocol):
    """Makes the steps of a hypothesis, as `read_hypothesis` takes them."""

    def __call__(self, task: Task, **options: Any) -> list[str]:
        """The steps. Options are the rule's own keyword arguments.

        Raises:
            UserError: the rule does not apply to the template, or an option is malformed.
        """
        ...


RULES: Registry[Rule] = Registry("hypothesis.rule", "mech_arith.problems.algorithms")
"""Rules by name; conf/hypothesis/NAME.yaml has the options of each."""


def terms(task: Task, rule: str) -> list[tuple[int, Node]]:
    """The terms of a sum or difference with their signs, in the order in which they are written.

    Raises:
        UserError: the template's outermost operation is no sum or difference.
    """
    found: list[tuple[int, Node]] = []

    def visit(node: Node, sign: int) -> None:
        match node.symbol:
            case "+" | "-":
                first, second = node.arguments
                visit(first, sign)
                visit(second, sign if node.symbol == "+" else -sign)
            case "negative":
                visit(node.arguments[0], -sign)
            case _:
                found.append((sign, node))

    visit(task.expression.tree, 1)
    if len(found) < 2:
        raise task.refusal(rule, "a sum or difference", repr(task.expression.answer))
    return found


def inner_steps(found: list[tuple[int, Node]]) -> list[str]:
    """What stands inside terms that are no plain operand, as steps: products and the like."""
    inside = [
        node.name for _, term in found for node in walk(term) if node.arguments and names(node)
    ]
    return list(dict.fromkeys(inside))
