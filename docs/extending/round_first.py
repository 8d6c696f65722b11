"""A hypothesis: the tens of all terms are added up first, then what was left of them."""

from mech_arith.problems.algorithms.base import RULES, Task, terms


@RULES.register("round_first")
def round_first(task: Task, *, to: int = 10) -> list[str]:
    """Steps `rounded`, `rest` and the answer. `hypothesis.options.to` is what is rounded to.

    Raises:
        UserError: the template is no sum or difference.
    """
    found = [("+" if sign > 0 else "-", term.name) for sign, term in terms(task, "round_first")]
    rounded = "".join(f"{sign}({name})//{to}*{to}" for sign, name in found)
    rest = "".join(f"{sign}({name})%{to}" for sign, name in found)
    return [f"rounded: 0{rounded}", f"rest: 0{rest}", "answer: rounded+rest"]
