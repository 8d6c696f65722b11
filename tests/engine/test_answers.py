import torch

from mech_arith.engine.answers import Answers


def planted() -> Answers:
    numbers = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    return Answers(numbers, -numbers, 10 * numbers)


def test_empty_answers_know_nothing_and_are_filled_in_place():
    answers = Answers.empty(2, 3)
    for field in (answers.numbers, answers.log_prob, answers.logit_difference):
        assert field.shape == (2, 3)
        assert field.dtype == torch.float64
        assert field.isnan().all()
    assert len(answers) == 3
    answers.numbers[..., torch.tensor([2, 0])] = torch.ones(2, 2, dtype=torch.float64)
    assert answers.numbers.isnan().tolist() == [[False, True, False]] * 2
    assert answers.log_prob.isnan().all()


def test_the_first_problems():
    taken = planted().take(2)
    assert len(taken) == 2
    assert taken.numbers.tolist() == [[0, 1], [3, 4]]
    assert taken.log_prob.tolist() == [[0, -1], [-3, -4]]
    assert taken.logit_difference.tolist() == [[0, 10], [30, 40]]
    assert planted().at(1).take(1).numbers.tolist() == [3]


def test_rows_by_number_slice_and_list():
    one = planted().at(1)
    assert one.numbers.tolist() == [3, 4, 5]
    assert one.log_prob.tolist() == [-3, -4, -5]
    assert one.logit_difference.tolist() == [30, 40, 50]
    assert planted().at(slice(1, None)).numbers.tolist() == [[3, 4, 5]]
    assert planted().at(torch.tensor([1, 0, 1])).numbers[:, 0].tolist() == [3, 0, 3]
