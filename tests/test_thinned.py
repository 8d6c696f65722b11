"""Which cases of a law are fast."""

import pytest

from tests.thinned import thinned


def fast_of(cases):
    return [case.values for case in cases if not case.marks]


def test_cases_are_kept_at_even_distances_and_the_others_are_slow():
    cases = thinned("abcdefg", 3)
    assert fast_of(cases) == [("a",), ("c",), ("e",)]
    assert [case.values[0] for case in cases] == [*"abcdefg"]
    assert {mark.name for case in cases for mark in case.marks} == {"slow"}


def test_cases_are_kept_by_name():
    pairs = [(1, "x"), (1, "y"), (2, "x")]
    assert fast_of(thinned(pairs, [(1, "y")])) == [(1, "y")]


@pytest.mark.parametrize("fast", [0, 3])
def test_so_many_cannot_be_fast(fast):
    with pytest.raises(ValueError, match=f"expected 1 to 2 fast cases, got {fast}"):
        thinned("ab", fast)


def test_a_fast_case_is_one_of_the_cases():
    with pytest.raises(ValueError, match=r"expected fast cases among all cases, got \['c'\]"):
        thinned("ab", "ac")
