"""A value on a line and on circles: planted helices, and least squares by numpy."""

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method, harmonic_terms
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.directions.fitting import fitted, principal_angle

PERIODS = torch.tensor([2.0, 5.0, 10.0, 100.0], dtype=torch.float64)
N_TERMS = 8
"""The line and four circles, that of period 2 on its cosine alone."""


def helix(n=300, width=24, noise=0.0, seed=0):
    """Activations that hold a value on a helix, the value, and the helix's own subspace."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(-150, 150, (n, 1), generator=generator).double()
    terms = harmonic_terms(y[:, 0], PERIODS)[:, [1, 2, 4, 5, 6, 7, 8, 9]]
    planted = torch.linalg.qr(torch.randn(width, N_TERMS, generator=generator).double()).Q.mT
    mixing = torch.randn(N_TERMS, N_TERMS, generator=generator).double()
    x = terms / terms.std(0) @ mixing @ planted + 2
    return x + noise * torch.randn(n, width, generator=generator).double(), y, planted


@pytest.mark.parametrize(("n", "size"), [(300, 37), (300, None), (30, 7)])
def test_a_planted_helix_is_recovered(n, size):
    x, y, planted = helix(n)
    found = fitted("fourier", x, y, size=size)
    assert len(found.directions) == N_TERMS  # the sine of period 2 is 0
    assert principal_angle(planted, found.directions) < 1e-6
    # The coordinates are on the helix, so that an edit may put them there.
    coordinates = found.project(x)
    for direction in range(N_TERMS):
        predicted = found.harmonics.at(direction, y[:, 0])
        torch.testing.assert_close(predicted, coordinates[:, direction], atol=1e-8, rtol=0)


def test_it_is_least_squares_and_frames_begin_with_the_line():
    x, y, _ = helix(noise=1.0)
    found = fitted("fourier", x, y, rank=4)
    terms = harmonic_terms(y[:, 0], PERIODS)[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]].numpy()
    coefficients = np.linalg.lstsq(terms, x.numpy(), rcond=None)[0]
    for k in range(1, N_TERMS + 1):
        frame = np.linalg.qr(coefficients[1 : 1 + k].T)[0].T
        theirs = torch.from_numpy(frame.copy())
        assert principal_angle(theirs, found.directions[:k]) < 1e-8
    predicted = terms @ coefficients @ found.directions.mT.numpy()
    offset = found.mean.numpy() @ found.directions.mT.numpy()
    ours = [found.harmonics.at(i, y[:, 0]) for i in range(N_TERMS)]
    np.testing.assert_allclose(torch.stack(ours, dim=1), predicted - offset, atol=1e-8)


def test_circles_alone():
    x, y, _ = helix()
    found = fitted("fourier", x, y, rank=2, periods=[10], line=False)
    assert len(found.directions) == 2
    assert torch.equal(found.harmonics.coefficients[:, 1], torch.zeros(2).double())
    both = fitted("fourier", x, y, periods=[10], line=True)
    assert len(both.directions) == 3


def test_a_value_with_a_short_range_has_no_long_circles():
    x, y, _ = helix()
    short = (y % 7).abs()
    found = fitted("fourier", x, torch.cat([y, short], dim=1))
    of_value = found.values_of().tolist()
    assert of_value == [0] * N_TERMS + [1] * 4  # the line, period 2 and period 5
    assert (found.harmonics.coefficients[N_TERMS:, 6:] == 0).all()


def test_terms_that_are_others_in_other_words_are_left_out():
    x, y, _ = helix()
    # Of two numbers there is one term.
    found = fitted("fourier", x, (y > 0).double(), periods=[2])
    assert len(found.directions) == 1


def residues(modulus, frequencies, n=400, width=10, seed=0):
    """Activations that hold a residue on circles of falling size; it and another; the circles."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, modulus, (n, 2), generator=generator).double()
    periods = modulus / torch.tensor(frequencies).double()
    terms = harmonic_terms(y[:, 0], periods)[:, 2:]
    planted = torch.linalg.qr(torch.randn(width, terms.shape[1], generator=generator).double()).Q.mT
    sizes = torch.arange(len(frequencies), 0, -1).double().repeat_interleave(2)
    noise = 0.1 * torch.randn(n, width, generator=generator).double()
    varies = terms.std(0) > 1e-9  # the sine of period 2 is 0
    return sizes * terms @ planted + noise, y, planted[varies]


@pytest.mark.parametrize(("modulus", "frequencies"), [(13, [5, 1, 6]), (10, [5, 3])])
def test_of_a_modulus_the_circles_that_there_are_come_first(modulus, frequencies):
    """5 of 10 is the period 2, whose circle is its cosine alone."""
    x, y, planted = residues(modulus, frequencies)
    n = len(frequencies)
    found = fitted("fourier", x, y, size=37, modulus=modulus, circles=n, periods=[], line=False)
    own = found.part([i for i in range(len(found.directions)) if found.of(0)[i]])
    of_period = modulus / own.harmonics.periods[own.harmonics.of_period]
    expected = [k for k in frequencies for _ in range(1 if 2 * k == modulus else 2)]
    torch.testing.assert_close(of_period, torch.tensor(expected).double())
    assert principal_angle(own.directions, planted) < 0.05
    coordinates = own.project(x)
    for direction in range(len(expected)):
        predicted = own.harmonics.at(direction, y[:, 0])
        torch.testing.assert_close(predicted, coordinates[:, direction], atol=0.6, rtol=0)


def test_a_sample_of_residues_need_not_have_them_all():
    x, y, planted = residues(13, [1])
    kept = (y[:, 0] > 0) & (y[:, 0] < 12)
    found = fitted(
        "fourier", x[kept], y[kept, :1], modulus=13, circles=1, periods=[], line=False, rank=2
    )
    assert found.harmonics.periods_of(range(2)) == [13]
    assert principal_angle(found.directions, planted) < 0.05


def test_a_line_may_stand_before_the_circles_of_a_modulus():
    x, y, planted = residues(13, [4])
    x = (
        x
        + 3
        * y[:, :1]
        * torch.linalg.qr(torch.cat([planted, torch.ones(1, 10).double()]).mT).Q[:, 2]
    )
    found = fitted("fourier", x, y[:, :1], modulus=13, circles=1, periods=[], rank=3)
    assert found.harmonics.of_period.tolist() == [-1, 3, 3]
    assert found.harmonics.periods[3] == 13 / 4


def check(ranges, ranks=(), **options):
    problems = draw(build_template("nested", "a-(b-c)"), n=200, ranges=ranges, seed=0)
    find_method("fourier", 1, options, ranks=ranks).check(problems)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": [0]}, "options.periods of 2 or more, got 0; whole numbers"),
        ({"periods": [10, -5]}, "of 2 or more, got -5"),
        ({"periods": [float("nan")]}, "of 2 or more, got nan"),
        ({"periods": [float("inf")]}, "of 2 or more, got inf"),
        ({"periods": [10, 5, 10]}, "distinct tracing.options.periods, got 10, 5, 10"),
        ({"periods": [], "line": False}, "periods or tracing.options.line=true, got neither"),
        ({"periods": [100]}, r"periods <= \d+, the whole numbers that .* spans .* got 100; leave"),
        ({"ranks": (9,)}, "tracing.rank <= 8 with these tracing.options.* got 9; lower the rank"),
        ({"ranks": (1, 3), "periods": [10], "line": False}, "tracing.rank <= 2 .* got 3"),
        ({"modulus": 7}, r"options.periods=\[\] with tracing.options.modulus=7, .* got 2, 5, 10"),
        ({"modulus": 1, "periods": []}, "options.modulus of 2 or more, got 1; raise it"),
        ({"modulus": 7, "periods": []}, r"options.circles in 1\.\.3, as many .* got 5"),
        ({"modulus": 97, "periods": []}, r"options.modulus <= \d+, the whole numbers .* got 97"),
        (
            {"modulus": 10, "periods": [], "circles": 2, "line": False, "ranks": (5,)},
            "tracing.rank <= 4 .* got 5",
        ),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(UserError, match=message) as said:
        check(dict.fromkeys("abc", (1, 9)), **options)
    assert "\n" not in str(said.value)


def test_a_period_may_be_as_long_as_the_range_of_one_value():
    check(dict.fromkeys("abc", (1, 9)), periods=[2, 5, 10])
    check(dict.fromkeys("abc", (100, 999)))
