"""Digit by digit from the ones on, with carries or borrows, as on paper."""

from collections.abc import Mapping

from mech_arith.problems.algorithms.base import RULES, Task, terms
from mech_arith.problems.grammar import names

PLACES = ("ones", "tens", "hundreds", "thousands", "ten_thousands")


@RULES.register("digits")
def digits(task: Task) -> list[str]:
    """Every digit of the answer and every carry (or borrow) is a step.

    Where answers may be negative, the smaller of two sums is taken from the larger one, and the
    sign is a step of its own: `is_negative`.

    Raises:
        UserError: the template is no sum or difference of operands, or an operand may be negative.
    """
    for name, (low, _) in task.ranges.items():
        if low < 0:
            raise task.refusal("digits", "operands of 0 or more", f"{name} from {low}")
    counts: dict[str, int] = {}
    for sign, term in terms(task, "digits"):
        if names(term) != (term.name,):
            raise task.refusal("digits", "a sum or difference of operands", f"the term {term.name}")
        counts[term.name] = counts.get(term.name, 0) + sign
    counts = {name: count for name, count in counts.items() if count}
    if len(counts) < 2:
        raise task.refusal("digits", "two operands that count", ", ".join(counts) or "none")
    (least, greatest), widths = task.answers, {n: _width(task.ranges[n][1]) for n in counts}
    if least >= 0:
        steps, answer = _columns(counts, widths, _width(greatest))
        return [*steps, f"answer: {answer}"]
    added, taken = (_sum(counts, sign) for sign in (1, -1))
    both, width = {"larger": 1, "smaller": -1}, _width(max(-least, greatest))
    steps, answer = _columns(both, dict.fromkeys(both, width), width)
    return [
        f"larger: max({added},{taken})",
        f"smaller: min({added},{taken})",
        f"is_negative: min(max({taken}-({added}),0),1)",
        *steps,
        f"answer: (1-2*is_negative)*({answer})",
    ]


def _width(largest: int) -> int:
    """Digits of a number."""
    return len(str(largest))


def _sum(counts: Mapping[str, int], sign: int) -> str:
    """The operands of one sign, added up; 0 for none."""
    parts = [_times(abs(k), name) for name, k in counts.items() if k * sign > 0]
    return "+".join(parts) or "0"


def _times(count: int, text: str) -> str:
    return text if count == 1 else f"{count}*{text}"


def _columns(
    counts: Mapping[str, int], widths: Mapping[str, int], width: int
) -> tuple[list[str], str]:
    """The steps of so many columns, and the text of the sum of their digits.

    Args:
        counts: how often each number counts.
        widths: digits of the numbers.
        width: digits of the result. What is carried out of its last column is 0, so that its digit
            is all of that column.
    """
    word = "borrow" if min(counts.values()) < 0 else "carry"
    steps, parts, brought = [], [], ""
    for place in range(width):
        name = PLACES[place] if place < len(PLACES) else f"digit_{place}"
        column = _column({n: k for n, k in counts.items() if widths[n] > place}, place)
        if not column and place == width - 1:
            name = brought.lstrip("+")  # what is carried into an empty column is its digit
        elif place == width - 1:
            steps.append(f"{name}: {column}{brought}")
        else:
            out = f"({column}{brought})//10"
            steps.append(f"{name}: ({column}{brought})%10")
            steps.append(f"{name}_{word}: {out if word == 'carry' else f'-({out})'}")
        parts.append(name if place == 0 else f"{10**place}*{name}")
        brought = f"{'-' if word == 'borrow' else '+'}{name}_{word}"
    return steps, "+".join(reversed(parts))


def _column(counts: Mapping[str, int], place: int) -> str:
    """Digits of numbers at a place, with their signs; those that are added come first."""
    text = ""
    for name, count in sorted(counts.items(), key=lambda item: item[1] < 0):
        digit = f"{name}%10" if place == 0 else f"{name}//{10**place}%10"
        sign = "-" if count < 0 else "+" if text else ""
        text += sign + _times(abs(count), f"({digit})" if abs(count) > 1 else digit)
    return text
