"""Names that W&B's pages can sort and filter by, and that stay apart."""

import re

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from mech_arith.common.errors import UserError
from mech_arith.problems.expressions import parse
from mech_arith.reports.wandb.metrics import headline
from mech_arith.reports.wandb.names import part_name, short_tag

WANDBS = re.compile(r"[_a-zA-Z0-9]+")
"""W&B's rule for a metric, within each part of a name."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("b", "b"),
        ("b-c", "b_minus_c"),
        ("a-(b-c)", "a_minus_open_b_minus_c_close"),
        ("a//b", "a_div_b"),
        ("a%b*2", "a_mod_b_times_2"),
        ("max(a,b)", "max_open_a_comma_b_close"),
        ("component 2", "component_2"),
        ("transformer-lens", "transformer_lens"),
        ("a≥b", "a_u2265_b"),
    ],
)
def test_the_names_are_these(value: str, name: str) -> None:
    """Saved workspaces name them: a change would empty their panels."""
    assert part_name(value) == name


operands = st.sampled_from("abc")
expressions = st.recursive(
    operands | st.integers(1, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
            lambda parts: f"({parts[0]}{parts[1]}{parts[2]})"
        ),
        st.tuples(st.sampled_from(["max", "min"]), inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]},{parts[2]})"
        ),
        inner.map(lambda text: f"-({text})"),
    ),
    max_leaves=6,
)


@given(st.lists(expressions, min_size=2, max_size=6))
def test_different_values_have_different_names(texts: list[str]) -> None:
    values = set()
    for text in texts:
        try:
            values |= set(parse(f"a+{text}").values)
        except UserError:  # a divisor that is always 0
            reject()
    names = {part_name(value) for value in values}
    assert len(names) == len(values)
    assert all(WANDBS.fullmatch(name) for name in names)


def test_every_part_of_a_headline_can_be_filtered_by() -> None:
    summary = {
        "best": {"a*b": {"abs_r": 0.5}, "a//b": {"abs_r": 0.6}},
        "controls": {"a+b": 1.0, "a-b": 2.0},
        "provenance": {"versions": {"mech-arith": "1"}},
    }
    assert headline(summary) == {
        "best/a_times_b/abs_r": 0.5,
        "best/a_div_b/abs_r": 0.6,
        "controls/a_plus_b": 1.0,
        "controls/a_minus_b": 2.0,
        "provenance/versions/mech_arith": "1",
    }


@given(st.text(max_size=200), st.text(max_size=200))
def test_tags_that_differ_stay_so(one: str, other: str) -> None:
    assert len(short_tag(one)) <= 64
    assert (short_tag(one) == short_tag(other)) == (one == other)
