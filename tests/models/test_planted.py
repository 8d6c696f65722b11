"""A planted model does what its plant says, and nothing else."""

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.engine.batching import Batching
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import ReferenceAnswers, run_baseline, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.attention import NOTHING
from mech_arith.models.base import POINTS, run_blocks
from mech_arith.models.planted.model import PlantedModel
from mech_arith.models.planted.planted import (
    MOST_LAYERS,
    N_DISTRACTORS,
    WIDTHS,
    Plant,
    operand_positions,
    prompt_labels,
)
from mech_arith.problems import draw
from mech_arith.problems.templates import build_template
from tests.tiny import random_edits

SEEDS = range(6)
each_plant = pytest.mark.parametrize("plant", [Plant.drawn(seed) for seed in SEEDS])


def streams(model, n=400):
    """Problems, and the residual stream before each layer and behind the last."""
    problems = model.plant.problems(n)
    tokens = model.encode(problems).layouts[0].tokens
    resids, _ = run_blocks(model, model.embed(tokens), start=0, pasts=[NOTHING] * model.n_layers)
    return problems, [resid.double() for resid in resids]


@each_plant
def test_every_answer_is_right(plant):
    model, problems = PlantedModel(plant), plant.problems(300)
    asked = ReferenceAnswers.of_problems(problems)
    found = run_baseline(Session(model, Batching(64)), model.encode(problems), asked)
    torch.testing.assert_close(found.answers.numbers, asked.right, atol=1e-3, rtol=0)


@each_plant
def test_the_values_are_written_where_the_plant_says_and_nowhere_else(plant):
    model = PlantedModel(plant)
    problems, resids = streams(model)
    for written, along in (
        (plant.read, model.directions.read),
        (plant.unread, model.directions.unread),
    ):
        numbers = torch.from_numpy(problems.values[written.value]).double()
        for behind, resid in enumerate(resids):
            expected = torch.zeros(resid.shape[:2], dtype=torch.float64)
            if behind > written.layer:
                gain = written.sd / plant.sd(written.value)
                expected[:, written.position] = gain * numbers
            torch.testing.assert_close(resid @ along, expected, atol=1e-4, rtol=0)


@each_plant
def test_the_answer_is_read_from_the_one_value_and_not_from_the_other(plant):
    model = PlantedModel(plant)
    problems, _ = streams(model, 100)
    tokens = model.encode(problems).layouts[0].tokens
    clean = model.full_pass(tokens, {})[:, -1, 0].double()
    (count,) = {
        plant.coefficients[plant.template.expression.answer][name] / k
        for name, k in plant.coefficients[plant.read.value].items()
    }
    for written, along, effect in (
        (plant.read, model.directions.read, count / plant.read.sd * plant.sd(plant.read.value)),
        (plant.unread, model.directions.unread, 0.0),
    ):

        def moved(resid, written=written, along=along):
            resid = resid.clone()
            resid[:, written.position] += along.float()
            return resid

        edited = model.full_pass(tokens, {(written.layer, "resid_post"): moved})[:, -1, 0]
        torch.testing.assert_close(
            edited.double() - clean, torch.full_like(clean, effect), atol=1e-3, rtol=1e-4
        )


@each_plant
def test_what_varies_is_what_was_planted(plant):
    """At the place of the value that is read: no other coordinate, each as large as was said."""
    model = PlantedModel(plant)
    _, resids = streams(model, 3000)
    found = torch.linalg.eigvalsh(resids[plant.read.layer + 1][:, plant.read.position].mT.cov())
    sizes = [plant.read.sd, *plant.noise]
    if plant.unread.position == plant.read.position and plant.unread.layer <= plant.read.layer:
        sizes.append(plant.unread.sd)
    if plant.read.position in operand_positions(plant.template).values():
        sizes.append(plant.operand_sd)
    np.testing.assert_allclose(
        found.flip(0)[: len(sizes)].clamp(min=0).sqrt(), sorted(sizes, reverse=True), rtol=0.1
    )
    assert float(found.flip(0)[len(sizes)]) < 1e-10


def test_noise_says_nothing_of_the_problem():
    plant = next(plant for plant in map(Plant.drawn, range(99)) if len(plant.noise) == 3)
    model = PlantedModel(plant)
    problems, resids = streams(model, 5000)
    noise = resids[1][:, -2] @ model.directions.noise.mT
    values = torch.from_numpy(np.stack(list(problems.values.values()))).double()
    together = torch.cat([noise.mT, values]).corrcoef()
    assert float(together[:3, 3:].abs().max()) < 5 / 5000**0.5
    torch.testing.assert_close(
        noise.std(0), torch.tensor(plant.noise, dtype=torch.float64), atol=0, rtol=0.05
    )


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_what_is_resumed_agrees_with_full_passes(seed):
    model = PlantedModel(Plant.drawn(seed))
    problems = model.plant.problems(12)
    asked = ReferenceAnswers.of_problems(problems)
    baseline = run_baseline(Session(model), model.encode(problems), asked)
    sites = [Site(layer, point, "all") for layer in range(model.n_layers) for point in POINTS]
    assert check_fast_path(model, baseline.prompts, sites) < 1e-4
    plan = [
        random_edits(model, baseline.prompts, site, size=3.0, n_edits=2, seed=seed)
        for site in sites
    ]
    resumed = run_edits(Session(model, Batching(16)), baseline, plan)
    model.replays = False
    full = run_edits(Session(model, Batching(16)), baseline, plan)
    for ours, theirs in zip(resumed, full, strict=True):
        torch.testing.assert_close(ours.numbers, theirs.numbers, atol=1e-2, rtol=1e-4)


def test_plants_differ_in_all_that_is_drawn():
    plants = [Plant.drawn(seed) for seed in range(60)]
    assert {plant.n_layers for plant in plants} == set(range(3, MOST_LAYERS + 1))
    assert {plant.d_model for plant in plants} == set(WIDTHS)
    assert {plant.causal for plant in plants} == {False, True}
    assert {len(plant.noise) for plant in plants} == {1, 2, 3}
    assert len({plant.expression for plant in plants}) > 20
    assert len({plant.read.position for plant in plants}) >= 8
    for plant in plants:
        own = {plant.read.value, plant.unread.value, plant.absent}
        assert len(own) == 3
        assert max(plant.read.layer, plant.unread.layer) < plant.reader < plant.n_layers
        at = operand_positions(plant.template)
        end = len(prompt_labels(plant.template)) - 1
        assert plant.unread.position != end
        for written in (plant.read, plant.unread):
            operands = {at[name] for name in plant.coefficients[written.value]}
            assert written.position not in operands
            assert N_DISTRACTORS < written.position <= end
            assert not plant.causal or written.position > max(operands)
        others = (plant.unread.sd, plant.operand_sd, *plant.noise)
        assert sum(sd > plant.read.sd for sd in others) <= 1


def test_the_same_seed_gives_the_same_model_and_another_gives_another():
    one, same, other = (PlantedModel(Plant.drawn(seed)) for seed in (4, 4, 5))
    assert one.plant == same.plant
    assert one.digest == same.digest != other.digest


def test_coefficients_and_sizes_by_hand():
    plant = Plant.drawn(0)
    assert plant.expression == "a-b+(c-d)-(e+f)"
    assert plant.coefficients["a-b"] == {"a": 1, "b": -1}
    answer = plant.coefficients[plant.template.expression.answer]
    assert answer == {"a": 1, "b": -1, "c": 1, "d": -1, "e": -1, "f": -1}
    # 0, 1, 2, 3, 4 have variance 2
    assert plant.sd("a") == pytest.approx(2**0.5)
    assert plant.sd("c-d") == pytest.approx(2)


def test_problems_that_it_cannot_read_are_refused():
    model = PlantedModel(Plant.drawn(0))
    other = build_template("other", "a-(b-c)")
    with pytest.raises(UserError, match=r"expected problems a-b\+\(c-d\)-\(e\+f\) for this"):
        model.encode(draw(other, n=9, ranges=dict.fromkeys("abc", (0, 4)), seed=0))
    larger = draw(model.plant.template, n=9, ranges=dict.fromkeys("abcdef", (0, 9)), seed=0)
    with pytest.raises(UserError, match=r"expected operands 0\.\.4 for this .* got 0\.\.9"):
        model.encode(larger)
