"""How well answers answer, clean and edited."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mech_arith.engine.answers import Answers
from mech_arith.problems import LARGEST_EXACT
from mech_arith.statistics import r_squared

_PLACES = len(str(LARGEST_EXACT))


def exact(
    predicted: Float[Tensor, "..."], right: Float[Tensor, "..."], *, tolerance: float
) -> Bool[Tensor, "..."]:
    """Which predictions are within the tolerance of the right answers; NaN never is.

    The two are broadcast: many rows of predictions against one of right answers, say.
    """
    return (predicted - right).abs() <= tolerance


def accuracy(
    predicted: Float[Tensor, " n"], right: Float[Tensor, " n"], *, tolerance: float
) -> float:
    """Share of exact answers."""
    return float(exact(predicted, right, tolerance=tolerance).double().mean())


def digit_accuracy(
    predicted: Float[Tensor, "*rows n"], right: Float[Tensor, " n"]
) -> Float64[Tensor, "*rows n"]:
    """Share of places at which the written answer is the right one, for each problem, in [0, 1].

    Both numbers are written without leading zeros and aligned at the units. There is a place for
    every digit of the longer one, and one more for the sign if either is negative. A place counts
    if both numbers have a digit there and it is the same, that of the sign if both are negative:
    1234 for 234 gives 3/4, 12 for -12 gives 2/3, 5 for 105 gives 1/3.

    Where nothing was written (NaN), no place is right: 0. The same holds for a number beyond 2**53
    in size: float64 no longer has all its digits.

    Raises:
        ValueError: a number that is not whole, or a right answer that is missing or beyond 2**53.
            An answer that was regressed and not written has no digits to compare.
    """
    readable = predicted.abs() <= LARGEST_EXACT  # NaN is not
    if not (right.abs() <= LARGEST_EXACT).all():
        raise ValueError("expected right answers of at most 2**53, got others; compare no digits")
    if (right != right.trunc()).any() or (predicted != predicted.trunc())[readable].any():
        raise ValueError("expected whole numbers, got others; compare written answers only")
    written, wanted = predicted.where(readable, 0).long(), right.long()
    (digits, present), (right_digits, right_present) = _digits(written), _digits(wanted)
    same = ((digits == right_digits) & present & right_present).sum(-1)
    places = (present | right_present).sum(-1)
    same += (written < 0) & (wanted < 0)
    places += (written < 0) | (wanted < 0)
    return (same.double() / places).where(readable, 0.0)


def _digits(
    numbers: Int64[Tensor, "*rows n"],
) -> tuple[Int64[Tensor, "*rows n places"], Bool[Tensor, "*rows n places"]]:
    """The digit at each place, units first, and whether the number has that place; 0 has one."""
    power = 10 ** torch.arange(_PLACES, device=numbers.device)
    size = numbers.abs()[..., None]
    return size // power % 10, (size >= power) | (power == 1)


@dataclass(frozen=True)
class EditOutcome:
    """What edits did to the answers of many problems, a number per edit. NaN is undefined."""

    baseline_accuracy: Float64[Tensor, "*edits"]
    edited_accuracy: Float64[Tensor, "*edits"]
    n_passed: Int64[Tensor, "*edits"]
    """Problems that the clean model answers right."""
    edited_accuracy_passed: Float64[Tensor, "*edits"]
    """Among those; NaN where there is none."""
    mean_shift: Float64[Tensor, "*edits"]
    """Mean of edited minus clean prediction, where both are numbers; NaN where none is."""
    mean_abs_shift: Float64[Tensor, "*edits"]
    """Mean distance between edited and clean prediction. An edit that moves problems to both sides,
    as scaling a centred coordinate does, shows here and not in `mean_shift`."""
    not_a_number: Float64[Tensor, "*edits"]
    """Share of problems whose edited answer is no number."""
    r2: Float64[Tensor, "*edits"]
    """Of edited predictions against the right answers."""
    median_abs_error: Float64[Tensor, "*edits"]
    baseline_digit_accuracy: Float64[Tensor, "*edits"]
    """Mean of `digit_accuracy`; NaN if answers are not written."""
    edited_digit_accuracy: Float64[Tensor, "*edits"]
    baseline_right_probability: Float64[Tensor, "*edits"]
    """Mean probability of the right answer; NaN for a model that gives none."""
    edited_right_probability: Float64[Tensor, "*edits"]
    baseline_logit_difference: Float64[Tensor, "*edits"]
    """Mean of right minus counterfactual answer's logit, in logits, over the problems that have one
    in the clean run; NaN where none has."""
    edited_logit_difference: Float64[Tensor, "*edits"]
    """Over the same problems; NaN if the edited run lacks any of them."""
    accuracy_drop: Float64[Tensor, "*edits"]
    """Baseline minus edited accuracy."""
    accuracy_drop_passed: Float64[Tensor, "*edits"]
    """The drop among the problems that the clean model answers right, from 1."""


def edit_outcome(
    edited: Answers,
    clean: Answers,
    right: Float[Tensor, " n"],
    *,
    tolerance: float,
    written: bool,
) -> EditOutcome:
    """Compare edited with clean answers and with the right ones.

    Args:
        edited: answers under each of some edits, [*edits, n], to the same problems as `clean`.
        clean: the answers without an edit, [n].
        right: the right answers.
        tolerance: within which an answer counts as exact.
        written: answers are digits that the model wrote, and not regressed.

    Raises:
        ValueError: `written`, and a number that is not whole.
    """
    passed = exact(clean.numbers, right, tolerance=tolerance)
    hits = exact(edited.numbers, right, tolerance=tolerance).double()
    accuracy = hits.mean(-1)
    accuracy_passed = hits[..., passed].mean(-1)
    shift = shifts(edited, clean)
    contrasted = ~clean.logit_difference.isnan()
    baseline = passed.double().mean()

    def of_all(number: Tensor) -> Tensor:
        return number.expand_as(accuracy)

    return EditOutcome(
        baseline_accuracy=of_all(baseline),
        edited_accuracy=accuracy,
        n_passed=of_all(passed.sum()),
        edited_accuracy_passed=accuracy_passed,
        mean_shift=shift.nanmean(-1),
        mean_abs_shift=shift.abs().nanmean(-1),
        not_a_number=1 - torch.isfinite(edited.numbers).double().mean(-1),
        r2=r_squared(edited.numbers, right),
        median_abs_error=_finite(edited.numbers - right).abs().nanmedian(-1).values,
        baseline_digit_accuracy=of_all(_mean_digit_accuracy(clean, right, written)),
        edited_digit_accuracy=_mean_digit_accuracy(edited, right, written),
        baseline_right_probability=of_all(clean.log_prob.exp().mean()),
        edited_right_probability=edited.log_prob.exp().mean(-1),
        baseline_logit_difference=of_all(clean.logit_difference[contrasted].mean()),
        edited_logit_difference=edited.logit_difference[..., contrasted].mean(-1),
        accuracy_drop=baseline - accuracy,
        accuracy_drop_passed=1 - accuracy_passed,
    )


def shifts(edited: Answers, clean: Answers) -> Float64[Tensor, "*edits n"]:
    """Edited minus clean prediction of each problem; NaN where one of them is no number."""
    return _finite(settled(edited.numbers, clean.numbers) - clean.numbers)


ROUNDING = 1e-6
"""Of regressed answers, which are computed in float32: a share of the largest of them."""


def settled(
    edited: Float64[Tensor, "*edits n"], clean: Float64[Tensor, " n"]
) -> Float64[Tensor, "*edits n"]:
    """The edited answers, where these differ from the clean ones by more than rounding.

    Else an edit that moves no answer would seem to move all of them, half of them the wrong way.
    Whole differences are none of rounding.
    """
    size = _finite(clean).abs().nan_to_num(0.0).amax() if len(clean) else 0.0
    differences = edited - clean
    rounded = (differences.abs() <= ROUNDING * size) & (differences != differences.trunc())
    return torch.where(rounded, clean, edited)


def _finite(numbers: Float64[Tensor, "*rows n"]) -> Float64[Tensor, "*rows n"]:
    return numbers.where(torch.isfinite(numbers), torch.nan)


def _mean_digit_accuracy(
    answers: Answers, right: Float[Tensor, " n"], written: bool
) -> Float64[Tensor, "*edits"]:
    if not written:
        return torch.full(answers.numbers.shape[:-1], torch.nan, dtype=torch.float64)
    return digit_accuracy(answers.numbers, right).mean(-1)
