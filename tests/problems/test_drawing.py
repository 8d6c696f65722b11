from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.problems import (
    ProblemSet,
    counterfactual_answers,
    draw,
    draw_with_shots,
    operand_ranges,
    split,
)
from mech_arith.problems import spaces as module
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.templates import build_template

NESTED = build_template("nested", "a-(b-c)")
QUOTIENT = build_template("quotient", "a//(b-c)")
HUNDREDS = dict.fromkeys("abc", (100, 999))  # 900**3 combinations: drawn, not enumerated
UNDER = ("b > c", "a-(b-c) >= 0")


def rows(problems: ProblemSet) -> list[tuple[int, ...]]:
    return list(zip(*(numbers.tolist() for numbers in problems.operands.values()), strict=True))


def same(first: ProblemSet, second: ProblemSet) -> bool:
    return rows(first) == rows(second)


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


# A set of problems


def test_values_follow_from_the_operands() -> None:
    problems = ProblemSet.of(NESTED, {"c": int64(1, 2), "b": int64(5, 9), "a": int64(10, 20)})
    assert len(problems) == 2
    assert list(problems.operands) == ["a", "b", "c"]
    assert {name: numbers.tolist() for name, numbers in problems.values.items()} == {
        "a": [10, 20],
        "b": [5, 9],
        "c": [1, 2],
        "b-c": [4, 7],
        "a-(b-c)": [6, 13],
    }
    assert problems.answers.tolist() == [6, 13]


def test_take_selects_and_orders() -> None:
    problems = draw(NESTED, n=10, ranges=HUNDREDS, seed=0)
    taken = problems.take(np.array([7, 0, 7]))
    assert rows(taken) == [rows(problems)[i] for i in (7, 0, 7)]
    for value, numbers in taken.values.items():
        np.testing.assert_array_equal(numbers, problems.values[value][[7, 0, 7]])


@given(st.sampled_from("abc"), st.lists(st.integers(-999, 999), min_size=5, max_size=5))
def test_replacing_an_operand_changes_what_follows_from_it_and_no_more(
    operand: str, numbers: list[int]
) -> None:
    problems = draw(NESTED, n=5, ranges=HUNDREDS, seed=1)
    before = rows(problems)
    replaced = problems.replaced(operand, int64(*numbers))
    assert replaced.operands[operand].tolist() == numbers
    for name in set("abc") - {operand}:
        np.testing.assert_array_equal(replaced.operands[name], problems.operands[name])
    a, b, c = replaced.operands.values()
    np.testing.assert_array_equal(replaced.values["b-c"], b - c)
    np.testing.assert_array_equal(replaced.answers, a - (b - c))
    np.testing.assert_array_equal(
        replaced.answers,
        NESTED.hypothesis.replace(operand, int64(*numbers), problems.operands),
    )
    assert rows(problems) == before


def test_only_an_operand_can_be_replaced() -> None:
    problems = draw(NESTED, n=2, ranges=HUNDREDS, seed=1)
    with pytest.raises(UserError, match="unknown operand 'b-c'; expected one of: a, b, c"):
        problems.replaced("b-c", int64(1, 2))
    with pytest.raises(UserError, match="expected int64 arrays of one length"):
        problems.replaced("b", int64(1, 2, 3))


def test_prompts_are_the_problems_in_order() -> None:
    problems = ProblemSet.of(NESTED, {"a": int64(10, 200), "b": int64(5, -9), "c": int64(1, 2)})
    assert [prompt.text for prompt in problems.prompts()] == ["10-(5-1)", "200-(-9-2)"]
    padded = problems.prompts(width=3)
    assert [prompt.text for prompt in padded] == ["010-(005-001)", "200-(-009-002)"]
    assert padded[0].spans["b-c"] == [(5, 12)]


# Drawing


@pytest.fixture(params=["enumerated", "drawn"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of finding problems, whatever the number of combinations."""
    if request.param == "drawn":
        monkeypatch.setattr(module, "MAX_ENUMERATED", 0)
        monkeypatch.setattr(module, "MIN_DRAWS", 2**16)
    return request.param


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_problems_are_distinct_in_range_and_allowed(way: str, seed: int) -> None:
    ranges = {"c": (-3, 30), "a": (50, 99), "b": (7, 7 + 40)}
    constraints = [parse_constraint(text) for text in UNDER]
    problems = draw(NESTED, n=500, ranges=ranges, constraints=constraints, seed=seed)
    assert len(problems) == 500
    assert len(set(rows(problems))) == 500
    assert list(problems.operands) == ["a", "b", "c"]
    for name, (low, high) in ranges.items():
        assert problems.operands[name].dtype == np.int64
        assert problems.operands[name].min() >= low
        assert problems.operands[name].max() <= high
    for constraint in constraints:
        assert constraint.holds(problems.operands).all()
    values = NESTED.hypothesis.evaluate(problems.operands)
    assert all((values[name] == problems.values[name]).all() for name in values)


@pytest.mark.parametrize("ranges", [HUNDREDS, dict.fromkeys("abc", (0, 9))])
def test_the_seed_decides(ranges: dict[str, tuple[int, int]]) -> None:
    first, again, other = (draw(NESTED, n=50, ranges=ranges, seed=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_all_possible_problems_can_be_drawn(way: str) -> None:
    ranges = {"a": (-2, 2), "b": (0, 3), "c": (1, 2)}
    constraint = parse_constraint("a+b != c")
    possible = {
        (a, b, c)
        for a, b, c in product(range(-2, 3), range(4), range(1, 3))
        if b != c and a + b != c
    }
    problems = draw(QUOTIENT, n=len(possible), ranges=ranges, constraints=[constraint], seed=0)
    assert set(rows(problems)) == possible
    with pytest.raises(UserError, match=rf"expected {len(possible) + 1} distinct problems"):
        draw(QUOTIENT, n=len(possible) + 1, ranges=ranges, constraints=[constraint], seed=0)


@given(
    low=st.integers(-5, 5),
    size=st.integers(1, 4),
    text=st.sampled_from(["a > b", "a == b", "a*b > 3", "b//a == 1", "a != a"]),
    seed=st.integers(0, 2**32),
)
def test_as_many_as_there_are_and_no_more(low: int, size: int, text: str, seed: int) -> None:
    def allowed(a: int, b: int) -> bool:
        return {
            "a > b": a > b,
            "a == b": a == b,
            "a*b > 3": a * b > 3,
            "b//a == 1": a != 0 and b // a == 1,
            "a != a": False,
        }[text]

    ranges = {"a": (low, low + size), "b": (low + 1, low + size)}
    grid = product(range(low, low + size + 1), range(low + 1, low + size + 1))
    possible = sum(allowed(a, b) for a, b in grid)
    sums = build_template("sums", "a+b")
    constraints = [parse_constraint(text)]
    if possible >= 2:
        found = draw(sums, n=possible, ranges=ranges, constraints=constraints, seed=seed)
        assert len(set(rows(found))) == possible
    n = max(2, possible + 1)
    with pytest.raises(UserError, match=f"got only {possible} possible among {(size + 1) * size} "):
        draw(sums, n=n, ranges=ranges, constraints=constraints, seed=seed)


def test_draws_are_uniform(way: str) -> None:
    ranges = {"a": (0, 3), "b": (0, 9), "c": (0, 99)}
    problems = draw(NESTED, n=2_000, ranges=ranges, seed=5)
    for name, (_, high) in ranges.items():
        numbers = problems.operands[name]
        # Five standard errors of the mean of uniform numbers; without replacement it is smaller.
        spread = np.sqrt(((high + 1) ** 2 - 1) / 12 / len(numbers))
        assert abs(numbers.mean() - high / 2) < 5 * spread


def test_many_operands_and_wide_ranges() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    template = build_template("wide", "+".join(letters))
    problems = draw(template, n=100, ranges=dict.fromkeys(letters, (-(2**47), 2**47)), seed=0)
    assert len(set(rows(problems))) == 100
    np.testing.assert_array_equal(problems.answers, sum(problems.operands.values()))


def test_a_problem_never_divides_by_zero(way: str) -> None:
    problems = draw(QUOTIENT, n=50, ranges=dict.fromkeys("abc", (0, 4)), seed=0)
    assert (problems.values["b-c"] != 0).all()


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (HUNDREDS, [(346, 330, 351), (514, 208, 604), (357, 477, 943)]),
        (dict.fromkeys("abc", (0, 9)), [(9, 2, 6), (7, 5, 4), (2, 3, 4)]),
    ],
)
def test_a_seed_means_the_same_problems_forever(
    ranges: dict[str, tuple[int, int]], expected: list[tuple[int, ...]]
) -> None:
    assert rows(draw(NESTED, n=3, ranges=ranges, seed=7)) == expected


@given(n=st.integers(2, 300), seed=st.integers(0, 2**63 - 1))
@pytest.mark.parametrize("high", [8, 200])  # enumerated and drawn
def test_fewer_problems_are_the_first_of_more(high: int, n: int, seed: int) -> None:
    ranges = dict.fromkeys("abc", (1, high))
    constraints = [parse_constraint("a != b")]
    few, many = (
        draw(NESTED, n=m, ranges=ranges, constraints=constraints, seed=seed) for m in (n, 300)
    )
    assert rows(few) == rows(many)[:n]


def test_fewer_problems_are_the_first_of_more_over_several_rounds_of_draws() -> None:
    """One combination in 40000 is allowed, so that a round of draws finds one or two."""
    ranges = dict.fromkeys("abc", (0, 199))
    constraints = [parse_constraint("a == b and b == c")]
    many, *others = (
        draw(NESTED, n=n, ranges=ranges, constraints=constraints, seed=0) for n in (20, 2, 7, 19)
    )
    for few in others:
        assert rows(few) == rows(many)[: len(few)]


# Few-shot examples


@pytest.mark.slow
@given(
    n=st.integers(2, 40),
    n_shots=st.integers(0, 24),
    low=st.sampled_from([6, 0, 100]),
    seed=st.integers(0, 2**63 - 1),
)
def test_examples_are_apart_from_the_problems(n: int, n_shots: int, low: int, seed: int) -> None:
    ranges = dict.fromkeys("abc", (low, 9 if low < 100 else 999))  # 64, 1000, many problems
    problems, shots = draw_with_shots(NESTED, n=n, n_shots=n_shots, ranges=ranges, seed=seed)
    assert (len(problems), len(shots)) == (n, n_shots)
    assert len({*rows(problems), *rows(shots)}) == n + n_shots
    # The seed alone fixes the examples, whatever the number of problems.
    for other_n in (2, 40):
        _, same_shots = draw_with_shots(
            NESTED, n=other_n, n_shots=n_shots, ranges=ranges, seed=seed
        )
        assert same(shots, same_shots)
    # Fewer examples are the first of more.
    _, more = draw_with_shots(NESTED, n=n, n_shots=24, ranges=ranges, seed=seed)
    assert rows(shots) == rows(more)[:n_shots]
    # Only problems that are examples give way, and the others keep their places.
    plain = rows(draw(NESTED, n=n, ranges=ranges, seed=seed))
    for before, after in zip(plain, rows(problems), strict=True):
        assert (before == after) == (before not in rows(shots))


def test_without_examples_the_problems_are_those_drawn(way: str) -> None:
    ranges = dict.fromkeys("abc", (0, 20))
    problems, shots = draw_with_shots(NESTED, n=50, n_shots=0, ranges=ranges, seed=3)
    assert same(problems, draw(NESTED, n=50, ranges=ranges, seed=3))
    assert len(shots) == 0
    assert list(shots.operands) == ["a", "b", "c"]


def test_examples_come_from_another_stream_than_the_problems() -> None:
    problems, shots = draw_with_shots(NESTED, n=9, n_shots=9, ranges=HUNDREDS, seed=0)
    assert same(problems, draw(NESTED, n=9, ranges=HUNDREDS, seed=0))
    assert not set(rows(shots)) & set(rows(draw(NESTED, n=1000, ranges=HUNDREDS, seed=0)))


def test_examples_may_take_up_all_that_the_problems_leave(way: str) -> None:
    ranges = {"a": (0, 3), "b": (0, 2), "c": (0, 1)}
    problems, shots = draw_with_shots(NESTED, n=20, n_shots=4, ranges=ranges, seed=1)
    assert {*rows(problems), *rows(shots)} == set(product(range(4), range(3), range(2)))
    with pytest.raises(
        UserError,
        match=r"expected 20 distinct problems and 5 few-shot examples of 'a-\(b-c\)', got .*24 .*"
        r"; widen the ranges, loosen the constraints or lower problems.n$",
    ):
        draw_with_shots(NESTED, n=20, n_shots=5, ranges=ranges, seed=1)


@pytest.mark.parametrize("n_shots", [-1, 1_000_001, True])
def test_the_number_of_examples_has_bounds(n_shots: int) -> None:
    with pytest.raises(
        UserError,
        match=rf"expected prompt.shots as a whole number from 0 to 1000000, got {n_shots}; change",
    ):
        draw_with_shots(NESTED, n=2, n_shots=n_shots, ranges=HUNDREDS, seed=0)


# Counterfactual answers


def with_answers(*answers: int) -> ProblemSet:
    """Problems a-(b-c) whose answer is a."""
    zeros = int64(*[0] * len(answers))
    return ProblemSet.of(NESTED, {"a": int64(*answers), "b": zeros, "c": zeros})


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=30).filter(lambda a: len(set(a)) > 1),
    st.integers(0, 2**63 - 1),
)
def test_a_counterfactual_answer_is_another_problems(answers: list[int], seed: int) -> None:
    problems = with_answers(*answers)
    found = counterfactual_answers(problems, seed=seed)
    assert found is not None
    assert found.dtype == np.int64
    assert (found != problems.answers).all()
    assert set(found.tolist()) <= set(answers)
    again = counterfactual_answers(problems, seed=seed)
    np.testing.assert_array_equal(found, again)
    assert problems.answers.tolist() == answers


def test_a_counterfactual_answer_that_can_only_be_one() -> None:
    found = counterfactual_answers(with_answers(5, -1, 5, 5), seed=0)
    assert found is not None
    assert found.tolist() == [-1, 5, -1, -1]


@pytest.mark.parametrize("answers", [(), (4,), (4, 4, 4)])
def test_where_all_answers_are_the_same_there_is_no_counterfactual(
    answers: tuple[int, ...],
) -> None:
    assert counterfactual_answers(with_answers(*answers), seed=0) is None


def test_counterfactual_answers_are_drawn_as_often_as_they_occur() -> None:
    """1, 2 and 3 occur in shares of .5, .3 and .2: beside 2, which is left out, in 5/7 and 2/7."""
    problems = with_answers(*[1] * 500, *[2] * 300, *[3] * 200)
    draws = [counterfactual_answers(problems, seed=seed) for seed in range(20)]
    found = np.concatenate([drawn[500:800] for drawn in draws if drawn is not None])
    assert set(found.tolist()) == {1, 3}
    # Five standard errors of a share of 6000 draws.
    assert abs((found == 1).mean() - 5 / 7) < 5 * np.sqrt(5 / 7 * 2 / 7 / 6000)


def test_the_seed_decides_the_counterfactuals() -> None:
    problems = draw(NESTED, n=50, ranges=HUNDREDS, seed=0)
    first, second = (counterfactual_answers(problems, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first, second)
    with pytest.raises(UserError, match=r"expected problems.seed as a whole number from 0 to"):
        counterfactual_answers(problems, seed=-1)


# Refused


def test_too_few_possible_names_the_numbers() -> None:
    with pytest.raises(UserError) as caught:
        draw(
            NESTED,
            n=100,
            ranges={"a": (1, 5), "b": (2, 4), "c": (3, 3)},
            constraints=[parse_constraint("b > c"), parse_constraint("a != 2")],
            seed=0,
        )
    assert str(caught.value) == (
        "expected 100 distinct problems of 'a-(b-c)', got only 4 possible among 15 combinations "
        "of a 1..5, b 2..4, c 3..3, under 'b>c', 'a!=2'; widen the ranges, loosen the constraints "
        "or lower problems.n"
    )


def test_too_few_found_names_the_numbers_within_bounded_work() -> None:
    with pytest.raises(
        UserError,
        match=r"expected 50 distinct problems of 'a-\(b-c\)', got 0 in 42\d{5} draws from "
        r"729000000 combinations of a 100..999, b 100..999, c 100..999, under 'a>b and b>a'; "
        "widen the ranges, loosen the constraints or lower problems.n",
    ):
        draw(
            NESTED,
            n=50,
            ranges=HUNDREDS,
            constraints=[parse_constraint("a > b and b > a")],
            seed=0,
        )


def test_a_divisor_that_is_always_zero_leaves_no_problem() -> None:
    with pytest.raises(UserError, match=r"expected 2 distinct problems of .*, got only 0 possible"):
        draw(QUOTIENT, n=2, ranges={"a": (1, 9), "b": (3, 3), "c": (3, 3)}, seed=0)


@pytest.mark.parametrize("n", [0, 1, -5, 1_000_001])
def test_the_number_of_problems_has_bounds(n: int) -> None:
    with pytest.raises(
        UserError,
        match=rf"expected problems.n as a whole number from 2 to 1000000, got {n}; change it",
    ):
        draw(NESTED, n=n, ranges=HUNDREDS, seed=0)


def test_the_seed_is_not_negative() -> None:
    with pytest.raises(UserError, match=r"expected problems.seed as a whole number from 0 to"):
        draw(NESTED, n=2, ranges=HUNDREDS, seed=-1)
    with pytest.raises(UserError, match=r"expected problems.seed as a whole number from 0 to"):
        split(draw(NESTED, n=2, ranges=HUNDREDS, seed=0), fit_share=0.5, seed=2**63)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"a": (1, 9), "b": (1, 9)}, "expected a range for operand 'c', got none; add one"),
        (HUNDREDS | {"d": (1, 9)}, "unknown operand 'd'; expected one of: a, b, c"),
        (
            HUNDREDS | {"c": (9, 1)},
            r"range of operand 'c' from low to high, got 9..1; swap its ends",
        ),
    ],
)
def test_ranges_refused(ranges: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(NESTED, n=2, ranges=ranges, seed=0)


def test_numbers_that_float64_does_not_have_are_refused() -> None:
    wide = dict.fromkeys("abc", (0, 2**52))
    with pytest.raises(
        UserError,
        match=rf"at most 2\*\*53 = {2**53}, got 'a\*b' that may reach {2**104} with "
        r"a 0..\d+, b 0..\d+; narrow the ranges",
    ):
        draw(build_template("t", "a*b"), n=2, ranges={"a": wide["a"], "b": wide["b"]}, seed=0)
    largest = draw(build_template("t", "a+b"), n=2, ranges=dict.fromkeys("ab", (0, 2**52)), seed=0)
    assert len(largest) == 2


def test_a_constraint_on_an_operand_that_is_not_there() -> None:
    with pytest.raises(
        UserError, match="unknown operand of constraint 'd>a' 'd'; expected one of: a, b, c"
    ):
        draw(NESTED, n=2, ranges=HUNDREDS, constraints=[parse_constraint("d > a")], seed=0)


# Splits


@given(n=st.integers(2, 60), fit_share=st.floats(0.01, 0.99), seed=st.integers(0, 2**63 - 1))
def test_splits_are_disjoint_and_whole(n: int, fit_share: float, seed: int) -> None:
    problems = draw(NESTED, n=n, ranges=dict.fromkeys("abc", (0, 9)), seed=0)
    n_fit = round(n * fit_share)
    if not 0 < n_fit < n:
        with pytest.raises(
            UserError,
            match=rf"at least one problem in each split, got {n_fit} to fit and {n - n_fit} to "
            rf"report from {n} problems with fit_share .*; draw more problems",
        ):
            split(problems, fit_share=fit_share, seed=seed)
        return
    fit, report = split(problems, fit_share=fit_share, seed=seed)
    assert (len(fit), len(report)) == (n_fit, n - n_fit)
    assert not set(rows(fit)) & set(rows(report))
    assert set(rows(fit)) | set(rows(report)) == set(rows(problems))
    for part in (fit, report):
        np.testing.assert_array_equal(
            part.answers, NESTED.hypothesis.evaluate(part.operands)["a-(b-c)"]
        )
    again = split(problems, fit_share=fit_share, seed=seed)
    assert same(fit, again[0])
    assert same(report, again[1])


def test_another_seed_splits_otherwise() -> None:
    problems = draw(NESTED, n=100, ranges=HUNDREDS, seed=0)
    first, second = (split(problems, fit_share=0.5, seed=seed)[0] for seed in (0, 1))
    assert set(rows(first)) != set(rows(second))


@pytest.mark.parametrize("fit_share", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_the_fit_share_is_a_share(fit_share: float) -> None:
    problems = draw(NESTED, n=10, ranges=HUNDREDS, seed=0)
    with pytest.raises(
        UserError, match=r"problems.fit_share above 0 and below 1, got .*; use for example 0.5"
    ):
        split(problems, fit_share=fit_share, seed=0)


# Ranges from the configuration


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"min": 1, "max": 9}, {"a": (1, 9), "b": (1, 9)}),
        ({"a": {"min": 1, "max": 2}, "b": {"min": 3, "max": 3}}, {"a": (1, 2), "b": (3, 3)}),
        ({"min": 1, "max": 9, "b": {"max": 5}}, {"a": (1, 9), "b": (1, 5)}),
        ({"min": -9, "b": {"max": 5, "min": 0}, "a": {"max": 0}}, {"a": (-9, 0), "b": (0, 5)}),
        ({"min": 1, "max": 9, "a": None, "b": {"min": None}}, {"a": (1, 9), "b": (1, 9)}),
        ({"min": 1, "max": 9, "a": {}}, {"a": (1, 9), "b": (1, 9)}),
        ({"min": np.int64(1), "max": 9}, {"a": (1, 9), "b": (1, 9)}),
    ],
)
def test_operand_ranges(spec: dict[str, object], expected: dict[str, tuple[int, int]]) -> None:
    found = operand_ranges(spec, ("a", "b"))
    assert found == expected
    assert list(found) == ["a", "b"]
    assert all(type(end) is int for ends in found.values() for end in ends)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"expected a min for operand 'a', got none; set problems.operands.min or pro"),
        ({"min": 1}, r"a max for operand 'a', got none; .* or problems.operands.a.max$"),
        ({"min": 1, "max": 9, "c": {"min": 1}}, "operands 'c'; expected one of: min, max, a, b"),
        ({"min": 1, "max": 9, "Min": 1}, "unknown key of problems.operands 'Min'; expected one"),
        (
            {"min": 1, "max": 9, "a": {"low": 1}},
            "unknown key of problems.operands.a 'low'; expected one of: min, max",
        ),
        ({"a": 5, "b": 6}, r"problems.operands.a as \{min, max\}, got 5; write for example a: "),
        ({"min": 9, "max": 1}, r"operand 'a' from low to high, got 9..1; swap its ends"),
        ({"min": 1.5, "max": 9}, r"operand 'a' as two whole numbers, got \(1.5, 9\); write for"),
        ({"min": "1", "max": 9}, r"operand 'a' as two whole numbers, got \('1', 9\)"),
        ({"min": True, "max": 9}, r"operand 'a' as two whole numbers, got \(True, 9\)"),
        ({"min": 1, "max": float("nan")}, r"operand 'a' as two whole numbers, got \(1, nan\)"),
        ({"min": 1, "max": 9, "b": {"max": 0}}, r"operand 'b' from low to high, got 1..0"),
    ],
)
def test_operand_ranges_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        operand_ranges(spec, ("a", "b"))
    assert str(caught.value).isprintable()
