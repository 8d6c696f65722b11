"""Styles of prompts: what is written around a problem and before its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mech_arith.problems.expressions import Expression
from mech_arith.problems.grammar import Node, walk

QUESTION = "{}"
"""Stands for the text of the problem's template."""

_SPACED = {"+", "-", "*", "//", "%"}


@dataclass(frozen=True)
class Form:
    """How one problem is written. `{}` is the text of the problem's template."""

    asked: str
    answered: str
    """What stands between it and the number. In a chat, the beginning of the model's own turn."""


@dataclass(frozen=True)
class Style:
    """How problems and answers are written.

    A space before the number is part of the prompt or of the answer, whichever the tokenizer
    takes it for.
    """

    equation: Form
    """Of templates whose wording is an expression alone."""

    words: Form
    """Of templates with any other wording."""

    end: str = ""
    """Behind an example's answer."""

    spaced: bool = False
    """Whether spaces stand around the operators of an expression."""

    takes_shots: bool = True

    is_chat: bool = False
    """Every problem is a user's turn and every answer an assistant's, by the tokenizer's own chat
    template. Templates that can switch reasoning off by `enable_thinking` are told to."""


STYLES: dict[str, Style] = {
    "bare": Style(Form("{}", "="), Form("{}", " "), takes_shots=False),
    "plain": Style(Form("{}", "="), Form("{}", " "), end="\n"),
    "spaced": Style(Form("{}", " = "), Form("{}", " "), end="\n", spaced=True),
    "comma": Style(Form("{}", " = "), Form("{}", " "), end=", ", spaced=True),
    "qa": Style(Form("Q: What is {}?\n", "A: "), Form("Q: {}\n", "A: "), end="\n\n", spaced=True),
    "chat": Style(
        Form("What is {}?", "{} = "), Form("{}", "The answer is "), spaced=True, is_chat=True
    ),
}


def with_spaces(expression: Expression) -> Expression:
    """The same expression, its source with spaces around binary operators and behind commas."""
    source, gaps = expression.source, []
    for node in walk(expression.tree):
        for left in node.arguments[:-1]:
            # Only closing parentheses stand between an argument and the operator behind it.
            symbol = node.symbol if node.symbol in _SPACED else ","
            at = source.index(symbol, left.span[1])
            gaps += [at, at + len(symbol)] if node.symbol in _SPACED else [at + 1]
    pieces = [source[start:end] for start, end in pairwise([0, *sorted(gaps), len(source)])]
    return replace(expression, source=" ".join(pieces), tree=_moved(expression.tree, gaps))


def _moved(node: Node, gaps: Sequence[int]) -> Node:
    """The tree in a source with a space in each gap."""
    start, end = node.span
    span = (start + sum(gap <= start for gap in gaps), end + sum(gap < end for gap in gaps))
    return replace(
        node, span=span, arguments=tuple(_moved(argument, gaps) for argument in node.arguments)
    )
