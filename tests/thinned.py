"""Many cases of one law: a few in `make test`, the others in `make test-slow`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def thinned(cases: Iterable[Any], fast: int | Collection[Any]) -> list[ParameterSet]:
    """All cases, as `parametrize` takes them; all but some are marked slow.

    Args:
        cases: what `parametrize` would be given; tuples where it names several parameters.
        fast: the cases that are not marked, or how many, at even distances.

    Raises:
        ValueError: a fast case that is none of the cases, or more of them than there are.
    """
    known = list(cases)
    if isinstance(fast, int):
        if not 0 < fast <= len(known):
            raise ValueError(f"expected 1 to {len(known)} fast cases, got {fast}")
        fast = [known[number * len(known) // fast] for number in range(fast)]
    if strange := [case for case in fast if case not in known]:
        raise ValueError(f"expected fast cases among all cases, got {strange}")
    return [_parameters(case, is_fast=case in fast) for case in known]


def _parameters(case: Any, *, is_fast: bool) -> ParameterSet:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=() if is_fast else pytest.mark.slow)
