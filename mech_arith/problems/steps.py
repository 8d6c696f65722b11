"""From texts to a hypothesis: named steps, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mech_arith.common.errors import UserError, nearest
from mech_arith.problems.expressions import Expression, refuse_zero_divisors
from mech_arith.problems.grammar import (
    MAX_NAME,
    STEP,
    Node,
    is_step_name,
    names,
    read_expression,
    shown,
    walk,
)
from mech_arith.problems.hypotheses import Hypothesis, Step

MAX_STEPS = 100

ANSWER = "answer"
"""Name of the last step as it is written. The value has the template's own name for it."""

_EXAMPLE = "write for example 'carry: (a%10+b%10)//10'"


def read_hypothesis(name: str, texts: Sequence[object], expression: Expression) -> Hypothesis:
    """A hypothesis from its steps, each 'NAME: EXPRESSION'; the last one is named `answer`.

    An expression is in the grammar of templates, over operands and earlier steps. A step without a
    name is named by its expression, and so is every later occurrence of that.

    Args:
        name: of the hypothesis.
        texts: of the steps, in their order.
        expression: of the template, which says what operands there are.

    Raises:
        UserError: a step is malformed, has a name that it may not have, or names what is not there
            before it; or there is no answer, or too many steps.
    """
    where = f"hypothesis {name!r}"
    if not texts or len(texts) > MAX_STEPS:
        raise UserError(
            f"expected 1 to {MAX_STEPS} steps of {where}, got {len(texts)}; list them as "
            "hypothesis.steps=[...], the answer last"
        )
    reader = _Reader(where, expression)
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"expected a step of {where} as text, got {text!r}; {_EXAMPLE}")
        reader.read(text)
    if ANSWER not in reader.found:
        raise UserError(
            f"expected a last step '{ANSWER}: ...' of {where}, got {shown(str(texts[-1]))}; add "
            f"the one that computes {expression.answer}"
        )
    return Hypothesis(name, expression.operands, reader.steps())


@dataclass
class _Reader:
    """The steps that have been read."""

    where: str
    expression: Expression
    found: dict[str, Node] = field(default_factory=dict)
    occurring: set[str] = field(default_factory=set)
    """Names of all nodes of these steps."""

    def read(self, text: str) -> None:
        """Read one more step."""
        if ANSWER in self.found:
            raise UserError(
                f"expected the step {ANSWER!r} of {self.where} to be the last, got "
                f"{shown(text)} behind it; put it before"
            )
        given, colon, rest = text.rpartition(":")
        source, tree = read_expression(rest, kind=STEP)
        refuse_zero_divisors(tree, source)
        name = self._name(given.strip()) if colon else tree.name
        self._check_name(name, text)
        self._check_tree(name, tree, text)
        self.found[name] = tree
        self.occurring |= {node.name for node in walk(tree)} | {name}

    def steps(self) -> tuple[Step, ...]:
        """The answer under its own name."""
        own = {ANSWER: self.expression.answer}
        return tuple(Step(own.get(name, name), tree) for name, tree in self.found.items())

    def _name(self, given: str) -> str:
        """A word, or the canonical text of an expression."""
        if is_step_name(given):
            return given
        try:
            return read_expression(given, kind=STEP)[1].name
        except UserError:
            raise UserError(
                f"expected a name of at most {MAX_NAME} small letters, digits and _ for a step of "
                f"{self.where}, got {shown(given)}; {_EXAMPLE}"
            ) from None

    def _check_name(self, name: str, text: str) -> None:
        """Refuse a name that something else has."""
        if name in self.expression.operands:
            raise UserError(
                f"expected a name of its own for step {shown(text)} of {self.where}, got the "
                f"operand {name!r}; rename it"
            )
        if name == self.expression.answer:
            raise UserError(
                f"expected the step {ANSWER!r} for {name} in {self.where}, got {shown(text)}; name "
                f"it {ANSWER} and put it last"
            )
        if name in self.found:
            raise UserError(
                f"expected each step of {self.where} once, got {name!r} twice; rename one"
            )
        if name in self.occurring:
            raise UserError(
                f"expected step {name!r} of {self.where} before the steps in which it occurs, got "
                "it behind one; move it up"
            )

    def _check_tree(self, name: str, tree: Node, text: str) -> None:
        """Refuse what is not there, or not yet."""
        known = [*self.expression.operands, *self.found]
        used = names(tree)
        if not used:
            raise UserError(
                f"expected an operand or an earlier step in step {shown(text)} of {self.where}, "
                f"got a constant; use one of: {', '.join(known)}"
            )
        for part in used:
            if part == name:
                raise UserError(
                    f"step {shown(text)} of {self.where} names itself; a step is computed from "
                    "operands and earlier steps"
                )
            if part not in known:
                raise UserError(
                    f"step {shown(text)} of {self.where} names {part!r}, which is no operand and "
                    f"no earlier step; {nearest(part, known)}"
                )
