import math

import pytest
import torch

from mech_arith.metrics import accuracy, edit_outcome, exact

NAN = float("nan")


def test_exact_counts_what_is_within_the_tolerance():
    predicted = torch.tensor([1.0, 2.5, NAN, -4.0])
    right = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert exact(predicted, right, tolerance=0.0).tolist() == [True, False, False, False]
    assert exact(predicted, right, tolerance=0.5).tolist() == [True, True, False, False]
    assert accuracy(predicted, right, tolerance=0.5) == 0.5


def test_outcome_by_hand():
    right = torch.tensor([10.0, 20.0, 30.0, 40.0])
    clean = torch.tensor([10.0, 20.0, 30.0, 0.0])
    edited = torch.tensor([10.0, 25.0, NAN, 1.0])
    outcome = edit_outcome(edited, clean, right, tolerance=0.0)
    assert outcome.baseline_accuracy == 0.75
    assert outcome.edited_accuracy == 0.25
    assert outcome.accuracy_drop == 0.5
    assert outcome.mean_shift == 2.0  # (0 + 5 + 1) / 3
    assert outcome.mean_abs_shift == 2.0
    assert outcome.not_a_number == 0.25
    assert outcome.median_abs_error == 5.0
    # right answers 10, 20, 40 have the mean 70/3 and the sum of squares 1400/3; errors 0, 5, 39
    assert outcome.r2 == pytest.approx(1 - 1546 / (1400 / 3))


def test_nothing_parsable_is_undefined_and_not_zero():
    right = torch.tensor([1.0, 2.0])
    outcome = edit_outcome(torch.tensor([NAN, NAN]), right, right, tolerance=0.0)
    assert outcome.not_a_number == 1.0
    assert outcome.edited_accuracy == 0.0
    assert math.isnan(outcome.mean_shift)
    assert math.isnan(outcome.median_abs_error)
    assert math.isnan(outcome.r2)
