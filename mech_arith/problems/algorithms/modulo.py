"""Residues beside the numbers: the last digit and its parts by the moduli 2 and 5."""

from collections.abc import Sequence
from itertools import combinations
from math import gcd, prod
from typing import Any

from mech_arith.common.errors import UserError
from mech_arith.problems.algorithms.base import RULES, Task
from mech_arith.problems.grammar import Node, names, walk


@RULES.register("modulo")
def modulo(task: Task, *, moduli: Sequence[Any] = (2, 5, 10)) -> list[str]:
    """The residue of every value is a step, and what is computed from the value has it from there.

    A number n is taken as n // m * m + n % m with m the largest modulus. The others are coprime and
    m is their product, so that n % m follows from theirs (Chinese remainder theorem).

    Raises:
        UserError: the moduli are not such, or the template has conditions on its way.
    """
    *parts, largest = _checked(moduli)
    steps: list[str] = []
    tree = task.expression.tree
    inner = {node.name: node for node in walk(tree) if names(node) and node.name != tree.name}
    known: dict[str, str] = {}
    for node in inner.values():
        number = node.name
        if node.arguments:
            steps.append(f"{number}: {_written(node, known)}")
        known[number] = _reduced(steps, number, number, parts, largest)
    answer = _reduced(steps, tree.name, _written(tree, known), parts, largest)
    return [*steps, f"answer: {answer}"]


def _reduced(steps: list[str], number: str, text: str, parts: Sequence[int], largest: int) -> str:
    """Add a number's residues to the steps; the text by which the number follows from them."""
    for part in parts:
        steps.append(f"({number})%{part}: ({text})%{part}")
    residue = f"({number})%{largest}"
    factors = [_factor(part, largest) for part in parts]
    joined = "+".join(f"{k}*(({number})%{p})" for k, p in zip(factors, parts, strict=True))
    steps.append(f"{residue}: {f'({joined})' if parts else f'({text})'}%{largest}")
    return f"(({text})//{largest}*{largest}+{residue})"


def _factor(part: int, product: int) -> int:
    """What is 1 modulo one of the parts and 0 modulo the others."""
    rest = product // part
    return rest * pow(rest, -1, part) % product


def _written(node: Node, known: dict[str, str]) -> str:
    """An operation on numbers that stand for its arguments."""
    arguments = [known.get(argument.name, argument.name) for argument in node.arguments]
    match node.symbol:
        case "negative":
            return f"-({arguments[0]})"
        case "max" | "min":
            return f"{node.symbol}({','.join(arguments)})"
        case symbol:
            return symbol.join(f"({argument})" for argument in arguments)


def _checked(moduli: Sequence[Any]) -> list[int]:
    listed: list[Any] = list(moduli) if isinstance(moduli, list | tuple) else [moduli]
    whole = all(isinstance(m, int) and not isinstance(m, bool) and m >= 2 for m in listed)
    ordered = sorted(set(listed)) if whole else []
    *parts, largest = ordered or [0]
    coprime = all(gcd(a, b) == 1 for a, b in combinations(parts, 2))
    if largest < 2 or not coprime or (parts and prod(parts) != largest):
        raise UserError(
            "expected hypothesis.options.moduli as whole numbers of 2 or more, the smaller ones "
            f"coprime with the largest as their product, got {moduli!r}; write for example "
            "[2,5,10] or [10]"
        )
    return ordered
