"""How often 95% intervals hold the truth, in cases whose truth is known because they were drawn."""

from collections.abc import Callable
from functools import partial

import torch
from bars import Row, covering, holding
from jaxtyping import Float64
from torch import Tensor

from mech_arith.statistics import (
    DIFFERENCES,
    DISTANCES,
    SHARES,
    SHIFTS,
    Interval,
    Resampling,
    correlation_interval,
    drawn_interval,
    excess,
    mean_interval,
    paired_interval,
    share_interval,
)

SIZES = (100, 200, 500, 1000)
"""Problems of a case: those of a report split, or of the part of it that is edited."""
CORRELATIONS = (0.0, 0.3, 0.7, 0.95, 0.999)
N_SOURCES, N_CONTROLS = 5, 20
HOW = Resampling()

Case = Callable[[torch.Generator, int, int], tuple[Interval, Float64[Tensor, " m"]]]
"""(random numbers, problems, cases) -> intervals of so many cases, and the truth."""


def _uniform(random: torch.Generator, *shape: int) -> Float64[Tensor, "..."]:
    return torch.rand(*shape, generator=random, dtype=torch.float64)


def _normal(random: torch.Generator, *shape: int) -> Float64[Tensor, "..."]:
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def correlations(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """R of a value, uniform as operands are, and a coordinate that carries it beside noise."""
    rho = torch.tensor(CORRELATIONS, dtype=torch.float64)[
        torch.randint(len(CORRELATIONS), (m,), generator=random)
    ]
    value = (_uniform(random, n, m) - 0.5) * 12**0.5
    noisy = rho * value + (1 - rho.square()).sqrt() * _normal(random, n, m)
    found = correlation_interval(noisy, value, HOW)
    return Interval(found.low.diagonal(), found.high.diagonal()), rho


def drops(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """An accuracy of .6 to 1, of which an edit costs a share and brings back a little."""
    right = 0.6 + 0.4 * _uniform(random, m, 1)
    lost, won = _uniform(random, m, 1), 0.3 * _uniform(random, m, 1)
    before = _uniform(random, m, n) < right
    chance = torch.where(before, 1 - lost, won)
    after = _uniform(random, m, n) < chance
    truth = right * lost - (1 - right) * won
    return paired_interval(before.double() - after.double(), HOW), truth[:, 0]


def accuracies(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """Of .5 to .99."""
    right = 0.5 + 0.49 * _uniform(random, m, 1)
    return share_interval(_uniform(random, m, n) < right, HOW), right[:, 0]


def iias(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """Shares over problems of several sources each, which go alike: each problem has its chance."""
    mean = 0.05 + 0.9 * _uniform(random, m, 1)
    chance = _beta(random, mean, n)
    hits = _uniform(random, N_SOURCES, m, n) < chance
    return mean_interval(hits.double().mean(0), HOW, of=SHARES), mean[:, 0]


def control_drops(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """The mean drop over drawn directions: each costs another share of the answers."""
    mean = 0.05 + 0.5 * _uniform(random, m, 1)
    lost = _lost_to_controls(random, mean, n)
    return drawn_interval(lost, HOW, of=DIFFERENCES), mean[:, 0]


def excesses(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """The drop of a target less that of drawn directions."""
    mean, own = 0.05 + 0.3 * _uniform(random, m, 1), 0.4 + 0.5 * _uniform(random, m, 1)
    target = (_uniform(random, m, n) < own).double()
    found = excess(target, _lost_to_controls(random, mean, n), HOW)
    return Interval(found.low, found.high), (own - mean)[:, 0]


def excesses_of_few(
    random: torch.Generator, n: int, m: int, *, draws: int
) -> tuple[Interval, Tensor]:
    """The same over few drawn directions, most of which cost little, and some much."""
    mean, own = 0.05 + 0.3 * _uniform(random, m, 1), 0.4 + 0.5 * _uniform(random, m, 1)
    target = (_uniform(random, m, n) < own).double()
    lost = _lost_to_controls(random, mean, n, draws=draws, size=1.0)
    found = excess(target, lost, HOW)
    return Interval(found.low, found.high), (own - mean)[:, 0]


def _moved(random: torch.Generator, n: int, m: int) -> tuple[Float64[Tensor, "m n"], Tensor]:
    """Answers of which 1% to half change a digit, and the chance that each does."""
    chance = 0.01 * 50 ** _uniform(random, m, 1)
    digit = torch.randint(1, 10, (m, n), generator=random)
    amount = digit * 10.0 ** torch.randint(0, 3, (m, n), generator=random)
    return (_uniform(random, m, n) < chance).double() * amount, chance[:, 0]


MEAN_AMOUNT = 5 * 37.0


def distances(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """How far answers move."""
    moved, chance = _moved(random, n, m)
    return mean_interval(moved, HOW, of=DISTANCES), MEAN_AMOUNT * chance


def signed_shifts(random: torch.Generator, n: int, m: int) -> tuple[Interval, Tensor]:
    """The same where one in five moves back."""
    moved, chance = _moved(random, n, m)
    back = _uniform(random, m, n) < 0.2
    return mean_interval(moved.where(~back, -moved), HOW, of=SHIFTS), 0.6 * MEAN_AMOUNT * chance


def _lost_to_controls(
    random: torch.Generator,
    mean: Float64[Tensor, "m 1"],
    n: int,
    *,
    draws: int = N_CONTROLS,
    size: float = 8.0,
) -> Float64[Tensor, "m controls n"]:
    """1 where a direction costs a problem its answer."""
    chance = _beta(random, mean, draws, size=size)
    return (_uniform(random, len(mean), draws, n) < chance[..., None]).double()


def _beta(
    random: torch.Generator, mean: Float64[Tensor, "m 1"], n: int, *, size: float = 8.0
) -> Float64[Tensor, "m n"]:
    """Chances that vary around a mean; `size` is the sum of Beta's two parameters."""
    ones = torch.ones(len(mean), n, dtype=torch.float64)
    first, second = (
        torch._standard_gamma(size * share * ones, generator=random) for share in (mean, 1 - mean)
    )
    return first / (first + second)


CASES: dict[str, Case] = {
    "R": correlations,
    "accuracy": accuracies,
    "accuracy drop": drops,
    "iia": iias,
}


SAFE_CASES: dict[str, Case] = {
    "mean drop of controls": control_drops,
    "drop beyond that of 20 controls": excesses,
    "drop beyond that of 3 controls": partial(excesses_of_few, draws=3),
    "drop beyond that of 5 controls": partial(excesses_of_few, draws=5),
    "mean shift, few answers moving": signed_shifts,
    "mean distance, few answers moving": distances,
}
"""Of which a wide interval is no fault, or none."""
SMALL = (40, 100, 200)
"""Problems that are edited."""


def coverage_rows(n_cases: int, *, seed: int) -> list[Row]:
    """So many cases of each statistic, in equal parts of each size."""
    rows = []
    for name, simulate in CASES.items():
        held, _, total = _counts(simulate, SIZES, n_cases, seed=seed)
        rows.append(covering(f"95% intervals of {name} that hold the truth", held, total))
    for name, simulate in SAFE_CASES.items():
        held, without, total = _counts(simulate, SMALL, n_cases, seed=seed)
        note = f", {without / total:.2f} without" if without else ""
        what = f"95% intervals of {name} that hold the truth, or none"
        rows.append(holding(what, held + without, total, note=note))
    return rows


def _counts(
    simulate: Case, sizes: tuple[int, ...], n_cases: int, *, seed: int
) -> tuple[int, int, int]:
    """Intervals that hold the truth, cases without an interval, and cases."""
    random, held, without, total = torch.Generator().manual_seed(seed), 0, 0, 0
    for n in sizes:
        left = -(-n_cases // len(sizes))
        while left:
            m = min(left, 25)
            interval, truth = simulate(random, n, m)
            held += int(((interval.low <= truth) & (truth <= interval.high)).sum())
            without += int(interval.low.isnan().sum())
            total, left = total + m, left - m
    return held, without, total
