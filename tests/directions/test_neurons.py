"""Single neurons: those that alone have an effect come first, by gradients that are differences."""

from typing import Any

import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.directions.pairs import draw_pairs, open_pairs
from mech_arith.engine.capture import capture
from mech_arith.engine.sites import Site
from tests.directions.test_das import problems_of, task_of
from tests.tiny import tiny_decoder

AT = Site(2, "mlp_post", "last")


def of_neurons(model, *, site=AT, **options):
    fit, _ = problems_of(60)
    task = task_of(model, fit, site, ranks=(4,))
    fitter: Any = find_method("neurons", 1, options, ranks=(4,)).fitter(task)
    for layout, found in capture(task.session, task.prompts, [site]):
        fitter.update(found[site], task.values[layout.rows])
    return task, fitter.fit()


@pytest.fixture
def few():
    """A decoder whose last MLP writes by two of its 64 neurons alone, one ten times as much."""
    model = tiny_decoder()
    writes = model.bridge.blocks[2].mlp.fc_out.original_component.weight
    with torch.no_grad():
        kept = writes[:, [7, 30]].clone() * torch.tensor([1.0, 10.0])
        writes.zero_()
        writes[:, [7, 30]] = kept
    return model


def test_only_neurons_with_an_effect_come_first(few):
    task, found = of_neurons(few, values=("b-c",))
    (index,) = [i for i, name in enumerate(task.problems.hypothesis.values) if name == "b-c"]
    assert found.of_value is not None
    assert found.of_value.tolist() == [index] * 4
    assert torch.equal(found.directions.sum(1), torch.ones(4, dtype=torch.float64))
    saved = effects(task, index)
    assert set(saved.nonzero().flatten().tolist()) == {7, 30}
    best = saved.argmax()
    assert found.directions[0].argmax() == best


def effects(task, index):
    drawn = draw_pairs(task, index, n=40)
    assert drawn is not None
    pairs = open_pairs(task, drawn, holdout=0.0)
    assert pairs is not None
    return pairs.first_order(torch.cat([pairs.trained, pairs.held_out]))


def test_a_first_order_effect_is_the_difference_of_a_small_step():
    fit, _ = problems_of(60)
    task = task_of(tiny_decoder(), fit, AT)
    drawn = draw_pairs(task, 1, n=30)
    assert drawn is not None
    pairs = open_pairs(task, drawn, holdout=0.0)
    assert pairs is not None
    every = torch.arange(len(pairs.sources))
    saved, step = pairs.first_order(every), 1e-2

    def loss(neuron, size):
        total = 0.0
        for suffix in pairs.suffixes:
            at = torch.arange(len(suffix.rows))
            move = torch.zeros(pairs.width)
            move[neuron] = size
            apart = pairs.apart[suffix.rows]
            read = suffix.read_outs(at, lambda x, by=apart * move: x + by)
            total += float(pairs.objective.losses(read, suffix.rows).double().sum())
        return total / len(every)

    for neuron in saved.abs().argsort(descending=True)[:5].tolist():
        slope = (loss(neuron, step) - loss(neuron, -step)) / (2 * step)
        assert -slope == pytest.approx(float(saved[neuron]), rel=0.02, abs=1e-6)


def test_every_value_has_axes_and_the_same_ones_again(few):
    task, found = of_neurons(few)
    assert found.of_value is not None
    assert found.of_value.tolist() == [i for i in range(task.values.shape[1]) for _ in range(4)]
    torch.testing.assert_close(of_neurons(few)[1].directions, found.directions)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs": 1}, r"expected tracing\.options\.pairs >= 2, got 1"),
        ({"values": ()}, "expected values to learn for"),
        ({"steps": 3}, "option of neurons"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        find_method("neurons", 1, options)
