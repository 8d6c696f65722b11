import ast
import operator
import re
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.problems.expressions import (
    Constraint,
    Expression,
    parse,
    parse_constraint,
)
from mech_arith.problems.grammar import MAX_CHARACTERS, MAX_NESTING, MAX_OPERATIONS

# An independent reading: Python's own grammar, walked in Python's unbounded integers.

BINARY: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def by_hand(
    node: ast.expr | str, row: Mapping[str, int], fixed: tuple[str, int] | None = None
) -> int:
    """The number of a text in one row; sub-expressions named fixed[0] are fixed[1]."""
    if isinstance(node, str):
        node = ast.parse(node, mode="eval").body
    if fixed is not None and name_of(node) == fixed[0]:
        return fixed[1]
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=letter):
            return row[letter]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -by_hand(inner, row, fixed)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not by_hand(inner, row, fixed)
        case ast.BinOp(left=left, op=op, right=right):
            return BINARY[type(op)](by_hand(left, row, fixed), by_hand(right, row, fixed))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            numbers = [by_hand(argument, row, fixed) for argument in arguments]
            return max(numbers) if name == "max" else min(numbers)
        case ast.Compare(left=left, ops=ops, comparators=others):
            terms = [by_hand(term, row, fixed) for term in (left, *others)]
            return all(
                BINARY[type(op)](x, y) for x, op, y in zip(terms[:-1], ops, terms[1:], strict=True)
            )
        case ast.BoolOp(op=op, values=parts):
            truths = [by_hand(part, row, fixed) for part in parts]
            return all(truths) if isinstance(op, ast.And) else any(truths)
    raise AssertionError(ast.dump(node))


def name_of(node: ast.expr) -> str:
    try:
        return str(parse(ast.unparse(node)))
    except UserError:  # a constant has no name
        return ast.unparse(node)


def dumped(text: str) -> str:
    return ast.dump(ast.parse(text, mode="eval"))


# What hypothesis writes: terms joined at will, so that precedence and not parentheses decides.

LETTERS = "abcde"
spaces = st.sampled_from(["", "", " "])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.tuples(inner, spaces, st.sampled_from(["+", "-", "*", "//", "%"]), spaces, inner)
    called = st.tuples(st.sampled_from(["max", "min"]), st.lists(inner, min_size=2, max_size=3))
    return st.one_of(
        joined.map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        called.map(lambda call: f"{call[0]}({','.join(call[1])})"),
    )


leaves = st.one_of(st.sampled_from(LETTERS), st.sampled_from(LETTERS), st.integers(0, 30).map(str))
texts = st.recursive(leaves, grown, max_leaves=8)


def readable(text: str) -> Expression:
    """Read what hypothesis wrote, or have it try another. Not a strategy: the tests' check of types
    draws random numbers of its own, which strategies must not."""
    assume(re.search(r"\b[a-z]\b", text))
    try:
        return parse(text)
    except UserError as error:
        assume("divisor that can differ from 0" not in str(error))
        raise


@st.composite
def columns(draw: st.DrawFn, low: int = -12, high: int = 12) -> dict[str, np.ndarray]:
    n = draw(st.integers(1, 6))
    numbers = st.lists(st.integers(low, high), min_size=n, max_size=n)
    return {letter: np.array(draw(numbers), dtype=np.int64) for letter in LETTERS}


def rows(of: Mapping[str, np.ndarray]) -> list[dict[str, int]]:
    return [
        dict(zip(of, row, strict=True))
        for row in zip(*(array.tolist() for array in of.values()), strict=True)
    ]


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def defined_rows(expression: Expression, operands: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    mask = expression.hypothesis.defined(operands)
    return {name: numbers[mask] for name, numbers in operands.items()}


# Names


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ("a",)),
        ("a-(b-c)", ("a", "b", "c", "b-c", "a-(b-c)")),
        ("(a+b)-c", ("a", "b", "c", "a+b", "a+b-c")),
        ("((a - b))-c", ("a", "b", "c", "a-b", "a-b-c")),
        ("c-a", ("c", "a", "c-a")),
        ("a+(b-c)", ("a", "b", "c", "b-c", "a+(b-c)")),
        ("(a+b)-(c-d)", ("a", "b", "c", "d", "a+b", "c-d", "a+b-(c-d)")),
        ("((a-b)-c)-(d-e)", ("a", "b", "c", "d", "e", "a-b", "a-b-c", "d-e", "a-b-c-(d-e)")),
        ("a*b+c", ("a", "b", "c", "a*b", "a*b+c")),
        ("a*(b+c)", ("a", "b", "c", "b+c", "a*(b+c)")),
        ("a//(b*c)", ("a", "b", "c", "b*c", "a//(b*c)")),
        ("-(a+b)", ("a", "b", "a+b", "-(a+b)")),
        ("(-a)*b", ("a", "b", "-a", "-a*b")),
        ("-(a*b)", ("a", "b", "a*b", "-(a*b)")),
        ("a--b", ("a", "b", "-b", "a--b")),
        ("max((a), (b+c), 3)", ("a", "b", "c", "b+c", "max(a,b+c,3)")),
        ("(a+b)*(a+b)", ("a", "b", "a+b", "(a+b)*(a+b)")),
        ("a+2*3", ("a", "a+2*3")),
    ],
)
def test_names_of_values(text: str, values: tuple[str, ...]) -> None:
    expression = parse(text)
    assert expression.values == values
    assert expression.answer == str(expression) == values[-1]


@given(texts)
def test_a_name_reads_back_as_the_same_tree(text: str) -> None:
    expression = readable(text)
    again = parse(str(expression))
    assert again.tree == expression.tree
    assert again.values == expression.values
    assert str(again) == str(expression)
    for value in expression.values:
        assert str(parse(value)) == value
    assert parse(expression.source) == expression


@given(texts)
def test_names_have_no_parentheses_too_many(text: str) -> None:
    expression = readable(text)
    name = str(expression)
    opened = []
    for place, character in enumerate(name):
        if character == "(":
            opened.append(place)
        if character == ")":
            start = opened.pop()
            if name[:start].endswith(("max", "min")):
                continue
            bare = name[:start] + name[start + 1 : place] + name[place + 1 :]
            assert dumped(bare) != dumped(name)


@given(texts)
def test_values_are_distinct_operands_first_answer_last(text: str) -> None:
    expression = readable(text)
    values = expression.values
    assert len(set(values)) == len(values)
    assert values[: len(expression.operands)] == expression.operands
    for value in values:
        # Whatever a value is computed from stands before it.
        inner = parse(value).values
        assert all(values.index(part) <= values.index(value) for part in inner)
        assert set(expression.hypothesis.operands_of(value)) == set(parse(value).operands)


def test_twenty_six_operands() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    right = "-(".join(letters) + ")" * 25
    for text in ("+".join(letters), right):
        expression = parse(text)
        assert expression.operands == tuple(letters)
        assert len(expression.values) == 51
        ones = {letter: int64(1, 2) for letter in letters}
        expected = [by_hand(text, dict.fromkeys(letters, number)) for number in (1, 2)]
        assert expression.hypothesis.evaluate(ones)[expression.answer].tolist() == expected


def test_operands_of_an_unknown_value() -> None:
    with pytest.raises(
        UserError, match=r"unknown value of 'a-b' 'b-a'; expected one of: a, b, a-b"
    ):
        parse("a-b").hypothesis.operands_of("b-a")


# Numbers


@given(texts, columns())
def test_evaluate_equals_python(text: str, operands: dict[str, np.ndarray]) -> None:
    expression = readable(text)
    operands = defined_rows(expression, operands)
    values = expression.hypothesis.evaluate(operands)
    assert tuple(values) == expression.values
    for value, numbers in values.items():
        assert numbers.dtype == np.int64
        assert numbers.tolist() == [by_hand(value, row) for row in rows(operands)]
    source = [by_hand(expression.source, row) for row in rows(operands)]
    assert values[expression.answer].tolist() == source


@given(texts, columns())
def test_defined_where_python_divides(text: str, operands: dict[str, np.ndarray]) -> None:
    expression = readable(text)

    def divides(row: dict[str, int]) -> bool:
        try:
            by_hand(expression.source, row)
        except ZeroDivisionError:
            return False
        return True

    assert expression.hypothesis.defined(operands).tolist() == [
        divides(row) for row in rows(operands)
    ]


@given(texts, columns())
def test_replacing_a_value_by_itself_changes_nothing(
    text: str, operands: dict[str, np.ndarray]
) -> None:
    expression = readable(text)
    operands = defined_rows(expression, operands)
    values = expression.hypothesis.evaluate(operands)
    for value in expression.values:
        answer = expression.hypothesis.replace(value, values[value], operands)
        np.testing.assert_array_equal(answer, values[expression.answer])


@given(texts, columns(), st.data())
def test_replacing_a_value_changes_what_follows_from_it(
    text: str, operands: dict[str, np.ndarray], data: st.DataObject
) -> None:
    expression = readable(text)
    value = data.draw(st.sampled_from(expression.values))
    operands = defined_rows(expression, operands)
    number = data.draw(st.integers(-12, 12))
    try:
        expected = [by_hand(expression.source, row, (value, number)) for row in rows(operands)]
    except ZeroDivisionError:
        assume(False)
    with_ = np.full(len(operands["a"]), number, dtype=np.int64)
    assert expression.hypothesis.replace(value, with_, operands).tolist() == expected


@given(texts, columns(), st.data())
def test_replacing_an_operand_is_evaluating_with_another(
    text: str, operands: dict[str, np.ndarray], data: st.DataObject
) -> None:
    expression = readable(text)
    operand = data.draw(st.sampled_from(expression.operands))
    other = {**operands, operand: operands[operand][::-1].copy()}
    mask = expression.hypothesis.defined(other)
    other = {name: numbers[mask] for name, numbers in other.items()}
    before = {name: numbers[mask] for name, numbers in operands.items()}
    np.testing.assert_array_equal(
        expression.hypothesis.replace(operand, other[operand], before),
        expression.hypothesis.evaluate(other)[expression.answer],
    )


def test_replace_by_hand() -> None:
    operands = {"a": int64(10, 20), "b": int64(7, 8), "c": int64(1, 2)}
    expression = parse("a-(b-c)")
    assert expression.hypothesis.replace("b", int64(9, 9), operands).tolist() == [2, 13]
    assert expression.hypothesis.replace("b-c", int64(0, 5), operands).tolist() == [10, 15]
    assert expression.hypothesis.replace("a-(b-c)", int64(3, 4), operands).tolist() == [3, 4]
    twice = parse("(a-b)*(a-b)+b")
    assert twice.hypothesis.replace("a-b", int64(2, 3), operands).tolist() == [4 + 7, 9 + 8]


def test_a_divisor_below_a_set_value_plays_no_part() -> None:
    operands = {"a": int64(6), "b": int64(0), "c": int64(5)}
    assert parse("a//b+c").hypothesis.replace("a//b", int64(2), operands).tolist() == [7]


@given(texts, columns(), st.integers(0, 3))
def test_no_value_exceeds_the_bound(text: str, operands: dict[str, np.ndarray], slack: int) -> None:
    expression = readable(text)
    operands = defined_rows(expression, operands)
    assume(len(operands["a"]))
    ranges = {
        name: (int(numbers.min()) - slack, int(numbers.max()) + slack)
        for name, numbers in operands.items()
    }
    bound = expression.hypothesis.bound(ranges)
    for numbers in expression.hypothesis.evaluate(operands).values():
        assert int(np.abs(numbers).max()) <= bound


@pytest.mark.parametrize(
    "text", ["a-(b-c)", "a*b", "a*b-c", "-a*-b", "max(a,b)-c", "a//b", "min(a,b)//c"]
)
@pytest.mark.parametrize("low", [-4, 0, 2])
def test_the_bound_is_reached_where_each_operand_stands_once(text: str, low: int) -> None:
    expression = parse(text)
    ranges = dict.fromkeys(expression.operands, (low, low + 5))
    grid = np.array(list(product(range(low, low + 6), repeat=len(ranges))), dtype=np.int64)
    operands = defined_rows(expression, dict(zip(ranges, grid.T.copy(), strict=True)))
    values = expression.hypothesis.evaluate(operands)
    reached = max(int(np.abs(numbers).max()) for numbers in values.values())
    assert expression.hypothesis.bound(ranges) == reached


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-(b-c)", 999 - 100 + 999),
        ("a*b*c", 999**3),
        ("(a*b)%7", 999**2),
        ("a+999999999*999999999*999999999", 999 + 999_999_999**3),  # beyond 64 bits, exactly
    ],
)
def test_bound_by_hand(text: str, expected: int) -> None:
    assert parse(text).hypothesis.bound(dict.fromkeys("abc", (100, 999))) == expected


def extremes(text: str, ranges: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Least and greatest number that `text` may have, as far as `bound` can tell."""
    far = 1_000_000  # so far off that only one end of the interval counts
    return (
        far - parse(f"{far}-({text})").hypothesis.bound(ranges),
        parse(f"{far}+({text})").hypothesis.bound(ranges) - far,
    )


@given(
    text=st.sampled_from(["a+b", "a-b", "a*b", "a//b", "a%b", "max(a,b)", "min(a,b)", "-a"]),
    lows=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    widths=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
@example("a//b", (-6, -4), (3, 8))  # the greatest is -6//-1
@example("a//b", (2, -4), (3, 8))  # the least is 5//-1
@example("a//b", (2, 0), (3, 3))  # the greatest is 5//1
@settings(max_examples=300)
def test_intervals_by_exhaustion(text: str, lows: tuple[int, int], widths: tuple[int, int]) -> None:
    (a_low, b_low), (a_high, b_high) = lows, (lows[0] + widths[0], lows[1] + widths[1])
    reached = [
        by_hand(text, {"a": a, "b": b})
        for a, b in product(range(a_low, a_high + 1), range(b_low, b_high + 1))
        if b or ("/" not in text and "%" not in text)
    ]
    assume(reached)
    low, high = extremes(text, {"a": (a_low, a_high), "b": (b_low, b_high)})
    assert low <= min(reached)
    assert max(reached) <= high
    # Looser only for remainders, and where 0, which counts as 1, is the greatest divisor.
    if "%" not in text and ("/" not in text or b_high != 0):
        assert (low, high) == (min(reached), max(reached))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((-50, 50), (3, 4), (0, 3)),
        ((-50, 50), (-4, -3), (-3, 0)),
        ((-50, 50), (-4, 9), (-3, 8)),
        ((2, 5), (10, 20), (0, 5)),
        ((-5, -2), (-20, -10), (-5, 0)),
        ((-5, -2), (10, 20), (0, 19)),
        ((2, 5), (-20, -10), (-19, 0)),
        ((2, 5), (0, 0), (0, 0)),
    ],
)
def test_the_interval_of_a_remainder(
    a: tuple[int, int], b: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert extremes("a%b", {"a": a, "b": b}) == expected


# Numbers, refused


def test_evaluate_needs_every_operand() -> None:
    with pytest.raises(UserError, match=r"expected operands a, b for 'a-b', got a; add b"):
        parse("a-b").hypothesis.evaluate({"a": int64(1)})
    with pytest.raises(UserError, match=r"got none; add a, b"):
        parse("a-b").hypothesis.bound({})


@pytest.mark.parametrize("other", [int64(1, 2, 3), np.array([1.0, 2.0]), int64(1, 2)[:, None], 5])
def test_evaluate_needs_whole_numbers_of_one_length(other: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"expected int64 arrays of one length \(n,\), got a int64"):
        parse("a-b").hypothesis.evaluate({"a": int64(1, 2), "b": other})


def test_a_divisor_of_zero_is_refused_with_its_row() -> None:
    divided = parse("a//(b-c)").hypothesis
    with pytest.raises(
        UserError,
        match=r"no divisor of 'a//\(b-c\)' to be 0, got 2 of 3 rows with one .row 1: a=5, b=7, c=7",
    ):
        divided.evaluate({"a": int64(4, 5, 6), "b": int64(9, 7, 7), "c": int64(7, 7, 7)})
    with pytest.raises(UserError, match=r"row 0: a=1, b=2, c=3, b-c=0"):
        divided.replace("b-c", int64(0), {"a": int64(1), "b": int64(2), "c": int64(3)})


def test_numbers_beyond_64_bits_are_refused_and_not_wrapped() -> None:
    big = {"a": int64(2**40), "b": int64(2**40)}
    with pytest.raises(UserError, match=rf"within 64 bits, got 'a\*b' that may reach {2**80}"):
        parse("a*b").hypothesis.evaluate(big)
    with pytest.raises(UserError, match="within 64 bits"):
        parse_constraint("a*b > 3").holds(big)


def test_replace_needs_a_value() -> None:
    with pytest.raises(UserError, match=r"unknown value of 'a-b' 'c'; expected one of: a, b, a-b"):
        parse("a-b").hypothesis.replace("c", int64(1), {"a": int64(1), "b": int64(1)})


def test_no_rows_are_no_trouble() -> None:
    empty = int64()
    assert parse("a//b").hypothesis.evaluate({"a": empty, "b": empty})["a//b"].shape == (0,)


# Text


@given(texts, st.data())
def test_a_span_reads_back_as_its_value(text: str, data: st.DataObject) -> None:
    expression = readable(text)
    numbers = {name: data.draw(st.integers(-20, 1200)) for name in expression.operands}
    rendered = expression.render({name: str(number) for name, number in numbers.items()})
    assert dumped(rendered.text) == dumped(written(expression.source, numbers))
    assert tuple(rendered.spans) == expression.values
    for value, spans in rendered.spans.items():
        assert spans == sorted(set(spans))
        assert len(spans) == occurrences(expression, value)
        for start, end in spans:
            assert dumped(rendered.text[start:end]) == dumped(written(value, numbers))


def written(text: str, numbers: Mapping[str, int]) -> str:
    return re.sub(r"\b[a-z]\b", lambda letter: str(numbers[letter[0]]), text)


def occurrences(expression: Expression, value: str) -> int:
    nodes = ast.walk(ast.parse(expression.source, mode="eval").body)
    return sum(
        isinstance(node, ast.expr) and name_of(node) == value
        for node in nodes
        if not (isinstance(node, ast.Name) and node.id in ("max", "min"))
    )


def test_spans_by_hand() -> None:
    rendered = parse("(a + b) - max(a, c)").render({"a": "012", "b": "-3", "c": "4"})
    assert rendered.text == "(012+-3)-max(012,4)"
    assert rendered.spans == {
        "a": [(1, 4), (13, 16)],
        "b": [(5, 7)],
        "c": [(17, 18)],
        "a+b": [(1, 7)],
        "max(a,c)": [(9, 19)],
        "a+b-max(a,c)": [(0, 19)],
    }


def test_the_answer_spans_the_parentheses_around_all() -> None:
    rendered = parse("((a-b))").render({"a": "1", "b": "2"})
    assert (rendered.text, rendered.spans["a-b"]) == ("((1-2))", [(0, 7)])


def test_render_needs_every_operand() -> None:
    with pytest.raises(UserError, match=r"expected operands a, b for 'a-b', got a; add b"):
        parse("a-b").render({"a": "1"})


# Constraints

comparisons = st.lists(texts, min_size=2, max_size=3).flatmap(
    lambda terms: st.lists(
        st.sampled_from(["<", "<=", ">", ">=", "==", "!=", " < "]),
        min_size=len(terms) - 1,
        max_size=len(terms) - 1,
    ).map(lambda signs: "".join(x + y for x, y in zip(terms, [*signs, ""], strict=True)))
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        inner.map("({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
    max_leaves=3,
)


def readable_constraint(text: str) -> Constraint:
    assume(re.search(r"\b[a-z]\b", text))
    try:
        return parse_constraint(text)
    except UserError as error:
        assume("divisor that can differ from 0" not in str(error))
        raise


@given(conditions, columns())
def test_a_constraint_holds_where_python_says_so(
    text: str, operands: dict[str, np.ndarray]
) -> None:
    constraint = readable_constraint(text)

    def holds(row: dict[str, int]) -> bool:
        try:
            return bool(by_hand(constraint.text, row))
        except ZeroDivisionError:
            return False

    found = constraint.holds(operands)
    assert found.dtype == bool
    assert found.tolist() == [holds(row) for row in rows(operands)]


@given(conditions)
def test_a_constraint_reads_back(text: str) -> None:
    constraint = readable_constraint(text)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b > c", [True, False, False]),
        ("0 < a < b", [False, True, False]),
        ("a-(b-c) >= 0", [True, True, True]),
        ("a == 5 or a != 1 and b == 0", [True, False, True]),
        ("not a < b", [True, False, True]),
        ("not (a//b > 9)", [True, True, False]),  # a divisor of 0 fails the row, denied or not
        ("not(a<b)and(c<9)", [True, False, True]),
    ],
)
def test_constraints_by_hand(text: str, expected: list[bool]) -> None:
    operands = {"a": int64(5, 1, 4), "b": int64(3, 2, 0), "c": int64(1, 4, 3)}
    assert parse_constraint(text).holds(operands).tolist() == expected


def test_a_constraint_knows_its_operands() -> None:
    constraint = parse_constraint("c > max(b, 3) and b != 2")
    assert constraint.operands == ("c", "b")
    assert str(constraint) == "c>max(b,3)and b!=2"


def test_a_constraint_needs_its_operands() -> None:
    with pytest.raises(
        UserError, match=r"constraint 'b>c' names c, but the operands are a, b; use those"
    ):
        parse_constraint("b > c").holds({"a": int64(1), "b": int64(1)})


# Refusals

REFUSED = {
    "": "an operand at the end, got nothing",
    " \t\n": "an operand at the end, got nothing",
    "+": r"an operand at character 1, got '\+'",
    "+a": r"an operand at character 1, got '\+'",
    "a+": "an operand at the end, got nothing",
    "a b": "an operator at character 3, got 'b'",
    "a(b)": r"an operator at character 2, got '\('",
    "1 2": "an operator at character 3, got '2'",
    "2a": "an operator at character 2, got 'a'",
    "a/b": "an operand or operator at character 2, got '/'",
    "a/ /b": "an operand or operator at character 2, got '/'",
    "a**b": r"an operand at character 3, got '\*'",
    "a^b": r"an operand or operator at character 2, got '\^'",
    "a.b": r"an operand or operator at character 2, got '\.'",
    "1.5+a": r"an operand or operator at character 2, got '\.'",
    "1e5+a": "a single letter a to z at character 2, got 'e5'",
    "a[0]": r"an operand or operator at character 2, got '\['",
    "a,b": "an operator at character 2, got ','",
    "(a,b)": "an operator at character 3, got ','",
    "()": r"an operand at character 2, got '\)'",
    "(a": r"'\)' at the end, got nothing",
    "a)": r"an operator at character 2, got '\)'",
    "max": r"'\(' at the end, got nothing",
    "max+a": r"'\(' at character 4, got '\+'",
    "max max(a,b)": r"'\(' at character 5, got 'max'",
    "max(a)": r"at least two arguments of max, got 1; write max\(x, y\)",
    "max()": r"an operand at character 5, got '\)'",
    "max(a,b": r"'\)' at the end, got nothing",
    "max(a,b,)": r"an operand at character 9, got '\)'",
    "max((a,b))": "an operator at character 7, got ','",
    "max(*a)": r"an operand at character 5, got '\*'",
    "abs(a)": "a single letter a to z at character 1, got 'abs'",
    "A": "a single letter a to z at character 1, got 'A'",
    "a+bb": "a single letter a to z at character 3, got 'bb'",
    "a1": "a single letter a to z at character 1, got 'a1'",
    "_": "a single letter a to z at character 1, got '_'",
    "007": "a number without leading zeros at character 1, got '007'",
    "1234567890+a": "at most 9 digits at character 1, got 10 digits",
    "5": "at least one operand .a letter a to z., got none; write for example a-b",
    "a//0": "a divisor that can differ from 0, got '0'; change it",
    "a%(1-1)": "a divisor that can differ from 0, got '1-1'; change it",
    "a<b": "an arithmetic operator at character 2, got '<'",
    "not a": "a single letter a to z at character 1, got 'not'",
    "a and b": "a single letter a to z at character 3, got 'and'",
    "a=b": "an operand or operator at character 2, got '='",
}
HOSTILE = {
    "__import__('os')": "a single letter a to z at character 1, got '__import__'",
    "().__class__": r"an operand at character 2, got '\)'|an operand or operator at character 3",
    "a.__class__": "an operand or operator at character 2",
    "lambda: a": "a single letter a to z at character 1, got 'lambda'",
    "f'{a}'": "an operand or operator at character 2",
    "f(a)": r"an operator at character 2, got '\('",
    "a if b else c": "a single letter a to z at character 3, got 'if'",
    "(a:=b)": "an operand or operator at character 3, got ':'",
    "[a for a in b]": r"an operand or operator at character 1, got '\['",
    "a\0b": r"an operand or operator at character 2, got '\\x00'",
    "a#b": "an operand or operator at character 2, got '#'",
    "a\\\n+b": "an operand or operator at character 2",
    "a\u00a0+b": "an operand or operator at character 2",
    "\u00e9+a": "an operand or operator at character 1",
    "\uff41+b": "an operand or operator at character 1",  # NFKC would make it an a
    "\u0661+a": "an operand or operator at character 1",  # a digit to str.isdigit
    "a\u2212b": "an operand or operator at character 2",  # a minus sign, but not ours
    "\ud800": "an operand or operator at character 1",
    "9" * 300 + "+a": "at most 9 digits at character 1, got 300 digits",
    "(" * 10_000 + "a" + ")" * 10_000: "at most 1000 characters for the expression, got 20001",
    "-" * 10**6 + "a": "at most 1000 characters for the expression, got 1000001",
    "a" * 10**7: "at most 1000 characters for the expression, got 10000000",
    "(" * 999: "at most 50 levels of nesting at character 51, got one more",
    "-" * 999: "at most 50 levels of nesting at character 51, got one more",
    "-(" * 400: "at most 50 levels of nesting",
    "max(a," * 160: "at most 50 levels of nesting",
    "+".join("a" * 400): "at most 100 operators at character 202, got one more",
}


@pytest.mark.parametrize("text", [*REFUSED, *HOSTILE], ids=lambda text: ascii(text[:20]))
def test_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=(REFUSED | HOSTILE)[text]) as caught:
        parse(text)
    assert_short(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a': expected a comparison, got 'a'; write for example b > c"),
        ("a<b and c", "expected a comparison, got 'c'"),
        ("not a", "expected a comparison, got 'a'"),
        ("(a<b)<c", "expected a number, got 'a<b'; use conditions only in constraints"),
        ("max(a<b,c)<d", "expected a number, got 'a<b'"),
        ("-(a<b)<d", "expected a number, got 'a<b'"),
        ("a+(not b)<c", "expected a number, got 'not b'"),
        ("a + not b", "an operand at character 5, got 'not'"),
        ("a<b or", "an operand at the end, got nothing"),
        ("and a<b", "an operand at character 1, got 'and'"),
        ("a < = b", "an operand or operator at character 5, got '='"),
        ("a=b", "an operand or operator at character 2, got '='"),
        ("a is b", "a single letter a to z at character 3, got 'is'"),
        ("a in (b, c)", "a single letter a to z at character 3, got 'in'"),
        ("1<2", "at least one operand .a letter a to z., got none; write for example a > b"),
        ("not " * 60 + "a<b", "at most 50 levels of nesting"),
        ("(" * 999, "constraint .*: expected at most 50 levels of nesting"),
        ("a<b and " * 60 + "a<b", "at most 100 operators at character 402, got one more"),
        ("__import__('os') < a", "a single letter a to z at character 1"),
        (" " * 1001, "at most 1000 characters for the constraint, got 1001"),
    ],
)
def test_constraints_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_constraint(text)
    assert_short(caught.value)


def assert_short(error: UserError) -> None:
    said = str(error)
    assert said.isprintable()  # and so on one line
    assert len(said) < 400


def test_the_caps_are_reached() -> None:
    n = MAX_NESTING
    assert str(parse("(" * n + "a" + ")" * n)) == "a"
    deep = parse("-(" * (n // 2) + "a-b" + ")" * (n // 2))
    assert deep.hypothesis.evaluate({"a": int64(5), "b": int64(3)})[deep.answer].tolist() == [
        -2 if n // 2 % 2 else 2
    ]
    wide = parse("+".join("a" * (MAX_OPERATIONS + 1)))
    assert wide.hypothesis.evaluate({"a": int64(2)})[wide.answer].tolist() == [
        2 * (MAX_OPERATIONS + 1)
    ]
    assert str(parse("a" + " " * (MAX_CHARACTERS - 1))) == "a"
    # Depth is what encloses one place: side by side does not add up.
    signs = parse("(" * 20 + "+".join(["-a"] * 40) + ")" * 20)
    assert signs.hypothesis.evaluate({"a": int64(2)})[signs.answer].tolist() == [-80]
    beside = parse("+".join(["((a))"] * 60))
    assert beside.hypothesis.evaluate({"a": int64(2)})[beside.answer].tolist() == [120]


symbols = "a b z 0 1 9 10 + - * // % ( ) , < <= == != max min and or not"
soup = st.lists(st.sampled_from(symbols.split(" ")), max_size=25).flatmap(
    lambda tokens: st.sampled_from([" ".join(tokens), "".join(tokens)])
)


@given(st.one_of(soup, soup, st.text(max_size=30), texts, conditions))
@example("((a)+(b))")
@example("a<b<c")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for read in (parse, parse_constraint):
        try:
            found = read(text)
        except UserError as error:
            assert_short(error)
        else:
            assert read(str(found)).tree == found.tree
            assert set(str(found)) <= set(text)
