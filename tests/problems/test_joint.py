"""Several steps set at once: what is expected, by hand."""

import numpy as np
import pytest

from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.asked import AskedHypothesis, with_hypotheses
from mech_arith.problems.joint import JointSources, draw_joint
from mech_arith.problems.templates import build_template


def drawn(n: int = 200) -> ProblemSet:
    template, ranges = build_template("t", "a+b"), dict.fromkeys("ab", (10, 99))
    plain = draw(template, n=n, ranges=ranges, seed=5)
    named = with_hypotheses(
        template, AskedHypothesis("digits"), [], ranges=ranges, operands=plain.operands
    )
    return ProblemSet.of(named, plain.operands)


@pytest.fixture(scope="module")
def joint() -> JointSources:
    problems = drawn()
    steps = problems.hypothesis.used_steps
    return draw_joint(problems, problems.hypothesis, steps, m=4, tolerance=0.0, seed=3)


def of_paper_and_pencil(a: int, b: int, given: dict[str, int]) -> int:
    """The sum of two numbers of two digits, with what is given in the place of what is found."""
    ones = given.get("ones", (a % 10 + b % 10) % 10)
    carry = given.get("ones_carry", (a % 10 + b % 10) // 10)
    tens = given.get("tens", (a // 10 + b // 10 + carry) % 10)
    hundreds = given.get("tens_carry", (a // 10 + b // 10 + carry) // 10)
    return 100 * hundreds + 10 * tens + ones


def test_what_is_expected_is_what_the_steps_that_are_set_lead_to(joint: JointSources) -> None:
    assert joint.steps == ("ones", "ones_carry", "tens", "tens_carry")
    operands, expected = joint.problems.operands, joint.expected()
    for i, row in enumerate(joint.rows):
        given = {
            step: int(joint.problems.values[step][joint.partner[i, k]])
            for k, step in enumerate(joint.steps)
            if joint.chosen[i, k]
        }
        a, b = int(operands["a"][row]), int(operands["b"][row])
        assert expected[i] == of_paper_and_pencil(a, b, given)


def test_every_number_of_steps_is_set_about_as_often(joint: JointSources) -> None:
    assert len(joint.rows) == 800
    assert (joint.rows == np.tile(np.arange(200), 4)).all()
    telling = joint.telling(tolerance=0.0)
    counts = np.bincount(joint.chosen.sum(1)[telling], minlength=5)
    # The carry of the ones plays no part where both digits of the tens are set: never all four.
    assert counts[[0, 1, 4]].tolist() == [0, 0, 0]
    assert counts[2:4].min() > 200
    assert (joint.chosen.mean(0) > 0.3).all()
    # Each of the steps that are set together comes from a problem of its own.
    several = joint.partner[joint.chosen.sum(1) == 3]
    assert np.mean([len(set(some)) for some in several]) > 3.9


def test_choices_tell_something(joint: JointSources) -> None:
    telling, answers = joint.telling(tolerance=0.0), joint.problems.answers
    assert telling.mean() > 0.99
    expected = joint.expected()
    for i in np.flatnonzero(telling):
        others = answers[joint.partner[i, joint.chosen[i]]]
        assert expected[i] not in (answers[joint.rows[i]], *others)
    assert not joint.telling(tolerance=500.0).any()


def test_each_step_that_is_set_matters(joint: JointSources) -> None:
    """Also the carry: it is never set beside what is computed from it and from nothing else."""
    operands, expected = joint.problems.operands, joint.expected()
    for i in np.flatnonzero(joint.telling(tolerance=0.0))[:200]:
        given = {
            step: int(joint.problems.values[step][joint.partner[i, k]])
            for k, step in enumerate(joint.steps)
            if joint.chosen[i, k]
        }
        a, b = (int(operands[name][joint.rows[i]]) for name in "ab")
        for step in given:
            fewer = {name: number for name, number in given.items() if name != step}
            assert of_paper_and_pencil(a, b, fewer) != expected[i]


def test_chance_draws_sources_by_the_same_rule(joint: JointSources) -> None:
    again = joint.redrawn(3, tolerance=0.0, seed=1)
    assert (again.chosen.reshape(3, 800, 4) == joint.chosen).all()
    assert (again.rows.reshape(3, 800) == joint.rows).all()
    assert again.telling(tolerance=0.0).mean() > 0.99
    assert (again.expected().reshape(3, 800) != joint.expected()).mean() > 0.8
    assert (again.expected().reshape(3, 800)[0] != again.expected().reshape(3, 800)[1]).mean() > 0.8


def test_a_divisor_that_would_be_0_is_nothing_to_expect() -> None:
    template, ranges = build_template("t", "a//(b-c)"), dict.fromkeys("abc", (1, 9))
    plain = draw(template, n=60, ranges=ranges, seed=5, constraints=[])
    one = draw_joint(
        plain, plain.hypothesis.alone(), plain.hypothesis.used_steps, m=1, tolerance=0.0, seed=0
    )
    zero = JointSources(
        plain, one.hypothesis, one.steps, one.rows, np.ones_like(one.chosen), one.partner
    )
    assert np.isfinite(zero.expected()).all()  # no drawn problem has a divisor of 0
