import pytest
import torch

from mech_arith.engine.batching import Batching
from mech_arith.engine.run import (
    ReferenceAnswers,
    SiteEdits,
    SiteGrid,
    SiteVectors,
    edited_answers,
    run_baseline,
)
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import random_edits, tiny_decoder, tiny_encoder

PROBLEMS = draw(build_template("mine", "a-(b-c)"), n=9, ranges=dict.fromkeys("abc", (1, 9)), seed=2)
MODELS = {"decoder": tiny_decoder(seed=3), "encoder": tiny_encoder()}


def answers(model, moves, rows=5):
    baseline = run_baseline(
        Session(model), model.encode(PROBLEMS), ReferenceAnswers.of_problems(PROBLEMS)
    )
    return edited_answers(Session(model, Batching(rows)), baseline, moves).numbers


def pairs(model, n_edits=6, rank=1):
    site = Site(1, "resid_post", "operands")
    return random_edits(
        model, model.encode(PROBLEMS), site, size=4.0, n_edits=n_edits, seed=1, rank=rank
    )


RANKS = pytest.mark.parametrize("rank", [1, 3])


@RANKS
@pytest.mark.parametrize("kind", MODELS)
def test_a_grid_is_every_subspace_with_every_change(kind, rank):
    model = MODELS[kind]
    edits = pairs(model, rank=rank)
    grid = SiteGrid(edits.site, edits.frames[:2], edits.changes[:3])
    along, far = edits.frames[[0, 0, 0, 1, 1, 1]], edits.changes[[0, 1, 2, 0, 1, 2]]
    one_by_one = SiteEdits(edits.site, along, far)
    assert len(grid) == len(one_by_one) == 6
    torch.testing.assert_close(answers(model, grid), answers(model, one_by_one), equal_nan=True)
    rows = torch.tensor([4, 0, 7])
    assert torch.equal(grid.moved(rows), one_by_one.moved(rows))
    of_grid, of_pairs = (
        moves.vectors(torch.tensor([1, 5]), rows, device=torch.device("cpu"))
        for moves in (grid, one_by_one)
    )
    assert torch.equal(of_grid, of_pairs)
    assert of_grid.shape[:2] == (3, 2)


@RANKS
@pytest.mark.parametrize("kind", MODELS)
def test_whole_vectors_do_what_subspaces_do(kind, rank):
    model = MODELS[kind]
    edits = pairs(model, n_edits=2, rank=rank)
    whole = SiteVectors(edits.site, edits.changes @ edits.frames)
    ours, theirs = answers(model, whole), answers(model, edits)
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-4, equal_nan=True)


def test_a_vector_of_nothing_leaves_an_answer_bit_for_bit():
    model = MODELS["encoder"]
    edits = pairs(model, n_edits=1)
    added = edits.changes @ edits.frames
    added[:, 2:] = 0
    clean = answers(model, SiteVectors(edits.site, torch.zeros_like(added)))
    some = answers(model, SiteVectors(edits.site, added))
    assert torch.equal(some[:, 2:], clean[:, 2:])
    assert (some[:, :2] != clean[:, :2]).all()


def test_what_is_added_tells_moves_apart():
    edits = pairs(MODELS["encoder"], n_edits=2)
    grid = SiteGrid(edits.site, edits.frames, edits.changes)
    other = SiteGrid(edits.site, edits.frames, 2 * edits.changes)
    vectors = SiteVectors(edits.site, edits.changes @ edits.frames)
    assert len({moves.digest() for moves in (edits, grid, other, vectors)}) == 4


def test_a_problem_is_moved_that_moves_along_any_direction():
    edits = pairs(MODELS["encoder"], n_edits=2, rank=2)
    far = torch.zeros_like(edits.changes)
    far[0, 3, 0] = far[1, 4, 1] = 1.0
    rows = torch.tensor([4, 3, 0])
    for moves in (
        SiteEdits(edits.site, edits.frames, far),
        SiteGrid(edits.site, edits.frames, far),
    ):
        found = moves.moved(rows)
        assert found[:2].tolist() == [[False, True, False], [True, False, False]]
