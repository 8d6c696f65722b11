"""From the names of hypotheses to a template whose answer is taken to be computed that way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import combinations
from typing import Any

import numpy as np

from mech_arith.common.errors import UserError, nearest
from mech_arith.problems.algorithms import RULES, Task
from mech_arith.problems.computing import IntArray, Interval
from mech_arith.problems.hypotheses import TREE, Hypothesis
from mech_arith.problems.steps import read_hypothesis
from mech_arith.problems.templates import Template


@dataclass(frozen=True)
class AskedHypothesis:
    """A hypothesis as it is asked for: by steps, or else by a rule that makes them."""

    name: str = TREE
    rule: str | None = None
    """The one of its own name by default."""
    steps: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the rule."""

    @property
    def is_tree(self) -> bool:
        """Whether it is the template as it is written."""
        return self.steps is None and (self.rule or self.name) == TREE

    @property
    def text(self) -> str:
        """What it is, whatever its name: its steps, or else its rule with all options."""
        if self.steps is not None:
            return f"[{', '.join(map(str, self.steps))}]"
        name = self.rule or self.name
        known = signature(RULES.find(name)).parameters.items()
        options = {key: entry.default for key, entry in known if key != "task"} | dict(self.options)
        shown = [f"{key}={list(o) if isinstance(o, tuple) else o}" for key, o in options.items()]
        return f"{name}({', '.join(shown)})"

    def build(self, task: Task) -> Hypothesis:
        """The hypothesis for a template.

        Raises:
            UserError: a step is malformed, or the rule does not apply or has no such option.
        """
        if self.steps is not None:
            return read_hypothesis(self.name, list(self.steps), task.expression)
        rule = RULES.find(self.rule or self.name)
        known = [name for name in signature(rule).parameters if name != "task"]
        for option in self.options:
            if option not in known:
                raise UserError(
                    f"unknown option {option!r} of hypothesis {self.name!r}; "
                    + (nearest(option, known) if known else "it has none")
                )
        return read_hypothesis(self.name, rule(task, **self.options), task.expression)


_KINDS = {"name": str, "rule": str | None, "steps": list | tuple | None, "options": Mapping}
"""What the keys of an entry of hypothesis.rivals hold."""


def read_asked(given: object) -> AskedHypothesis:
    """A rival as a config names it: a rule's name, {name, steps} or {name, rule, options}.

    Raises:
        UserError: it is none of them.
    """
    if isinstance(given, str):
        RULES.check(given)
        return AskedHypothesis(given)
    if isinstance(given, Mapping) and given.get("name"):
        known = {
            key: entry for key, entry in given.items() if isinstance(entry, _KINDS.get(key, ()))
        }
        if len(known) == len(given):
            return AskedHypothesis(**known)
    raise UserError(
        "expected an entry of hypothesis.rivals as the name of a hypothesis, as {name, steps} or "
        f"as {{name, rule, options}}, got {given!r}; write for example [tree], "
        "[{name: mine, steps: [...]}] or [{name: fives, rule: modulo, options: {moduli: [5]}}]"
    )


def with_hypotheses(
    template: Template,
    own: AskedHypothesis,
    rivals: Sequence[AskedHypothesis],
    *,
    ranges: Mapping[str, Interval],
    operands: Mapping[str, IntArray],
) -> Template:
    """The template with the hypothesis and its rivals, checked on problems that were drawn from it.

    Args:
        template: with its own tree as the hypothesis.
        own: the hypothesis that is asked for.
        rivals: others, of other names.
        ranges: of each operand.
        operands: of the problems.

    Raises:
        UserError: a hypothesis is malformed, gives another answer than the template, has a step
            that never varies or a divisor of 0; or two have one name, or one name for two things.
    """
    asked_names = [asked.name for asked in (own, *rivals)]
    for name in asked_names:
        if asked_names.count(name) > 1:
            raise UserError(
                f"expected hypotheses of unlike names, got {name!r} twice; rename one, or leave it "
                "out of hypothesis.rivals"
            )
    answers = template.expression.hypothesis.evaluate(operands)[template.expression.answer]
    task = Task(template.expression, ranges, (int(answers.min()), int(answers.max())))
    found = [asked.build(task) for asked in (own, *rivals)]
    for hypothesis in found:
        _check_on(hypothesis, operands, answers)
    joined = replace(found[0], rivals=tuple(found[1:]))
    _check_shared(joined, operands)
    return replace(template, computed_by=joined)


def _check_on(hypothesis: Hypothesis, operands: Mapping[str, IntArray], answers: IntArray) -> None:
    """Raise a UserError where it does not compute these answers, or a step never varies."""
    where = f"hypothesis {hypothesis.name!r}"
    try:
        found = hypothesis.evaluate(operands)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    wrong = np.flatnonzero(found[hypothesis.answer] != answers)
    if len(wrong):
        row = int(wrong[0])
        drawn = ", ".join(f"{name}={int(numbers[row])}" for name, numbers in operands.items())
        raise UserError(
            f"expected {where} to compute {hypothesis.answer}, got "
            f"{int(found[hypothesis.answer][row])} instead of {int(answers[row])} for {drawn} "
            f"({len(wrong)} of {len(answers)} problems); change its steps"
        )
    for step in hypothesis.steps:
        numbers = found[step.name]
        if (numbers == numbers[0]).all() and step.name != hypothesis.answer:
            raise UserError(
                f"expected a step that varies for {where}, got {step.name!r} = {int(numbers[0])} "
                f"in all {len(numbers)} problems; leave it out, or widen problems.operands"
            )


def _check_shared(joined: Hypothesis, operands: Mapping[str, IntArray]) -> None:
    """Raise a UserError where a value of two hypotheses is not the same variable in both."""
    numbers = _numbers(joined, operands)
    for index, rival in enumerate(joined.rivals):
        for other in (joined.alone(), *joined.rivals[:index]):
            shared = set(rival.own_values) & set(other.own_values) - set(joined.operands)
            for value in sorted(shared - {joined.answer}):
                if not _same((rival, value), (other, value), numbers, operands):
                    raise UserError(
                        f"expected one meaning of {value!r}, got others in hypotheses "
                        f"{other.name!r} and {rival.name!r}; rename the step in one of them"
                    )


Numbers = Mapping[str, Mapping[str, IntArray]]
"""By the names of hypotheses, all of their values."""


def _numbers(hypothesis: Hypothesis, operands: Mapping[str, IntArray]) -> Numbers:
    """Of a hypothesis and its rivals, each computed once."""
    every = (hypothesis.alone(), *hypothesis.rivals)
    return {each.name: each.evaluate(operands) for each in every}


def _same(
    first: tuple[Hypothesis, str],
    second: tuple[Hypothesis, str],
    numbers: Numbers,
    operands: Mapping[str, IntArray],
) -> bool:
    """Whether two values are one variable on these problems: equal, and of equal consequence."""
    mine, theirs = (numbers[of.name][value] for of, value in (first, second))
    if not np.array_equal(mine, theirs):
        return False
    moved = np.roll(mine, 1)
    here, there = (of.expected(value, moved, operands) for of, value in (first, second))
    known = np.isfinite(here) & np.isfinite(there)
    return np.array_equal(here[known], there[known])


def hypothesis_notes(hypothesis: Hypothesis, operands: Mapping[str, IntArray]) -> Iterator[str]:
    """What has to be said of a hypothesis and its rivals before anything is run."""
    for each in (hypothesis.alone(), *hypothesis.rivals):
        for step in each.steps:
            if not each.is_used(step.name):
                yield (
                    f"{step.name} of hypothesis {each.name} is not used by the answer: it can be "
                    "traced, but no interchange of it changes what is expected"
                )
    numbers = _numbers(hypothesis, operands) if hypothesis.rivals else {}
    for first, second in combinations((hypothesis.alone(), *hypothesis.rivals), 2):
        if _cannot_be_told_apart(first, second, numbers, operands):
            yield (
                f"hypotheses {first.name} and {second.name} cannot be told apart: they have "
                "the same values, and an interchange of any of them is expected to have the same "
                "answer"
            )


def _cannot_be_told_apart(
    first: Hypothesis, second: Hypothesis, numbers: Numbers, operands: Mapping[str, IntArray]
) -> bool:
    """Whether every step of each is a variable of the other too."""

    def covers(one: Hypothesis, of: Hypothesis) -> bool:
        return all(
            any(_same((one, mine.name), (of, theirs.name), numbers, operands) for mine in one.steps)
            for theirs in of.steps
        )

    return covers(first, second) and covers(second, first)
