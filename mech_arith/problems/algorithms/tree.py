"""The template's own sub-expressions, as it is written."""

from mech_arith.problems.algorithms.base import RULES, Task


@RULES.register("tree")
def tree(task: Task) -> list[str]:
    """Every sub-expression is a step."""
    *inner, answer = task.expression.hypothesis.steps
    return [*(step.name for step in inner), f"answer: {answer.tree.name}"]
