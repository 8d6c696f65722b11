"""The difference of two independent numbers, from their intervals."""

from math import atanh, isnan, sqrt, tanh

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.statistics.independent import Measured, difference

Z = 1.959963984540054


def _wilson(hits: int, n: int) -> Measured:
    share, squared = hits / n, Z**2
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    reach = Z * sqrt(share * (1 - share) / n + squared / (4 * n**2)) / (1 + squared / n)
    return Measured(number=share, low=middle - reach, high=middle + reach)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 10), (10, 10), 0.6075, 1.0000),
    ],
)
def test_shares_as_newcombe_prints_them(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe (1998), table II, method 10."""
    found = difference(_wilson(*one), _wilson(*other), level=0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_symmetric_intervals_add_as_standard_errors_do() -> None:
    """Worked out by hand: errors of 3 and 4 make 5, and 10 is two of them."""
    a = Measured(number=1.0, low=1 - 3 * Z, high=1 + 3 * Z)
    b = Measured(number=11.0, low=11 - 4 * Z, high=11 + 4 * Z)
    found = difference(a, b, level=0.95)
    assert (found.number, found.low, found.high) == pytest.approx((10, 10 - 5 * Z, 10 + 5 * Z))
    assert found.p == pytest.approx(0.0455, abs=5e-5)


numbers = st.floats(-1, 1)
widths = st.floats(1e-3, 1)


@given(numbers, widths, widths, numbers, widths, widths)
def test_p_and_interval_agree_and_the_sign_turns(
    x: float, down: float, up: float, y: float, down_y: float, up_y: float
) -> None:
    a = Measured(number=x, low=x - down, high=x + up)
    b = Measured(number=y, low=y - down_y, high=y + up_y)
    found, turned = difference(a, b, level=0.95), difference(b, a, level=0.95)
    assert (found.low, found.high, found.p) == pytest.approx(
        (-turned.high, -turned.low, turned.p), abs=1e-12
    )
    if min(abs(found.low), abs(found.high)) > 1e-9:
        assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


def test_without_width_there_is_no_p() -> None:
    perfect = Measured(number=1.0, low=1.0, high=1.0)
    assert isnan(difference(perfect, perfect, level=0.95).p)


@pytest.mark.parametrize("r", [0.0, 0.6, 0.95])
def test_the_interval_of_a_difference_of_correlations_covers(r: float) -> None:
    """Of 2,000 pairs of samples of 50 with one R: the difference 0 is held in .95 of them."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 2000, 50))
    y = r * x + sqrt(1 - r**2) * random.standard_normal(x.shape)
    pairs = [
        [np.corrcoef(*both)[0, 1] for both in zip(*one, strict=True)]
        for one in zip(x, y, strict=True)
    ]
    reach = Z / sqrt(47)

    def measured(number: float) -> Measured:
        z = atanh(number)
        return Measured(number=number, low=tanh(z - reach), high=tanh(z + reach))

    held = 0
    for one, other in zip(*pairs, strict=True):
        found = difference(measured(one), measured(other), level=0.95)
        held += found.low <= 0 <= found.high
    assert 0.935 <= held / 2000 <= 0.965
