"""The annotations that the tests execute, as tests/conftest.py has it."""

import jaxtyping
import pytest
from beartype import beartype

from mech_arith.problems.expressions import parse
from tests.conftest import TIMES_CHECKED

checked = jaxtyping.jaxtyped(typechecker=beartype)


def inner():
    @checked
    def doubled(number: int) -> int:
        return 2 * number

    return doubled


def test_a_function_of_the_package_is_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters of mech_arith"):
        parse(3)


def test_a_function_within_a_function_is_checked_the_first_times():
    made = [inner() for _ in range(TIMES_CHECKED + 1)]
    for function in (made[0], made[-2]):
        with pytest.raises(jaxtyping.TypeCheckError, match="parameters of"):
            function("two")
    assert made[-1]("two") == "twotwo"
