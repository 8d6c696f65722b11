"""One term after the other, as they are read: a-(b-c) as (a-b)+c."""

from mech_arith.problems.algorithms.base import RULES, Task, inner_steps, terms


@RULES.register("left_to_right")
def left_to_right(task: Task) -> list[str]:
    """Every partial sum from the left is a step.

    Raises:
        UserError: the template is no sum or difference.
    """
    found = terms(task, "left_to_right")
    (sign, first), *others = found
    total, steps = ("-" if sign < 0 else "") + first.name, inner_steps(found)
    for sign, term in others:
        total = f"{total}{'-' if sign < 0 else '+'}{term.name}"
        steps.append(total)
    return [*steps[:-1], f"answer: {steps[-1]}"]
