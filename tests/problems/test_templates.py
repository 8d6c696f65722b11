from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.problems.expressions import parse
from mech_arith.problems.templates import Template, build_template, spans_to_tokens

CONF = Path(__file__).resolve().parents[2] / "conf" / "template"
SHIPPED = {
    "nested_subtraction": "a-(b-c)",
    "sum_then_difference": "(a+b)-c",
    "sum_of_two": "a+b",
    "difference_of_two": "a-b",
    "left_subtraction": "(a-b)-c",
    "nested_addition": "a+(b-c)",
    "difference_of_sum": "a-(b+c)",
    "product_of_two": "a*b",
    "sum_of_three": "a+b+c",
    "chained_four": "a-b+c-d",
    "balanced_four": "(a+b)-(c-d)",
    "nested_right_four": "a-(b-(c-d))",
    "nested_left_four": "((a-b)-c)-d",
    "larger_of_two": "max(a,b)-c",
    "quotient": "a//b",
    "remainder": "a%b",
    "word_apples": "a-(b-c)",
    "word_train": "a-b+c",
    "word_savings": "a-b",
}
WORDED = "{b} of {a} pears, then {c}"


def shipped(name: str) -> Template:
    keys = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    operands = keys.pop("operands", {"min": 100, "max": 999})
    assert set(keys) == {"name", "expression", "wording"}
    assert operands["min"] < operands["max"]
    return build_template(**keys)


# The templates in conf/


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_template_shows_every_value(path: Path) -> None:
    template = shipped(path.stem)
    assert template.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("# ")
    operands = {name: 101 + i for i, name in enumerate(template.expression.operands)}
    prompt = template.render(operands)
    assert tuple(prompt.spans) == template.expression.values
    for name, number in operands.items():
        assert [prompt.text[slice(*span)] for span in prompt.spans[name]] == [str(number)]
    assert all(prompt.spans.values())
    assert template.is_symbolic == (not path.stem.startswith("word_"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_expressions(name: str) -> None:
    assert shipped(name).expression.source == SHIPPED[name]


# Symbolic wordings

prose = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="{}"), max_size=20
) | st.sampled_from(["{{", "}}", "{{a}}", "What is "])
numbers = st.integers(-999, 999)


def plain(wording: str) -> str:
    return wording.replace("{{", "{").replace("}}", "}")


@given(
    before=prose,
    after=prose,
    text=st.sampled_from([*SHIPPED.values(), "(a+b)*(a+b)"]),
    data=st.data(),
    width=st.integers(0, 6),
)
def test_a_symbolic_prompt_is_the_expression_moved(
    before: str, after: str, text: str, data: st.DataObject, width: int
) -> None:
    template = build_template("t", text, before + "{expression}" + after)
    operands = {name: data.draw(numbers) for name in template.expression.operands}
    prompt = template.render(operands, width=width)
    digits = {
        name: ("-" if number < 0 else "") + f"{abs(number):0{width}d}"
        for name, number in operands.items()
    }
    alone = template.expression.render(digits)
    assert prompt.text == plain(before) + alone.text + plain(after)
    for value, spans in prompt.spans.items():
        cut = [prompt.text[slice(*span)] for span in spans]
        assert cut == [alone.text[slice(*span)] for span in alone.spans[value]]
        assert len(cut) >= 1


def test_width_pads_behind_the_sign_and_cuts_nothing() -> None:
    template = build_template("t", "a-(b-c)")
    prompt = template.render({"a": 7, "b": -7, "c": 12345}, width=3)
    assert prompt.text == "007-(-007-12345)"
    assert prompt.spans["b"] == [(5, 9)]


@pytest.mark.parametrize("width", [-1, 19])
def test_width_has_bounds(width: int) -> None:
    with pytest.raises(UserError, match=rf"a width of 0 to 18 digits, got {width}; change it"):
        build_template("t", "a-b").render({"a": 1, "b": 2}, width=width)


def test_render_needs_every_operand() -> None:
    with pytest.raises(UserError, match=r"expected operands a, b for 'a-b', got a; add b"):
        build_template("t", "a-b").render({"a": 1})


# Wordings of words


def test_a_worded_prompt_by_hand() -> None:
    prompt = build_template("t", "a-(b-c)", WORDED).render({"a": 50, "b": 20, "c": 3})
    assert prompt.text == "20 of 50 pears, then 3"
    assert prompt.spans == {
        "a": [(6, 8)],
        "b": [(0, 2)],
        "c": [(21, 22)],
        "b-c": [(0, 22)],
        "a-(b-c)": [(0, 22)],
    }


def test_a_sub_expression_takes_the_smallest_range_that_holds_its_operands() -> None:
    template = build_template("t", "a-(b-c)", "{b} {a} {c} . {b}, {c}!")
    prompt = template.render({"a": 1, "b": 2, "c": 3})
    assert prompt.text == "2 1 3 . 2, 3!"
    assert prompt.spans["b"] == [(0, 1), (8, 9)]
    assert prompt.spans["b-c"] == [(8, 12)]  # "2, 3", shorter than "2 1 3" and "3 . 2"
    assert prompt.spans["a-(b-c)"] == [(0, 5)]


@given(
    text=st.sampled_from(["a-(b-c)", "a-b+c", "-a+b*c", "max(a,b)-c"]),
    parts=st.lists(
        st.sampled_from(["{a}", "{b}", "{c}", " ", "pears, ", "{{"]), max_size=8
    ).flatmap(lambda parts: st.permutations([*parts, "{a}", "{b}", "{c}"])),
    data=st.data(),
)
def test_spans_of_words_hold_their_operands(
    text: str, parts: list[str], data: st.DataObject
) -> None:
    operands = {name: data.draw(numbers) for name in "abc"}
    template = build_template("t", text, "".join(parts))
    prompt = template.render(operands)
    written = [str(operands[part[1]]) if part in ("{a}", "{b}", "{c}") else part for part in parts]
    assert prompt.text == plain("".join(written))
    for value, spans in prompt.spans.items():
        if value in operands:
            assert len(spans) == parts.count(f"{{{value}}}")
            assert {prompt.text[slice(*span)] for span in spans} == {str(operands[value])}
            continue
        (start, end) = spans[0]
        below = [prompt.spans[name] for name in parse(value).operands]
        assert all(any(start <= s and e <= end for s, e in found) for found in below)
        # No occurrence of each operand fits a shorter range: try every pair of ends.
        edges = [span for found in below for span in found]
        for left, right in ((s, e) for s, _ in edges for _, e in edges):
            if right - left < end - start:
                assert not all(any(left <= s and e <= right for s, e in found) for found in below)


# Wordings that are refused

ADVICE = r"use \{expression\} once, or every one of \{a\}, \{b\} \(\{\{ and \}\} for braces\)"


@pytest.mark.parametrize(
    ("wording", "message"),
    [
        ("", "expected all operands, got no a, b"),
        ("{a} pears", "expected all operands, got no b"),
        ("{a} and {b} and {c}", r"unknown placeholder '\{c\}'"),
        ("{expression} {expression}", r"expected \{expression\} once and alone, got 2 placeholde"),
        ("{expression} with {a}", r"expected \{expression\} once and alone, got 2 placeholders"),
        ("{a.__class__} {b}", r"unknown placeholder '\{a.__class__\}'"),
        ("{a[0]} {b}", r"unknown placeholder '\{a\[0\]\}'"),
        ("{a!r} {b}", r"unknown placeholder '\{a!r\}'"),
        ("{a:05d} {b}", r"unknown placeholder '\{a:05d\}'"),
        ("{a:{b}} {b}", r"unknown placeholder '\{a:\{b\}\}'"),
        ("{a!s:>99999999}{b}", r"unknown placeholder '\{a!s:>99999999\}'"),
        ("{expression!r}", r"unknown placeholder '\{expression!r\}'"),
        ("{expression.tree}", r"unknown placeholder '\{expression.tree\}'"),
        ("{0} {1}", r"unknown placeholder '\{0\}'"),
        ("{} {}", r"unknown placeholder '\{\}'"),
        ("{ a } {b}", r"unknown placeholder '\{ a \}'"),
        ("{A} {b}", r"unknown placeholder '\{A\}'"),
        ("{a} {b", "expected plain placeholders, got expected '}' before end of string"),
        ("{a} b}", "expected plain placeholders, got Single '}' encountered"),
        ("{a} {", "expected plain placeholders, got Single '{' encountered"),
        ("{a!} {b}", "expected plain placeholders, got "),
        ("{" * 5_001, "expected plain placeholders, got "),
        ("{a\n} {b}", r"unknown placeholder '\{a\\n\}'"),
    ],
)
def test_a_wording_refused(wording: str, message: str) -> None:
    pattern = rf"wording of template 't': {message}.*; {ADVICE}$"
    with pytest.raises(UserError, match=pattern) as caught:
        build_template("t", "a-b", wording)
    assert str(caught.value).isprintable()
    with pytest.raises(UserError, match=pattern):
        Template("t", parse("a-b"), wording)  # no way around the check


def test_a_wording_too_long_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'t': expected text of at most 10000 characters, got 10002; shorten it"
    ):
        build_template("t", "a-b", "{a}{b}" + "x" * 9_996)


def test_a_malformed_expression_is_refused() -> None:
    with pytest.raises(UserError, match=r"expression 'a-': expected an operand at the end"):
        build_template("t", "a-")


@given(st.text(st.sampled_from("{}ab!:.[0] expression"), max_size=30))
def test_any_wording_is_read_or_refused_in_one_line(wording: str) -> None:
    try:
        prompt = build_template("t", "a-b", wording).render({"a": 11, "b": 22})
    except UserError as error:
        said = str(error)
    else:
        said = prompt.text
        assert {"11", "22"} <= {
            said[slice(*span)] for found in prompt.spans.values() for span in found
        }
    assert said.isprintable()


# Tokens


def test_tokens_by_hand() -> None:
    prompt = build_template("t", "a-(b-c)").render({"a": 12, "b": 3, "c": 4})
    assert prompt.text == "12-(3-4)"
    # A special token, then "12", "-(", "3", "-", "4)", and two more special ones, one with a place.
    offsets = [(0, 0), (0, 2), (2, 4), (4, 5), (5, 6), (6, 8), (8, 8), (5, 5)]
    assert spans_to_tokens(prompt.spans, offsets) == {
        "a": [1],
        "b": [3],
        "c": [5],
        "b-c": [3, 4, 5],
        "a-(b-c)": [1, 2, 3, 4, 5],
    }


@given(
    cuts=st.sets(st.integers(1, 13), max_size=8),
    specials=st.integers(0, 2),
    operands=st.tuples(*[st.integers(0, 99)] * 3),
)
def test_tokens_cover_their_spans_and_touch_them(
    cuts: set[int], specials: int, operands: tuple[int, int, int]
) -> None:
    prompt = build_template("t", "(a+b)*(a-c)").render(
        dict(zip("abc", operands, strict=True)), width=2
    )
    edges = [0, *sorted(cuts), len(prompt.text)]
    offsets = [(0, 0)] * specials + list(pairwise(edges))
    for value, tokens in spans_to_tokens(prompt.spans, offsets).items():
        assert tokens == sorted(set(tokens))
        wanted = {place for span in prompt.spans[value] for place in range(*span)}
        ranges = [set(range(*offsets[token])) for token in tokens]
        assert wanted <= set().union(*ranges)
        assert all(found & wanted for found in ranges)


def test_a_value_without_a_token_is_an_error() -> None:
    prompt = build_template("t", "a-b").render({"a": 12, "b": 34})
    with pytest.raises(
        UserError,
        match=r"a token for every value, got none of 3 tokens for 'b'; check that the prompt was",
    ):
        spans_to_tokens(prompt.spans, [(0, 0), (0, 2), (2, 3)])
