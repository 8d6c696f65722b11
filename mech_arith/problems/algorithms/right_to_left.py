"""The last two terms first, then the one before: a+b+c as a+(b+c)."""

from mech_arith.problems.algorithms.base import RULES, Task, inner_steps, terms


@RULES.register("right_to_left")
def right_to_left(task: Task) -> list[str]:
    """Every partial sum from the right is a step, with the sign of its first term outside.

    Raises:
        UserError: the template is no sum or difference.
    """
    found = terms(task, "right_to_left")
    *others, (after, last) = found
    total, steps = last.name, inner_steps(found)
    for sign, term in reversed(others):
        rest = total if total == last.name else f"({total})"
        total = f"{term.name}{'+' if sign == after else '-'}{rest}"
        steps.append(total)
        after = sign
    answer = f"-({steps[-1]})" if after < 0 else steps[-1]
    return [*(steps if after < 0 else steps[:-1]), f"answer: {answer}"]
