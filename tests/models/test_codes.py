"""A planted model keeps a value in as many dimensions as it says, and uses every one of them."""

import pytest
import torch

from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.planted.codes import Code, CodedModel

RANKS = (1, 2, 3, 6, 8)
NUMBERS = torch.arange(9, dtype=torch.float64)


def model_of(rank):
    """0 for a helix. In seed 0 the value is subtracted, in seed 1 it is added."""
    seed = rank % 2
    return CodedModel.drawn(seed, rank) if rank else CodedModel.with_helix(seed)


def coordinates(model, activation):
    return activation.double() @ model.axes.mT


def answers(model, problems, edit=None):
    """Of whole passes, in which `edit` is made where the value is written."""
    tokens = model.encode(problems).layouts[0].tokens
    taps = {} if edit is None else {(model.plant.read.layer, "resid_post"): edit}
    return model.full_pass(tokens, taps)[:, 0, 0].double()


@pytest.mark.parametrize("rank", [*RANKS, 0])
def test_every_answer_is_right_and_the_value_is_on_its_code(rank):
    model = model_of(rank)
    problems = model.plant.problems(300)
    asked = ReferenceAnswers.of_problems(problems)
    found = run_baseline(Session(model), model.encode(problems), asked)
    torch.testing.assert_close(found.answers.numbers, asked.right, atol=1e-2, rtol=0)
    check_fast_path(
        model, model.encode(problems), [Site(model.plant.read.layer, "resid_post", "last")]
    )
    seen = []

    def look(activation):
        seen.append(coordinates(model, activation[:, -1]))
        return activation

    answers(model, problems, look)
    value = torch.from_numpy(problems.values[model.plant.read.value]).double()
    points = model.code.points[(value - model.code.numbers[0]).long()]
    torch.testing.assert_close(seen[0], points, atol=1e-3, rtol=0)
    assert model.axes.shape == (rank or 6, model.d_model)
    torch.testing.assert_close(
        model.axes @ model.axes.mT, torch.eye(rank or 6).double(), atol=1e-10, rtol=0
    )


def followed(model, n_axes):
    """Share of answers that follow the value of another problem, of which some axes are taken."""
    problems = model.plant.problems(200)
    value = torch.from_numpy(problems.values[model.plant.read.value]).double()
    source = torch.arange(len(value)).roll(1)
    wanted = torch.from_numpy(problems.answers).double() + model._answer_terms()[1] * (
        value[source] - value
    )
    moved = value[source] != value
    axes = model.axes[:n_axes].float()

    def interchanged(activation):
        activation = activation.clone()
        own = activation[:, -1]
        activation[:, -1] = own + (own[source] - own) @ axes.mT @ axes
        return activation

    said = answers(model, problems, interchanged)
    return float(((said - wanted).abs() < 0.5)[moved].double().mean())


@pytest.mark.parametrize("rank", [*RANKS, 0])
def test_answers_follow_all_of_its_dimensions_and_no_fewer(rank):
    model = model_of(rank)
    assert followed(model, len(model.axes)) == 1
    assert followed(model, len(model.axes) - 1) < 0.9


@pytest.mark.parametrize("rank", range(1, 9))
def test_codes_have_the_rank_that_is_asked_for(rank):
    points = Code.of_rank(rank, NUMBERS).points
    assert points.shape == (9, rank)
    assert torch.linalg.matrix_rank(points - points.mean(0)) == rank


def test_points_between_others_cannot_be_read():
    with pytest.raises(ValueError, match="none of which lies between others, got"):
        Code(NUMBERS, (), line=True).readers()
