"""A plant of digits writes what it says, and answers from the steps of one hypothesis alone."""

from itertools import product

import numpy as np
import pytest
import torch

from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.attention import NOTHING
from mech_arith.models.base import POINTS, run_blocks
from mech_arith.models.planted.digits import (
    CARRY,
    DIGITS,
    ONES,
    RIVALS,
    TENS,
    DigitModel,
    DigitPlant,
)
from mech_arith.models.planted.planted import MOST_LAYERS, operand_positions
from mech_arith.problems.hypotheses import TREE

ALL = 20**3
each_plant = pytest.mark.parametrize(
    "plant", [DigitPlant.drawn(seed, name) for seed, name in product(range(3), RIVALS)]
)


def written(plant: DigitPlant):
    return [step for steps in plant.steps.values() for step in steps]


@each_plant
def test_every_answer_is_right_and_every_step_stands_where_the_plant_says(plant):
    model, problems = DigitModel(plant), plant.problems(ALL)
    prompts = model.encode(problems)
    asked = ReferenceAnswers.of_problems(problems)
    found = run_baseline(Session(model), prompts, asked)
    torch.testing.assert_close(found.answers.numbers, asked.right, atol=1e-2, rtol=0)
    tokens = prompts.layouts[0].tokens
    resids, _ = run_blocks(model, model.embed(tokens), start=0, pasts=[NOTHING] * model.n_layers)
    for step in written(plant):
        along = model.along[step.value]
        numbers = torch.from_numpy(problems.values[step.value]).double()
        for behind, resid in enumerate(resids):
            expected = torch.zeros(resid.shape[:2], dtype=torch.float64)
            if behind > step.layer:
                expected[:, step.position] = numbers
            unit = along / along.dot(along)
            torch.testing.assert_close(resid.double() @ unit, expected, atol=5e-3, rtol=0)


@each_plant
def test_answers_follow_the_steps_of_its_hypothesis_and_no_others(plant):
    model, problems = DigitModel(plant), plant.problems(100)
    tokens = model.encode(problems).layouts[0].tokens
    clean = model.full_pass(tokens, {})[:, -1, 0].double()
    counts = {
        DIGITS: {ONES: 1, CARRY: 10, TENS: 10, plant.inner.value: 0},
        TREE: {ONES: 0, CARRY: 0, TENS: 0, plant.inner.value: 1},
    }
    for step in written(plant):

        def moved(resid, step=step):
            resid = resid.clone()
            resid[:, step.position] += model.along[step.value].float()
            return resid

        edited = model.full_pass(tokens, {(step.layer, "resid_post"): moved})[:, -1, 0]
        effect = torch.full_like(clean, counts[plant.hypothesis][step.value])
        torch.testing.assert_close(edited.double() - clean, effect, atol=1e-2, rtol=0)


def test_the_two_hypotheses_differ_in_what_is_read_alone():
    tree, digits = (DigitModel(DigitPlant.drawn(5, name)) for name in RIVALS)
    assert set(written(tree.plant)) == set(written(digits.plant))
    assert torch.equal(tree.W_E, digits.W_E)
    assert tree.digest != digits.digest
    for layer, blocks in enumerate(zip(tree.blocks, digits.blocks, strict=True)):
        one, other = (vars(block).values() for block in blocks)
        same = all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        assert same == (layer != tree.plant.reader)


def test_its_passes_agree_and_its_widths_are_said():
    model = DigitModel(DigitPlant.drawn(2))
    prompts = model.encode(model.plant.problems(12))
    sites = [Site(layer, point, "all") for layer in range(model.n_layers) for point in POINTS]
    assert check_fast_path(model, prompts, sites) < 1e-2
    widths = {}

    def look(site):
        def tap(activation):
            widths[site] = activation.shape[-1]
            return activation

        return tap

    model.full_pass(prompts.layouts[0].tokens, {(at.layer, at.point): look(at) for at in sites})
    assert widths == {site: model.width_at(site.layer, site.point) for site in sites}


def test_plants_differ_in_all_that_is_drawn():
    plants = [DigitPlant.drawn(seed) for seed in range(60)]
    assert {plant.n_layers for plant in plants} == set(range(3, MOST_LAYERS + 1))
    assert {plant.expression for plant in plants} == {"a+b+c", "a+(b+c)"}
    assert {plant.causal for plant in plants} == {False, True}
    assert len({(plant.carry.position, plant.tens.position) for plant in plants}) == 3
    for plant in plants:
        assert plant.carry.layer < plant.tens.layer < plant.reader < plant.n_layers
        assert max(plant.ones.layer, plant.inner.layer) < plant.reader
        places = {step.position for step in written(plant)}
        assert places == set(range(1 + max(operand_positions(plant.template).values()), 9))
        assert plant.carry.position < plant.tens.position
        assert plant.ones.position == plant.inner.position


def test_steps_at_one_place_do_not_go_with_each_other():
    plant = DigitPlant.drawn(0)
    values = plant.problems(ALL).values
    together = np.cov(values[plant.inner.value], values[ONES], bias=True)
    assert together[0, 1] == pytest.approx(0, abs=1e-9)
    for place, value in enumerate((plant.inner.value, ONES)):
        assert plant.sd(value) == pytest.approx(together[place, place] ** 0.5)
    # Of two numbers 0..19, each of variance (20**2 - 1) / 12.
    assert plant.sd(plant.inner.value) == pytest.approx((2 * 399 / 12) ** 0.5)
