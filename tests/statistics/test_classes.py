"""Classes that are told from coordinates: digits on a circle, and what no direction holds."""

import numpy as np
import pytest
import torch

from mech_arith.statistics import n_classes, pearson, told_apart

RANDOM = np.random.default_rng(3)
DIGITS = RANDOM.integers(10, size=400).astype(float)


def test_digits_on_a_circle_are_told_apart_where_no_direction_correlates() -> None:
    angle = 2 * np.pi * DIGITS / 10
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noisy = circle + 0.02 * RANDOM.standard_normal(circle.shape)
    assert told_apart(noisy, DIGITS).mean() > 0.99
    r = pearson(torch.from_numpy(noisy), torch.from_numpy(DIGITS)[:, None]).abs().max()
    assert r < 0.8  # along the best of the two directions
    assert told_apart(noisy[:, :1], DIGITS).mean() < 0.7


def test_what_is_not_there_is_told_by_chance() -> None:
    told = told_apart(RANDOM.standard_normal((400, 2)), DIGITS)
    assert 0.03 < told.mean() < 0.2


def test_every_problem_is_told_by_others_alone() -> None:
    # One coordinate each: a problem that told itself would always be right.
    alone = np.eye(20)
    classes = np.arange(20) % 2.0
    assert told_apart(alone, classes).mean() <= 0.5


@pytest.mark.parametrize(
    ("values", "n"), [([1, 1, 1], 0), ([0, 1, 0], 2), (list(range(10)), 10), (list(range(11)), 0)]
)
def test_few_numbers_are_classes(values: list[int], n: int) -> None:
    assert n_classes(np.array(values, dtype=float)) == n


def test_too_few_problems_tell_nothing() -> None:
    assert not told_apart(np.zeros((3, 1)), np.array([0.0, 1.0, 0.0])).any()
    assert told_apart(np.zeros((10, 1)), np.array([1.0] * 9 + [0.0])).sum() == 9
