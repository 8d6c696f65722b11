"""Hypotheses: rules that make steps, steps of one's own, and what follows when a value is set."""

import numpy as np
import pytest

from mech_arith.common.errors import UserError
from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.algorithms import RULES, Task
from mech_arith.problems.asked import (
    AskedHypothesis,
    hypothesis_notes,
    read_asked,
    with_hypotheses,
)
from mech_arith.problems.expressions import parse, parse_constraint
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.steps import MAX_STEPS, read_hypothesis
from mech_arith.problems.templates import Template, build_template

ADDITION = [
    "ones: a%10+b%10",
    "carry: ones//10",
    "tens: a//10+b//10+carry",
    "answer: tens*10+ones%10",
]
TWO_DIGITS = {"a": (10, 99), "b": (10, 99)}


def problems(expression: str, ranges: tuple[int, int] = (10, 99), n: int = 200) -> ProblemSet:
    template = build_template("t", expression)
    return draw(template, n=n, ranges=dict.fromkeys(template.expression.operands, ranges), seed=0)


def made(rule: str, drawn: ProblemSet, ranges: tuple[int, int] = (10, 99), **options: object):
    """A rule's hypothesis for some problems."""
    expression = drawn.template.expression
    answers = int(drawn.answers.min()), int(drawn.answers.max())
    task = Task(expression, dict.fromkeys(expression.operands, ranges), answers)
    return AskedHypothesis(rule, options=options).build(task)


def asked(
    expression: str, own: AskedHypothesis, *rivals: AskedHypothesis, n: int = 200
) -> Template:
    drawn = problems(expression, n=n)
    ranges = dict.fromkeys(drawn.operands, (10, 99))
    return with_hypotheses(drawn.template, own, rivals, ranges=ranges, operands=drawn.operands)


@pytest.mark.parametrize("expression", ["a-(b-c)", "a+b", "a-b", "a+b+c", "(a+b)-(c+d)", "a-b+c"])
@pytest.mark.parametrize("rule", RULES.names())
def test_rules_compute_the_templates_answer(rule: str, expression: str) -> None:
    drawn = problems(expression)
    found = made(rule, drawn)
    values = found.evaluate(drawn.operands)
    np.testing.assert_array_equal(values[found.answer], drawn.answers)
    for value, numbers in values.items():
        again = found.replace(value, numbers, drawn.operands)
        np.testing.assert_array_equal(again, drawn.answers)


def test_left_to_right_takes_the_sum_as_it_is_read() -> None:
    drawn = problems("a-(b-c)")
    found = made("left_to_right", drawn)
    assert found.own_values == ("a", "b", "c", "a-b", "a-(b-c)")
    set_to = np.arange(200) - 100
    np.testing.assert_array_equal(
        found.replace("a-b", set_to, drawn.operands), set_to + drawn.operands["c"]
    )


def test_right_to_left_takes_the_last_terms_first() -> None:
    assert made("right_to_left", problems("a+b+c")).own_values == ("a", "b", "c", "b+c", "a+b+c")
    assert made("right_to_left", problems("a-b-c")).own_values == ("a", "b", "c", "b+c", "a-b-c")


def test_digits_of_a_sum_are_those_of_paper_and_pencil() -> None:
    drawn = problems("a+b")
    found = made("digits", drawn)
    values = found.evaluate(drawn.operands)
    for row, (a, b) in enumerate(zip(drawn.operands["a"], drawn.operands["b"], strict=True)):
        carry, ones = divmod(a % 10 + b % 10, 10)
        top, tens = divmod(a // 10 + b // 10 + carry, 10)
        got = [int(values[name][row]) for name in ("ones", "ones_carry", "tens", "tens_carry")]
        assert got == [ones, carry, tens, top]
    flipped = 1 - values["ones_carry"]
    change = found.replace("ones_carry", flipped, drawn.operands) - drawn.answers
    np.testing.assert_array_equal(change, 10 * (flipped - values["ones_carry"]))


def test_digits_of_a_difference_borrow_and_have_a_sign() -> None:
    drawn = problems("a-b")
    found = made("digits", drawn)
    values = found.evaluate(drawn.operands)
    digits = np.abs(drawn.answers)
    np.testing.assert_array_equal(values["ones"], digits % 10)
    np.testing.assert_array_equal(values["tens"], digits // 10)
    np.testing.assert_array_equal(values["is_negative"], drawn.answers < 0)
    turned = found.replace("is_negative", 1 - values["is_negative"], drawn.operands)
    np.testing.assert_array_equal(turned, -drawn.answers)


def test_a_residue_that_is_set_moves_the_answer_within_its_ten() -> None:
    drawn = problems("a-(b-c)")
    found = made("modulo", drawn)
    for residue in range(10):
        set_to = np.full(len(drawn), residue)
        got = found.replace("(a-(b-c))%10", set_to, drawn.operands)
        np.testing.assert_array_equal(got, drawn.answers // 10 * 10 + residue)
    parity = found.replace("b%2", np.zeros(len(drawn), dtype=np.int64), drawn.operands)
    b = drawn.operands["b"]
    moved = b // 10 * 10 + 6 * (b % 5) % 10  # even, and as b modulo 5
    np.testing.assert_array_equal(parity, drawn.operands["a"] - (moved - drawn.operands["c"]))


def test_steps_of_ones_own_follow_from_each_other() -> None:
    found = read_hypothesis("mine", ADDITION, parse("a+b"))
    operands = {"a": np.array([27, 31]), "b": np.array([15, 42])}
    values = found.evaluate(operands)
    assert {name: of.tolist() for name, of in values.items() if name not in "ab"} == {
        "ones": [12, 3],
        "carry": [1, 0],
        "tens": [4, 7],
        "a+b": [42, 73],
    }
    assert found.replace("carry", np.array([0, 1]), operands).tolist() == [32, 83]
    assert found.replace("ones", np.array([3, 12]), operands).tolist() == [33, 82]
    both = {"carry": np.array([0, 0]), "ones": np.array([19, 19])}
    assert found.replace_all(both, operands).tolist() == [39, 79]
    assert [found.level(name) for name in found.own_values] == [0, 0, 1, 2, 3, 4]
    assert found.operands_of("carry") == ("a", "b")
    assert found.siblings("a") == ("b",)


def test_a_step_without_a_name_is_every_later_node_of_its_text() -> None:
    found = read_hypothesis("mine", ["b-c", "answer: a-(b-c)"], parse("a-(b-c)"))
    tree = parse("a-(b-c)").hypothesis
    assert found.own_values == tree.own_values
    operands = {"a": np.array([5]), "b": np.array([3]), "c": np.array([1])}
    assert found.replace("b-c", np.array([9]), operands).tolist() == [-4]


def test_what_the_answer_does_not_use_can_only_be_traced() -> None:
    found = read_hypothesis("mine", ["larger: max(a,b)", "answer: a+b"], parse("a+b"))
    assert not found.is_used("larger")
    assert found.is_used("a")
    assert found.is_used("a+b")
    (note,) = hypothesis_notes(found, {"a": np.array([1, 2]), "b": np.array([2, 1])})
    assert note.startswith("larger of hypothesis mine is not used by the answer")


def test_rivals_values_stand_before_the_answer_and_follow_their_own_way() -> None:
    template = asked("a-(b-c)", AskedHypothesis("left_to_right"), AskedHypothesis("tree"))
    found = template.hypothesis
    assert found.values == ("a", "b", "c", "a-b", "b-c", "a-(b-c)")
    operands = {"a": np.array([5]), "b": np.array([3]), "c": np.array([1])}
    assert found.replace("a-b", np.array([9]), operands).tolist() == [10]
    assert found.replace("b-c", np.array([9]), operands).tolist() == [-4]
    assert {value: found.of(value).name for value in ("a-b", "b-c")} == {
        "a-b": "left_to_right",
        "b-c": "tree",
    }


def test_hypotheses_that_are_one_are_said_to_be() -> None:
    template = asked("a+b+c", AskedHypothesis("left_to_right"), AskedHypothesis("tree"))
    drawn = problems("a+b+c")
    (note,) = hypothesis_notes(template.hypothesis, drawn.operands)
    assert note.startswith("hypotheses left_to_right and tree cannot be told apart")
    apart = asked("a+b+c", AskedHypothesis("right_to_left"), AskedHypothesis("tree"))
    assert not list(hypothesis_notes(apart.hypothesis, drawn.operands))


def test_what_has_no_inner_step_competes_by_its_operands() -> None:
    tree, at_once, other = (AskedHypothesis(n) for n in ("tree", "at_once", "right_to_left"))
    found = asked("a+b+c", tree, other, at_once).hypothesis
    assert found.values == ("a", "b", "c", "a+b", "b+c", "a+b+c")
    each = tuple(("at_once", operand) for operand in "abc")
    assert found.rival_values("a+b") == (("right_to_left", "b+c"), *each)
    assert found.rival_values("b+c") == (("tree", "a+b"), *each)
    assert all(not found.rival_values(value) for value in (*"abc", "a+b+c"))
    turned = asked("a+b+c", at_once, tree).hypothesis
    assert turned.rival_values("a+b") == each
    # An operand that the rival does not use is none of what its answer is made of.
    short = AskedHypothesis("short", steps=["answer: a"])
    assert asked("a+b-b", tree, short).hypothesis.rival_values("a+b") == (("short", "a"),)
    # Of a+b the template has nothing on the way either.
    digits = asked("a+b", AskedHypothesis("digits"), tree).hypothesis
    assert digits.rival_values("ones_carry") == (("tree", "a"), ("tree", "b"))


def test_hypotheses_without_inner_steps_are_one() -> None:
    tree, at_once, digits = (AskedHypothesis(n) for n in ("tree", "at_once", "digits"))
    drawn = problems("a+b")
    (note,) = hypothesis_notes(asked("a+b", tree, at_once).hypothesis, drawn.operands)
    assert note.startswith("hypotheses tree and at_once cannot be told apart")
    (note,) = hypothesis_notes(asked("a+b", digits, tree, at_once).hypothesis, drawn.operands)
    assert note.startswith("hypotheses tree and at_once cannot be told apart")
    longer = problems("a+b+c")
    assert not list(hypothesis_notes(asked("a+b+c", tree, at_once).hypothesis, longer.operands))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["x: a+d", "answer: x+b"], "names 'd', which is no operand and no earlier step; expected"),
        (["x: x+a", "answer: x+b"], "names itself"),
        (["x: y+a", "y: b", "answer: x"], "names 'y', which is no operand and no earlier step"),
        (["a: b+1", "answer: a+b"], "got the operand 'a'; rename it"),
        (["x: a", "x: b", "answer: a+b"], "once, got 'x' twice"),
        (["x: a+b"], "expected a last step 'answer: ...' of hypothesis 'mine', got 'x: a+b'"),
        (["answer: a+b", "x: a"], "'answer' of hypothesis 'mine' to be the last, got 'x: a'"),
        (["x: 3", "answer: a+b"], "got a constant; use one of: a, b"),
        (["x: a//0", "answer: a+b"], "expected a divisor that can differ from 0, got '0'"),
        (["for: a", "answer: a+b"], "expected a name of at most 30 small letters"),
        (["max: a", "answer: a+b"], "expected a name of at most 30 small letters"),
        (["x: a ++ b", "answer: a+b"], "expected an operand at character"),
        (["x: (a+b)*2", "a+b", "answer: a+b"], "expected the step 'answer' for a+b"),
        (["x: (a-b)*2", "a-b", "answer: a+b"], "'a-b' of hypothesis 'mine' before the steps in"),
        ([7, "answer: a+b"], "as text, got 7; write for example"),
        ([], "expected 1 to 100 steps of hypothesis 'mine', got 0"),
        ([f"x{i}: a+{i}" for i in range(2 * MAX_STEPS)], "expected 1 to 100 steps"),
    ],
)
def test_steps_that_say_nothing_are_refused(steps: list[object], said: str) -> None:
    with pytest.raises(UserError) as raised:
        read_hypothesis("mine", steps, parse("a+b"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["answer: a+b+1"], "expected hypothesis 'mine' to compute a+b, got "),
        (["x: a//(b-b)", "answer: a+b"], "hypothesis 'mine': expected no divisor"),
        (["x: a//100", "answer: a+b"], "step that varies for hypothesis 'mine', got 'x' = 0 in"),
    ],
)
def test_hypotheses_are_tried_on_the_problems(steps: list[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        asked("a+b", AskedHypothesis("mine", steps=steps))
    assert said in str(raised.value)


def test_a_wrong_answer_is_shown_with_its_problem() -> None:
    with pytest.raises(UserError, match=r"got (\d+) instead of (\d+) for a=(\d+), b=(\d+)") as got:
        asked("a+b", AskedHypothesis("mine", steps=["answer: a+b+b//90"]))
    assert "change its steps" in str(got.value)


def test_two_hypotheses_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="unlike names, got 'tree' twice"):
        asked("a-(b-c)", AskedHypothesis("tree"), AskedHypothesis("tree"))


def test_one_name_for_two_things_is_refused() -> None:
    other = AskedHypothesis("other", steps=["ones: a%10", "answer: a-ones+ones+b"])
    with pytest.raises(UserError, match="expected one meaning of 'ones', got others in hypotheses"):
        asked("a+b", AskedHypothesis("mine", steps=ADDITION), other)


@pytest.mark.parametrize(
    ("rule", "expression", "said"),
    [
        ("left_to_right", "a*b", "does not apply to 'a*b': expected a sum or difference"),
        ("digits", "a*b-c", "expected a sum or difference of operands, got the term a*b"),
        ("digits", "a-a", "expected two operands that count, got none"),
    ],
)
def test_a_rule_says_why_it_does_not_apply(rule: str, expression: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        made(rule, problems(expression, n=20))
    assert said in str(raised.value)


def test_digits_want_operands_that_are_not_negative() -> None:
    with pytest.raises(UserError, match="operands of 0 or more, got a from -9"):
        made("digits", problems("a+b", (-9, 9)), (-9, 9))


@pytest.mark.parametrize("moduli", [[1], [2, 4, 8], [3, 5, 10], [2.5], "ten", []])
def test_moduli_have_to_fit_together(moduli: object) -> None:
    with pytest.raises(UserError, match=r"expected hypothesis\.options\.moduli"):
        made("modulo", problems("a+b"), moduli=moduli)


def test_an_unknown_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="unknown option 'modulus' of hypothesis 'modulo'"):
        made("modulo", problems("a+b"), modulus=[10])
    with pytest.raises(UserError, match="hypothesis 'digits'; it has none"):
        made("digits", problems("a+b"), base=2)


@pytest.mark.parametrize(
    "given",
    [
        7,
        {"steps": ["answer: a"]},
        {"name": "x", "step": []},
        {"name": "", "rule": "digits"},
        {"name": "x", "steps": 3},
        {"name": "x", "steps": "answer: a"},
        {"name": "x", "rule": ["digits"]},
        {"name": "x", "rule": "digits", "options": 3},
        {"name": "x", "rule": "digits", "options": None},
    ],
)
def test_a_rival_is_a_name_or_a_name_with_steps(given: object) -> None:
    with pytest.raises(UserError, match=r"expected an entry of hypothesis\.rivals"):
        read_asked(given)
    with pytest.raises(UserError, match=r"unknown hypothesis\.rule 'digit'.*did you mean"):
        read_asked("digit")


def test_problems_are_drawn_under_the_hypothesis() -> None:
    template = asked("a+b", AskedHypothesis("mine", steps=ADDITION))
    constraint = parse_constraint("a < b")
    drawn = draw(template, n=50, ranges=TWO_DIGITS, constraints=[constraint], seed=3)
    assert isinstance(drawn.hypothesis, Hypothesis)
    assert tuple(drawn.values) == ("a", "b", "ones", "carry", "tens", "a+b")
    plain = draw(
        build_template("t", "a+b"), n=50, ranges=TWO_DIGITS, constraints=[constraint], seed=3
    )
    np.testing.assert_array_equal(drawn.answers, plain.answers)
