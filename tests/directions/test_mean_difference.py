"""Differences of class means, by hand."""

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.directions.fitting import drawn, fitted


def refuse(ranges, ranks=(), n=20, **options):
    problems = draw(build_template("nested", "a-(b-c)"), n=20, ranges=ranges, seed=0)
    problems = problems.take(np.arange(n))
    find_method("mean_difference", 1, options, ranks=ranks).check(problems)


def aligned(direction, wanted):
    return abs(float(direction @ wanted / wanted.norm())) == pytest.approx(1, abs=1e-10)


def test_of_two_classes_it_is_the_difference_of_their_means():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 3.0], [4.0, 5.0]])
    y = torch.tensor([[7.0], [7.0], [8.0], [8.0]], dtype=torch.float64)
    found = fitted("mean_difference", x, y, size=3)
    # (4, 4) - (1, 0) = (3, 4)
    torch.testing.assert_close(found.directions, torch.tensor([[0.6, 0.8]]).double())
    assert found.values_of().tolist() == [0]


def test_of_several_classes_it_is_the_principal_axes_of_their_means():
    generator = torch.Generator().manual_seed(0)
    x, _ = drawn(90, 12)
    y = torch.randint(0, 4, (90, 1), generator=generator).double()
    found = fitted("mean_difference", x, y, rank=3, size=8)
    classes = [x[y[:, 0] == number] for number in range(4)]
    between = sum(
        len(of) * np.outer(of.mean(0) - x.mean(0), of.mean(0) - x.mean(0)) for of in classes
    )
    sizes, axes = np.linalg.eigh(between)
    assert (sizes[:-3] < 1e-10 * sizes[-1]).all()
    for direction, axis in zip(found.directions, axes.T[::-1], strict=False):
        assert aligned(direction, torch.from_numpy(axis.copy()))
    assert len(found.directions) == 3


@pytest.mark.parametrize(
    "numbers", [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], [1, 1, 1, 1, 2, 3, 4], [1, 2, 3, 4, 4, 4, 4]]
)
def test_beyond_it_is_above_and_below_the_median(numbers):
    x, _ = drawn(len(numbers), 8)
    y = torch.tensor(numbers)[:, None].double()
    found = fitted("mean_difference", x, y, rank=1, max_classes=2)
    median = sorted(numbers)[(len(numbers) - 1) // 2]
    above = y[:, 0] > median if max(numbers) > median else y[:, 0] >= median
    assert aligned(found.directions[0], x[above].mean(0) - x[~above].mean(0))
    assert len(found.directions) == 1


def test_each_value_has_its_own_classes():
    x, _ = drawn(60, 8)
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 3, (60, 1), generator=generator).double()
    many = torch.arange(60)[:, None].double()
    found = fitted("mean_difference", x, torch.cat([many, few, 0 * few], dim=1), rank=2)
    assert found.values_of().tolist() == [0, 1, 1]
    assert found.frame(0, 1) == (0,)
    assert found.frame(1, 2) == (1, 2)
    assert found.frame(0, 2) == found.frame(2, 1) == ()


def test_values_and_ranks_that_are_refused():
    with pytest.raises(UserError, match=r"got one number of each of a, b, c, b-c, a-.b-c.; widen"):
        refuse(dict.fromkeys("abc", (7, 9)), n=1)
    with pytest.raises(UserError, match=r"tracing.rank <= 1 with .* got 2: a value of n classes"):
        refuse(dict.fromkeys("abc", (100, 999)), ranks=(1, 2))
    refuse({"a": (1, 3), "b": (100, 999), "c": (100, 999)}, ranks=(2,))
    with pytest.raises(UserError, match=r"tracing.rank <= 2 with"):
        refuse({"a": (1, 3), "b": (100, 999), "c": (100, 999)}, ranks=(3,))
    with pytest.raises(UserError, match=r"options.max_classes >= 2, got 1; a difference takes two"):
        find_method("mean_difference", 1, {"max_classes": 1})
