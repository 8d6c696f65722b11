import json
import re
from pathlib import Path

import numpy as np
import pytest

from mech_arith.common.errors import UserError
from mech_arith.problems import (
    ProblemSet,
    design_summary,
    design_warnings,
    draw_splits,
    draw_with_shots,
    find_decorrelated,
    split,
)
from mech_arith.problems import design as module
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.templates import build_template
from tests.running import SMALL, main
from tests.thinned import thinned

NESTED = build_template("nested", "a-(b-c)")
SUM = build_template("sum", "a+b")
HUNDREDS = dict.fromkeys("abc", (100, 999))
DIGITS = dict.fromkeys("ab", (0, 9))
Splits = tuple[ProblemSet, ProblemSet, ProblemSet]


def decorrelated(
    value: str = "b-c", *, n: int = 1000, seed: int = 0, under: tuple[str, ...] = ()
) -> Splits:
    return draw_splits(
        NESTED,
        n=n,
        ranges=HUNDREDS,
        constraints=[parse_constraint(text) for text in under],
        fit_share=0.5,
        seed=seed,
        decorrelate=value,
    )


def rows(*problems: ProblemSet) -> list[tuple[int, ...]]:
    return [
        row
        for part in problems
        for row in zip(*(numbers.tolist() for numbers in part.operands.values()), strict=True)
    ]


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


# What is achieved


@pytest.mark.parametrize("seed", thinned([0, 1], [0]))
@pytest.mark.parametrize(
    ("value", "spread"), [("b-c", 0.17), ("a", 0.4), ("a-(b-c)", 0.14), ("b", 0.25)]
)
def test_a_value_is_told_apart_from_all_others(value: str, spread: float, seed: int) -> None:
    fit, report, _ = decorrelated(value, seed=seed)
    for part in (fit, report):
        for other, numbers in part.values.items():
            if other != value:
                assert abs(np.corrcoef(part.values[value], numbers)[0, 1]) <= 0.15
    found = design_summary(fit, report)
    assert found["largest"] <= 0.15
    assert found["spread_kept"] > spread
    assert not design_warnings(fit, report)


def test_the_spread_that_is_left_is_what_the_bound_allows() -> None:
    """With equal sd of b and c, R(b-c, b) is sd(b-c) / (2 sd(b)): a bound on the one is one on the
    other, and in a uniform draw sd(b-c) is sqrt(2) sd(b)."""
    fit, report, _ = decorrelated()
    kept = design_summary(fit, report)["spread_kept"]
    assert kept == pytest.approx(np.sqrt(2) * module.BOUND, rel=0.1)
    b_minus_c = np.concatenate([fit.values["b-c"], report.values["b-c"]])
    assert kept == pytest.approx(b_minus_c.std() / (900 / np.sqrt(6)), rel=0.02)


def test_problems_are_distinct_in_range_and_allowed() -> None:
    under = ("b > c", "a-(b-c) >= 0", "a%2 == 0")
    fit, report, shots = decorrelated(under=under)
    drawn = rows(fit, report)
    assert (len(fit), len(report), len(shots)) == (500, 500, 0)
    assert len(set(drawn)) == 1000
    assert all(100 <= number <= 999 for row in drawn for number in row)
    assert all(b > c and a - (b - c) >= 0 and a % 2 == 0 for a, b, c in drawn)
    assert design_summary(fit, report)["largest"] <= 0.15
    for part in (fit, report):
        values = NESTED.expression.hypothesis.evaluate(part.operands)
        assert all((values[name] == part.values[name]).all() for name in values)


def test_the_seed_alone_decides() -> None:
    first, again, other = (decorrelated(n=100, seed=seed) for seed in (3, 3, 4))
    assert rows(*first) == rows(*again)
    assert set(rows(*first)) != set(rows(*other))


def test_odds_are_as_even_as_the_bound_allows() -> None:
    """Nothing asks a for another range, so it keeps the whole of its own."""
    fit, report, _ = decorrelated()
    a = np.concatenate([fit.values["a"], report.values["a"]])
    for low in range(100, 1000, 180):  # five parts of 200 expected
        assert 150 < np.sum((a >= low) & (a < low + 180)) < 250


def test_examples_are_those_of_a_uniform_draw_and_apart_from_the_problems() -> None:
    asked = {"n": 80, "n_shots": 8, "ranges": DIGITS, "seed": 0}
    fit, report, shots = draw_splits(SUM, fit_share=0.5, decorrelate="a+b", **asked)
    assert (len(fit), len(report), len(shots)) == (40, 40, 8)
    assert len(set(rows(fit, report, shots))) == 88
    assert rows(shots) == rows(draw_with_shots(SUM, **asked)[1])


def test_without_a_value_the_draw_is_the_uniform_one() -> None:
    asked = {"n": 50, "n_shots": 4, "ranges": HUNDREDS, "seed": 5}
    problems, shots = draw_with_shots(NESTED, **asked)
    uniform = split(problems, fit_share=0.4, seed=5)
    found = draw_splits(NESTED, fit_share=0.4, **asked)
    assert [rows(part) for part in found] == [rows(part) for part in (*uniform, shots)]


# Where there is little to choose from


def test_what_cannot_be_achieved_is_said() -> None:
    """Of 100 sums of digits all but one are asked for."""
    fit, report, _ = draw_splits(
        SUM, n=98, n_shots=1, ranges=DIGITS, fit_share=0.5, seed=0, decorrelate="a+b"
    )
    found = design_summary(fit, report)
    assert 0.65 < found["largest"] < 0.85
    assert found["spread_kept"] == pytest.approx(1, abs=0.05)
    assert design_warnings(fit, report) == [
        "a+b could not be drawn nearly uncorrelated: its largest |R| with another value is "
        f"{found['largest']:.2f}; widen problems.operands or lower problems.n"
    ]


def test_what_can_be_achieved_of_few_problems_is() -> None:
    fit, report, _ = draw_splits(SUM, n=50, ranges=DIGITS, fit_share=0.5, seed=0, decorrelate="a+b")
    # In all 100 it is .71; the best half of them, those with 5 < a+b < 13, leave .3.
    assert design_summary(fit, report)["largest"] < 0.4


def test_all_problems_can_be_asked_for() -> None:
    fit, report, _ = draw_splits(
        SUM, n=100, ranges=DIGITS, fit_share=0.5, seed=0, decorrelate="a+b"
    )
    assert set(rows(fit, report)) == {(a, b) for a in range(10) for b in range(10)}


# The summary


def test_the_summary_of_two_splits_worked_out_by_hand() -> None:
    fit = ProblemSet.of(SUM, {"a": int64(1, 1, 3, 3), "b": int64(1, 3, 1, 3)})
    report = ProblemSet.of(SUM, {"a": int64(0, 1, 2), "b": int64(5, 5, 5)})
    found = design_summary(fit, report)
    assert (found["name"], found["value"], found["spread_kept"]) == ("uniform", None, None)
    assert found["largest"] == pytest.approx(1)
    table = found["correlations"]
    assert list(table) == ["a", "b", "a+b"]
    assert table["a"]["b"]["fit"] == pytest.approx(0)
    assert np.isnan(table["a"]["b"]["report"])  # b is 5 throughout
    for value in "ab":
        assert table["a+b"][value]["fit"] == pytest.approx(np.sqrt(0.5))
        assert table[value]["a+b"] == pytest.approx(table["a+b"][value], nan_ok=True)
    assert table["a"]["a+b"]["report"] == pytest.approx(1)
    assert not design_warnings(fit, report)


def test_the_summary_of_a_decorrelated_value() -> None:
    fit, report, _ = decorrelated(n=100)
    found = design_summary(fit, report)
    assert (found["name"], found["value"]) == ("decorrelated", "b-c")
    own = found["correlations"]["b-c"]
    assert set(own) == {"a", "b", "c", "a-(b-c)"}
    assert found["largest"] == max(abs(r) for rs in own.values() for r in rs.values())
    # What the design does to the others can be seen too.
    assert found["correlations"]["b"]["c"]["report"] > 0.9


# Refused


@pytest.mark.parametrize("value", NESTED.expression.values)
def test_any_value_can_be_decorrelated(value: str) -> None:
    assert find_decorrelated("decorrelated", value, NESTED.hypothesis) == value


def test_uniform_decorrelates_nothing() -> None:
    assert find_decorrelated("uniform", None, NESTED.hypothesis) is None


@pytest.mark.parametrize(
    ("design", "value", "said"),
    [
        (
            "latin",
            None,
            "unknown problems.design 'latin'; expected one of: uniform, decorrelated",
        ),
        (
            "decorrelated",
            None,
            "expected problems.decorrelate with problems.design=decorrelated, got none; set it to "
            "one of: a, b, c, b-c, a-(b-c)",
        ),
        (
            "decorrelated",
            "a-b",
            "unknown value of problems.decorrelate 'a-b'; expected one of: a, b, c, b-c, a-(b-c)",
        ),
        (
            "uniform",
            "b-c",
            "expected problems.design=decorrelated with problems.decorrelate=b-c, got uniform; set "
            "it, or leave out problems.decorrelate",
        ),
    ],
)
def test_design_and_value_go_together(design: str, value: str | None, said: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        find_decorrelated(design, value, NESTED.hypothesis)


@pytest.mark.parametrize(
    ("expression", "ranges", "value", "said"),
    [
        (
            "a-(b-c)",
            HUNDREDS | {"b": (7, 7)},
            "b",
            "expected a value that varies for problems.decorrelate=b, got 7 in all 65536 problems "
            "to choose from; choose another value or widen problems.operands",
        ),
        (
            "a",
            {"a": (0, 99)},
            "a",
            "expected another value that varies beside problems.decorrelate=a, got none in 'a'; "
            "use problems.design=uniform",
        ),
        (
            "b+(5-a)",
            {"a": (0, 99), "b": (0, 99)},
            "a",
            "expected a value that can be told from all others for problems.decorrelate=a, got one "
            "that 5-a follows in a straight line in all 10000 problems to choose from; choose "
            "another value",
        ),
    ],
)
def test_values_that_cannot_be_decorrelated(
    expression: str, ranges: dict[str, tuple[int, int]], value: str, said: str
) -> None:
    template = build_template("t", expression)
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        draw_splits(template, n=50, ranges=ranges, fit_share=0.5, seed=0, decorrelate=value)


def test_a_value_that_no_draw_lets_vary() -> None:
    """A split of one problem."""
    with pytest.raises(
        UserError,
        match=r"^expected a\+b to vary in both splits when it is decorrelated, got 100 draws of 2 "
        r"problems in which it does not; widen problems.operands or change problems.n$",
    ):
        draw_splits(SUM, n=2, ranges=DIGITS, fit_share=0.5, seed=0, decorrelate="a+b")


def test_too_few_problems_are_counted_as_in_a_uniform_draw() -> None:
    with pytest.raises(
        UserError,
        match=r"^expected 99 distinct problems and 2 few-shot examples of 'a\+b', got only 100 "
        "possible among 100 combinations of a 0..9, b 0..9; widen the ranges, loosen the "
        "constraints or lower problems.n$",
    ):
        draw_splits(SUM, n=99, n_shots=2, ranges=DIGITS, fit_share=0.5, seed=0, decorrelate="a+b")


def test_the_number_of_problems_leaves_a_choice() -> None:
    with pytest.raises(
        UserError,
        match=r"^expected problems.n for decorrelated problems as a whole number from 2 to 250000, "
        r"got 250001; change it$",
    ):
        decorrelated(n=250_001)


# In a cell


@pytest.mark.slow
def test_a_cell_says_what_its_design_achieved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["problems.design=decorrelated", "problems.decorrelate=b-c", "intervention=none"]
    asked += ["tracing.position_map=false", "layers.stop=1"]
    assert main(monkeypatch, tmp_path, *SMALL, *asked) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    found = summary["design"]
    assert (found["name"], found["value"]) == ("decorrelated", "b-c")
    own = found["correlations"]["b-c"]
    assert set(own) == {"a", "b", "c", "a-(b-c)"}
    assert found["largest"] == max(abs(r) for rs in own.values() for r in rs.values())
    said = [warning for warning in summary["warnings"] if "nearly uncorrelated" in warning]
    assert bool(said) == (found["largest"] > module.LARGE)
