import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_arith.engine.answers import Answers
from mech_arith.evidence.metrics import accuracy, digit_accuracy, edit_outcome, exact

NAN = float("nan")
LARGEST = 2**53
whole = st.integers(-LARGEST, LARGEST) | st.integers(-1100, 1100)


def float64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def answers(
    numbers: torch.Tensor,
    probability: torch.Tensor | None = None,
    logit_difference: torch.Tensor | None = None,
) -> Answers:
    unknown = torch.full_like(numbers, NAN)
    return Answers(
        numbers,
        unknown if probability is None else probability.log(),
        unknown if logit_difference is None else logit_difference,
    )


def share(predicted: float, right: float) -> float:
    return float(digit_accuracy(float64(predicted), float64(right)))


def test_exact_counts_what_is_within_the_tolerance():
    predicted = torch.tensor([1.0, 2.5, NAN, -4.0])
    right = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert exact(predicted, right, tolerance=0.0).tolist() == [True, False, False, False]
    assert exact(predicted, right, tolerance=0.5).tolist() == [True, True, False, False]
    assert accuracy(predicted, right, tolerance=0.5) == 0.5


# Digits


@pytest.mark.parametrize(
    ("predicted", "right", "expected"),
    [
        (123, 123, 1.0),
        (124, 123, 2 / 3),
        (323, 123, 2 / 3),
        (1234, 234, 3 / 4),  # a digit too many
        (34, 234, 2 / 3),  # a digit too few
        (12, 123, 0.0),  # aligned at the units, not at the front
        (5, 105, 1 / 3),  # the tens that were not written are no 0
        (105, 5, 1 / 3),
        (-12, 12, 2 / 3),
        (12, -12, 2 / 3),
        (-12, -12, 1.0),
        (-13, -12, 2 / 3),
        (-5, 12, 0.0),
        (-5, 345, 1 / 4),  # the sign is a place of its own, and none of the digits'
        (0, 0, 1.0),
        (0, 7, 0.0),
        (-0.0, 0, 1.0),
        (10, 0, 1 / 2),
        (LARGEST, LARGEST, 1.0),
        (-LARGEST, LARGEST - 1, 15 / 17),
        (NAN, 123, 0.0),
        (float("inf"), 123, 0.0),
        (1e17 + 123, 123, 0.0),
    ],
)
def test_share_of_right_places_by_hand(predicted: float, right: float, expected: float):
    assert share(predicted, right) == pytest.approx(expected, abs=1e-15)


def share_of_text(predicted: int, right: int) -> float:
    """The same, said with the numbers as text."""
    places = [list(reversed(str(abs(number)))) for number in (predicted, right)]
    same = sum(p == r for p, r in zip(*places, strict=False))
    signs = [number < 0 for number in (predicted, right)]
    return (same + all(signs)) / (max(map(len, places)) + any(signs))


@given(whole, whole)
def test_share_agrees_with_the_text_of_the_numbers(predicted: int, right: int):
    assert share(predicted, right) == share_of_text(predicted, right)


@given(whole, whole)
def test_share_is_1_for_the_right_answer_alone_and_has_no_side(predicted: int, right: int):
    assert 0 <= share(predicted, right) <= 1
    assert (share(predicted, right) == 1) == (predicted == right)
    assert share(predicted, right) == share(right, predicted)


def test_rows_are_compared_each_for_itself():
    right = float64(12, -7)
    rows = torch.stack([float64(12, NAN), float64(13, 7)])
    assert digit_accuracy(rows, right).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_numbers_without_digits_to_compare_are_refused():
    with pytest.raises(ValueError, match="expected whole numbers, got others; compare written"):
        share(1.5, 1)
    with pytest.raises(ValueError, match="expected whole numbers, got others; compare written"):
        share(1, 1.5)
    for right in (NAN, float("inf"), 2.0**54):
        with pytest.raises(ValueError, match=r"expected right answers of at most 2\*\*53"):
            share(1, right)


# Outcomes


def test_outcome_by_hand():
    right = float64(10, 20, 30, 40)
    clean = answers(
        float64(10, 20, 30, 0), float64(1.0, 0.75, 0.5, 0.25), float64(4.0, 2.0, NAN, -3.0)
    )
    edited = answers(
        float64(10, 25, NAN, 1), float64(0.5, 0.25, 0.125, 0.125), float64(1.0, -1.0, 5.0, -6.0)
    )
    outcome = edit_outcome(edited, clean, right, tolerance=0.0, written=True)
    assert outcome.baseline_accuracy == 0.75
    assert outcome.edited_accuracy == 0.25
    assert outcome.accuracy_drop == 0.5
    assert outcome.n_passed == 3
    assert outcome.edited_accuracy_passed == pytest.approx(1 / 3)
    assert outcome.accuracy_drop_passed == pytest.approx(2 / 3)
    assert outcome.mean_shift == 2.0  # (0 + 5 + 1) / 3
    assert outcome.mean_abs_shift == 2.0
    assert outcome.not_a_number == 0.25
    assert outcome.median_abs_error == 5.0
    # right answers 10, 20, 40 have the mean 70/3 and the sum of squares 1400/3; errors 0, 5, 39
    assert outcome.r2 == pytest.approx(1 - 1546 / (1400 / 3))
    assert outcome.baseline_digit_accuracy == (1 + 1 + 1 + 1 / 2) / 4
    assert outcome.edited_digit_accuracy == (1 + 1 / 2 + 0 + 0) / 4
    assert outcome.baseline_right_probability == pytest.approx(0.625)
    assert outcome.edited_right_probability == pytest.approx(0.25)
    assert outcome.baseline_logit_difference == 1.0
    assert outcome.edited_logit_difference == -2.0  # the third problem has no contrast when clean


def test_shifts_to_both_sides():
    right = float64(1, 2)
    outcome = edit_outcome(
        answers(float64(4, -1)), answers(right), right, tolerance=0.0, written=True
    )
    assert (outcome.mean_shift, outcome.mean_abs_shift) == (0.0, 3.0)


def test_an_edit_may_mend_what_was_wrong():
    """The drop is among all problems; among the passed ones it cannot be negative."""
    right = float64(1, 2, 3, 4)
    outcome = edit_outcome(
        answers(right), answers(float64(1, 0, 0, 0)), right, tolerance=0.0, written=True
    )
    assert outcome.accuracy_drop == -0.75
    assert outcome.accuracy_drop_passed == 0.0


def test_nothing_parsable_is_undefined_and_not_zero():
    right = float64(1, 2)
    outcome = edit_outcome(
        answers(float64(NAN, NAN)), answers(right), right, tolerance=0.0, written=True
    )
    assert outcome.not_a_number == 1.0
    assert outcome.edited_accuracy == 0.0
    assert outcome.edited_digit_accuracy == 0.0
    assert math.isnan(outcome.mean_shift)
    assert math.isnan(outcome.mean_abs_shift)
    assert math.isnan(outcome.median_abs_error)
    assert math.isnan(outcome.r2)


def test_nothing_passed_leaves_the_passed_undefined():
    right = float64(1, 2)
    outcome = edit_outcome(
        answers(right), answers(float64(2, NAN)), right, tolerance=0.0, written=True
    )
    assert outcome.n_passed == 0
    assert math.isnan(outcome.edited_accuracy_passed)
    assert math.isnan(outcome.accuracy_drop_passed)


def test_a_regressed_answer_has_no_digits_and_no_probability():
    right = float64(10, 20)
    outcome = edit_outcome(
        answers(float64(10.2, 30)), answers(float64(9.8, 20)), right, tolerance=0.5, written=False
    )
    assert (outcome.baseline_accuracy, outcome.edited_accuracy) == (1.0, 0.5)
    assert (outcome.n_passed, outcome.edited_accuracy_passed) == (2, 0.5)
    undefined = {name for name, number in asdict(outcome).items() if math.isnan(number)}
    assert undefined == {
        f"{side}_{what}"
        for side in ("baseline", "edited")
        for what in ("digit_accuracy", "right_probability", "logit_difference")
    }


def test_what_the_edited_run_lacks_is_not_averaged_away():
    right = float64(1, 2)
    known = answers(right, float64(0.5, 0.5), float64(1, 2))
    broken = answers(right, float64(0.5, NAN), float64(1, NAN))
    outcome = edit_outcome(broken, known, right, tolerance=0.0, written=True)
    assert math.isnan(outcome.edited_right_probability)
    assert math.isnan(outcome.edited_logit_difference)
    assert outcome.baseline_logit_difference == 1.5


@given(st.lists(st.tuples(whole, whole, st.floats(0, 1), st.floats(-9, 9)), min_size=1))
def test_no_edit_changes_nothing(rows: list[tuple[int, int, float, float]]):
    right, *said = (float64(*column) for column in zip(*rows, strict=True))
    same = answers(*said)
    outcome = edit_outcome(same, same, right, tolerance=0.0, written=True)
    assert outcome.accuracy_drop == outcome.mean_shift == outcome.mean_abs_shift == 0
    assert outcome.edited_digit_accuracy == outcome.baseline_digit_accuracy
    assert outcome.edited_right_probability == outcome.baseline_right_probability
    assert outcome.edited_logit_difference == outcome.baseline_logit_difference
    assert outcome.n_passed == 0 or outcome.accuracy_drop_passed == 0
    assert outcome.baseline_digit_accuracy >= outcome.baseline_accuracy


def test_many_edits_at_once_are_each_judged_for_itself():
    right = float64(10, 20, 30)
    clean = answers(float64(10, 20, 31), float64(0.9, 0.8, 0.1), float64(1, NAN, 2))
    rows = [
        answers(float64(10, 20, 30), float64(0.5, 0.5, 0.5), float64(1, 2, 3)),
        answers(float64(NAN, 25, 30), float64(0.1, 0.2, 0.3), float64(0, NAN, 1)),
        answers(float64(NAN, NAN, NAN)),
    ]
    stacked = Answers(
        torch.stack([row.numbers for row in rows]),
        torch.stack([row.log_prob for row in rows]),
        torch.stack([row.logit_difference for row in rows]),
    )
    together = vars(edit_outcome(stacked, clean, right, tolerance=0.0, written=True))
    for index, row in enumerate(rows):
        alone = vars(edit_outcome(row, clean, right, tolerance=0.0, written=True))
        for name, number in alone.items():
            torch.testing.assert_close(together[name][index], number, equal_nan=True)
