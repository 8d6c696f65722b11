"""What edits do to answers, as arrays: the results of an intervention that are alike together.

Small arrays cost what calling for them costs: twenty results of one shape take as long as one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.evidence.metrics import edit_outcome, exact, shifts
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.controls import CONTROL, DRAWN, TARGET
from mech_arith.interventions.result import InterventionResult
from mech_arith.statistics import (
    DIFFERENCES,
    DISTANCES,
    SHARES,
    SHIFTS,
    Resampling,
    averaged,
    excess,
)

ENTRIES = 2**18
"""Answers that are worked on together, at most: 32 MB where their digits are compared."""


@dataclass(frozen=True)
class Outcomes:
    """Of one result, by strength."""

    by_arm: dict[str, dict[str, Float64[Tensor, " s"]]]
    """Means over an arm's directions and sources, and the intervals of some."""
    against: dict[str, Float64[Tensor, " s"]]
    """The target's drop beyond that of the norm-matched random directions."""


def outcomes_of(results: Sequence[InterventionResult], scorer: Scorer) -> list[Outcomes]:
    """Of every result, in their order."""
    found: dict[int, Outcomes] = {}
    for places in _alike(results):
        some = _together([results[place] for place in places], scorer)
        found |= dict(zip(places, some, strict=True))
    return [found[place] for place in range(len(results))]


def by_strength(x: Float64[Tensor, "*results k m s n"]) -> Float64[Tensor, "*results s k n"]:
    """Problems with the mean over their sources, which are theirs alone."""
    return x.nanmean(-3).transpose(-3, -2)


def _alike(results: Sequence[InterventionResult]) -> Iterator[list[int]]:
    """Which results are of the same problems and have arms of the same sizes, some at a time."""
    groups: dict[tuple, list[int]] = {}
    for place, one in enumerate(results):
        arms = tuple((arm.name, len(arm.frames)) for arm in one.arms)
        shape = (one.answers.numbers.shape, arms, one.rows.numpy().tobytes())
        groups.setdefault(shape, []).append(place)
    for (shape, *_), places in groups.items():
        at_once = max(1, ENTRIES // max(1, prod(shape)))
        for start in range(0, len(places), at_once):
            yield places[start : start + at_once]


def _together(results: Sequence[InterventionResult], scorer: Scorer) -> Iterator[Outcomes]:
    """Of results that are alike."""
    own, moves = scorer.of(results[0].rows), torch.stack([one.moving for one in results])
    numbers: dict[str, dict[str, Tensor]] = {}
    drops: dict[str, Tensor] = {}
    for of_arm in zip(*(one.by_arm() for one in results), strict=True):
        name, answers = of_arm[0][0].name, Answers.stacked([answers for _, answers in of_arm])
        drops[name] = by_strength(own.drops(answers))
        numbers[name] = _numbers(name, answers, own, moves)
    against = _against(drops, own.how)
    for place, one in enumerate(results):
        yield Outcomes(
            {arm: {name: x[place] for name, x in of.items()} for arm, of in numbers.items()},
            {name: x[place] for name, x in against.items()} | _until_decided(one),
        )


def _numbers(
    arm: str, answers: Answers, scorer: Scorer, moves: Bool[Tensor, "results s"]
) -> dict[str, Float64[Tensor, "results s"]]:
    """Outcomes by strength, and the intervals of some.

    Args:
        arm: its name.
        answers: of the arm, [results, k, m, s, n].
        scorer: of the n problems.
        moves: which strengths move any problem.
    """
    outcome = edit_outcome(
        answers, scorer.clean, scorer.right, tolerance=scorer.tolerance, written=scorer.written
    )
    numbers = {name: number.double().mean((-3, -2)) for name, number in vars(outcome).items()}
    drops, shift = scorer.drops(answers), shifts(answers, scorer.clean)
    hits = exact(answers.numbers, scorer.right, tolerance=scorer.tolerance).double()
    for name, each, of in (
        ("edited_accuracy", hits, SHARES),
        ("accuracy_drop", drops, DIFFERENCES),
        ("mean_shift", shift, SHIFTS),
        ("mean_abs_shift", shift.abs(), DISTANCES),
    ):
        found = averaged(by_strength(each), scorer.how, drawn=arm in DRAWN, of=of)
        # Where answers are no number, a mean of means is not the mean that has the interval.
        low, high = found.low, found.high
        if of in (SHIFTS, DISTANCES):  # where nothing is edited, no shift is sure
            low, high = (end.where(moves, found.mean) for end in (low, high))
        numbers |= {name: found.mean, f"{name}_low": low, f"{name}_high": high}
    return numbers


def _against(
    drops: Mapping[str, Float64[Tensor, "results s k n"]], how: Resampling
) -> dict[str, Float64[Tensor, "results s"]]:
    """The target's drop beyond that of the norm-matched random directions."""
    target = drops[TARGET][..., 0, :]
    nothing = target.new_zeros(*target.shape[:-1], 0, target.shape[-1])
    controls = drops.get(CONTROL, nothing)
    found = excess(target, controls, how)
    return {
        "excess_drop": found.estimate,
        "excess_low": found.low,
        "excess_high": found.high,
        "excess_p": found.p,
        "excess_n_draws": torch.full_like(found.p, controls.shape[-2]),
    }


def _until_decided(result: InterventionResult) -> dict[str, Float64[Tensor, " s"]]:
    """P of all directions that were drawn for it, where draws stopped early."""
    draws = result.draws.get(CONTROL)
    if draws is None:
        return {}
    found = draws.by_strength
    return {"excess_p": found.p, "excess_n_draws": found.n_draws.double()}
