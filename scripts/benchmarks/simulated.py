"""Edits whose truth is known because their answers were made up: ties between drops, and slopes."""

from collections.abc import Iterator

import torch
from bars import ALPHA, Row, at_most, covering, shown
from jaxtyping import Float64
from torch import Tensor

from mech_arith.evidence.counterfactual import following
from mech_arith.problems import draw
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling, averaged, excess, largest_of_all

HOW = Resampling()
N_CONTROLS, N_TARGETS = 20, 5
SPARSE = 0.01
"""Chance that an edit costs an answer: so few that many directions cost the same."""
N_PROBLEMS = 60


def tie_rows(n_cases: int, *, seed: int) -> list[Row]:
    """Targets that are like their controls, where drops are rare and therefore tie."""
    return [
        *_excess_ties(n_cases, seed=seed),
        _search_ties(n_cases, 1, seed=seed),
        _search_ties(n_cases, N_TARGETS, seed=seed),
    ]


def _excess_ties(n_cases: int, *, seed: int) -> Iterator[Row]:
    """Means over several sources or strengths, whose sums rounding parts; counted in integers."""
    for n_means in (3, 5):
        random = torch.Generator().manual_seed(seed)
        shape = (n_cases, 1 + N_CONTROLS, n_means, N_PROBLEMS)
        lost = torch.rand(*shape, generator=random) < SPARSE
        counts = lost.sum((2, 3))
        right = (1 + (counts[:, 1:] >= counts[:, :1]).sum(1)) / (1 + N_CONTROLS)
        drops = lost.double().mean(2)
        p = excess(drops[:, 0], drops[:, 1:], HOW).p
        differ = int(((p - right).abs() > 1e-6).sum())
        what = f"sparse drops, mean of {n_means}: p of excess"
        yield Row(f"{what} other than counted in integers", n_cases, f"{differ}", "0", differ == 0)
        yield at_most(f"{what} at most {ALPHA}", int((p <= ALPHA).sum()), n_cases)


def _search_ties(n_cases: int, n_targets: int, *, seed: int) -> Row:
    """The family-wise error of p corrected for the search among targets."""
    random, found = torch.Generator().manual_seed(seed), 0
    for _ in range(n_cases):
        lost = torch.rand(n_targets, 1 + N_CONTROLS, N_PROBLEMS, generator=random) < 2 * SPARSE
        drops = lost.double().mean(2)
        found += bool((largest_of_all(drops[:, 0], drops[:, 1:]) <= ALPHA).any())
    return at_most(
        f"sparse drops: searches among {n_targets} in which any p_max is", found, n_cases
    )


EXPRESSION, VALUE = "a-(b-c)", "b-c"
N_SOURCES, N_SHUFFLES, N_SETS = 3, 100, 10


def slope_rows(n_cases: int, *, seed: int) -> list[Row]:
    """Answers that are destroyed, in several ways, and some that follow half the way."""
    held: dict[str, int] = {}
    slopes: dict[str, list[float]] = {}
    random, total = torch.Generator().manual_seed(seed), 0
    for number in range(N_SETS):
        sources = _sources(seed + number)
        for _ in range(-(-n_cases // N_SETS)):
            total += 1
            for name, (edited, truth) in _edits(sources, random).items():
                by_problem = following(edited, _right(sources), sources).by_problem
                found = averaged(by_problem[None], HOW, drawn=False)
                slopes.setdefault(name, []).append(float(found.mean))
                held[name] = held.get(name, 0) + bool(found.low <= truth <= found.high)
    rows = [
        covering(f"95% intervals of the slope that hold the truth, {name}", of_name, total)
        for name, of_name in held.items()
    ]
    means = ", ".join(f"{sum(of) / len(of):+.3f}" for of in slopes.values())
    return [*rows, shown("mean slopes of these", total, means)]


def _sources(seed: int) -> Sources:
    template = build_template("slopes", EXPRESSION)
    problems = draw(template, n=100, ranges=dict.fromkeys("abc", (100, 999)), seed=seed)
    found = draw_sources(problems, VALUE, m=N_SOURCES, n_shuffles=N_SHUFFLES, seed=seed)
    assert found is not None
    return found


def _right(sources: Sources) -> Float64[Tensor, " n"]:
    return torch.from_numpy(sources.base.answers).double()


def _edits(
    sources: Sources, random: torch.Generator
) -> dict[str, tuple[Float64[Tensor, "m n"], float]]:
    """Answers under made-up edits, and how far they follow the source."""
    right, shape = _right(sources), sources.expected.shape
    noise = right.std() * torch.randn(shape, generator=random, dtype=torch.float64)
    order = torch.randperm(len(right), generator=random)
    halves = torch.rand(len(right), generator=random) < 0.5
    halfway = (right + sources.expected) / 2
    return {
        "answers destroyed by noise": (right.mean() + noise, 0.0),
        "answers of another problem": (right[order].expand(shape), 0.0),
        "noise beside the right answer": (right + noise, 0.0),
        "half the way, and noise": (halfway + noise, 0.5),
        "half of the problems": (torch.where(halves, sources.expected, right), 0.5),
    }
