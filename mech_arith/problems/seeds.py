"""Whole numbers in bounds, and random numbers from a seed."""

import numpy as np

from mech_arith.common.errors import UserError


def generator(seed: int, use: str) -> np.random.Generator:
    """Random numbers for one use, so that drawing and splitting by one seed do not depend."""
    check_integer("problems.seed", seed, least=0, greatest=2**63 - 1)
    return np.random.default_rng([seed, *use.encode()])


def check_integer(name: str, number: object, *, least: int, greatest: int) -> None:
    """Raise a UserError unless `number` is a whole one within the bounds."""
    if not is_integer(number) or not least <= number <= greatest:  # type: ignore[operator]
        raise UserError(
            f"expected {name} as a whole number from {least} to {greatest}, got {number!r}; "
            "change it"
        )


def is_integer(number: object) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)
