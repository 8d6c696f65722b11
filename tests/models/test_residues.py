"""Modular arithmetic: one token per number, a model that is trained on it, and the shipped one."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from einops import einsum
from omegaconf import OmegaConf

from mech_arith.common.errors import UserError
from mech_arith.common.paths import checkpoints_dir, conf_dir
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.models.arithmetic.loading import arithmetic_stand_in, load_arithmetic
from mech_arith.models.arithmetic.objectives import TrainSettings
from mech_arith.models.arithmetic.residue_objective import ResidueObjective
from mech_arith.models.arithmetic.residues import Residues
from mech_arith.models.arithmetic.training import train
from mech_arith.models.kinds import POINTS
from mech_arith.problems import draw
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template

P = 7
SEVEN = dict(
    model="seven",
    kind="residues",
    steps=2,
    warmup_steps=1,
    weight_decay=1.0,
    train_share=0.5,
    templates={"(a+b)%7": 1.0},
    operand_min=0,
    operand_max=6,
    shape={
        "n_layers": 1,
        "d_model": 8,
        "n_heads": 2,
        "d_mlp": 8,
        "norm": "none",
        "activation": "relu",
    },
    answer={"modulus": 7},
)


def problems(expression=f"(a+b)%{P}", n=20, high=P - 1):
    template = build_template("t", expression)
    return draw(template, n=n, ranges={"a": (0, high), "b": (0, high)}, seed=3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return train(TrainSettings(**SEVEN, directory=str(tmp_path_factory.mktemp("seven"))))


@pytest.fixture(scope="module")
def model(directory):
    return load_arithmetic("seven", directory=directory)


def test_its_stand_in_has_its_fingerprint_and_depth(model, directory):
    found = arithmetic_stand_in("seven", directory=directory, device="cpu")
    assert found.model.fingerprint == model.fingerprint
    assert (found.n_layers, found.model.n_layers) == (1, 1)


def test_every_residue_is_a_token_and_nothing_else_is():
    residues = Residues(7)
    for number in range(7):
        assert residues.read(residues.tokens(number)) == (number, True)
    assert residues.tokens(7) == residues.tokens(-1) == ()
    assert residues.read(()) == (None, False)
    assert residues.read((7,)) == (None, True)
    assert residues.text((3, 6, 7)) == "3 6 ="
    with pytest.raises(UserError, match=r"expected answers in 0\.\.6 .*, got 2\.\.9"):
        residues.encode(torch.tensor([2, 9]))


def test_every_problem_is_either_trained_on_or_held_out():
    objective = ResidueObjective(TrainSettings(**SEVEN))
    prompts, answers = objective.batch(0)
    assert torch.equal(answers, (prompts[:, 0] + prompts[:, 1]) % 7)
    assert torch.equal(prompts, objective.batch(1)[0])
    trained = {tuple(row) for row in prompts[:, :2].tolist()}
    held_out = {tuple(row) for row in objective._held_out.tolist()}
    assert (len(trained), len(held_out)) == (24, 25)
    assert not trained & held_out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_share": None}, "expected train_share above 0 and below 1"),
        ({"train_share": 1.0}, "expected train_share above 0 and below 1"),
        ({"operand_max": 7}, r"expected operand_max below answer\.modulus=7, got 7"),
        ({"templates": {"(a+b)%7": 1.0, "a*b%7": 1.0}}, "expected one template"),
        ({"weight_decay": -1.0}, "expected weight_decay >= 0"),
        ({"weight_decay": float("nan")}, "expected weight_decay >= 0"),
        ({"answer": {"modulus": "seven"}}, r"expected answer\.modulus as a whole number"),
        ({"answer": {"modulus": 7.5}}, r"expected answer\.modulus as a whole number"),
        (
            {"answer": {"modulus": 7, "width": 2}},
            r"expected answer\.modulus .*, and nothing beside",
        ),
        ({"answer": {"modulus": 11}}, "expected a template modulo 11, as answer"),
        ({"shape": {**SEVEN["shape"], "n_heads": 3}}, r"d_model as a multiple of shape\.n_heads"),
        ({"shape": {**SEVEN["shape"], "norm": "post"}}, r"shape\.norm .*'post'"),
        ({"shape": {**SEVEN["shape"], "activation": "silu"}}, r"shape\.activation .*'silu'"),
        ({"kind": "decoder"}, "expected train_share for kind=residues alone"),
        ({"templates": {"a+b": 1.0}}, r"expected a template modulo 7, .* got a\+b"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, changed, said):
    with pytest.raises(UserError, match=said):
        train(TrainSettings(**{**SEVEN, **changed}, directory=str(tmp_path / "model")))
    assert not (tmp_path / "model" / "card.json").exists()


def test_it_has_no_norms_and_relu_neurons(model):
    """The whole pass written out by its weights, as the card says that they are used."""
    weights = {
        name.replace("._original_component", ""): tensor.double()
        for name, tensor in model.bridge.named_parameters()
    }
    assert not [name for name in weights if "ln" in name]
    assert {model.next_norm(0, point) for point in POINTS} == {None}
    tokens = torch.tensor([[0, 3, 7], [6, 5, 7]])
    at = torch.arange(3)
    resid = weights["tok_embed.weight"][tokens] + weights["pos.weight"][at]

    def linear(name, x):
        return x @ weights[f"layers.0.{name}.weight"].mT + weights[f"layers.0.{name}.bias"]

    q, k, v = (linear(f"attn.{name}", resid).unflatten(2, (2, 4)) for name in "qkv")
    scores = einsum(q, k, "n i h d, n j h d -> n h i j") / 2
    pattern = scores.masked_fill(at[:, None] < at, -torch.inf).softmax(-1)
    z = einsum(pattern, v, "n h i j, n j h d -> n i h d").flatten(2)
    resid = resid + linear("attn.o", z)
    resid = resid + linear("mlp.fc_out", linear("mlp.fc_in", resid).relu())
    logits = (resid[:, -1] @ weights["head.weight"].mT).float()
    torch.testing.assert_close(model.full_pass(tokens, {})[:, 0], logits)


def test_prompts_hold_the_operands_alone(model):
    asked = problems()
    (layout,) = model.encode(asked).layouts
    assert layout.labels == ("a", "b", "=")
    assert layout.tokens[:, 0].tolist() == asked.operands["a"].tolist()
    assert layout.positions("b") == (1,)
    assert model.prompt_text(layout.tokens[0].tolist()).endswith(" =")


def test_what_it_was_not_trained_on_is_refused(model):
    with pytest.raises(UserError, match=r"expected template\.expression to be \(a\+b\)%7"):
        model.encode(problems("a+b"))
    with pytest.raises(UserError, match=r"expected operands in 0\.\.6 .*got a in"):
        model.encode(problems(high=99))


def test_an_interchange_calls_for_an_answer_modulo_the_same_number(model):
    asked = problems()
    a, b = asked.operands["a"], asked.operands["b"]
    of_a, of_sum = (draw_sources(asked, v, m=2, n_shuffles=1, seed=0) for v in ("a", "a+b"))
    assert of_a is not None
    assert of_sum is not None
    for wanted, expected in zip(of_a.wanted.numpy(), of_a.expected.numpy(), strict=True):
        assert (wanted + b[of_a.rows] >= P).any()
        assert np.array_equal(expected, (wanted + b[of_a.rows]) % P)
        assert not np.array_equal(expected, (a + b)[of_a.rows] % P)
    assert (of_sum.wanted >= P).any()
    assert torch.equal(of_sum.expected, of_sum.wanted % P)


def test_the_shipped_model_is_small_and_answers_every_problem():
    shipped = load_arithmetic("modular_addition")
    (results,) = shipped.card.held_out["operands_all"].values()
    assert results["accuracy"] == 1
    assert (checkpoints_dir() / "modular_addition" / "model.safetensors").stat().st_size < 1e6
    a, b = np.divmod(np.arange(97 * 97), 97)
    tokens = torch.from_numpy(np.stack([a, b, np.full(97 * 97, 97)], axis=1))
    answers = shipped.full_pass(tokens, {})[:, 0].argmax(-1).numpy()
    assert np.array_equal(answers, (a + b) % 97)


def test_its_recipe_its_template_and_its_card_agree():
    recipe, template = (
        OmegaConf.load(conf_dir() / group / f"{name}.yaml")
        for group, name in (("train", "modular_addition"), ("template", "modular_sum"))
    )
    card = load_arithmetic("modular_addition").card
    settings = asdict(OmegaConf.to_object(OmegaConf.merge(TrainSettings, recipe)))
    assert {name: card.training[name] for name in settings} == settings
    assert card.templates == (template.expression,)
    assert template.operands == {"min": card.operand_min, "max": card.operand_max}


def test_a_trained_model_is_what_was_trained(model):
    """All problems, against the objective's own evaluation; its pieces against its whole pass."""
    a, b = np.divmod(np.arange(P * P), P)
    tokens = torch.from_numpy(np.stack([a, b, np.full(P * P, P)], axis=1))
    answers = model.full_pass(tokens, {})[:, 0].argmax(-1).numpy()
    held_out = ResidueObjective(TrainSettings(**SEVEN))._held_out
    right = (answers == (a + b) % P)[P * held_out[:, 0] + held_out[:, 1]]
    (results,) = model.card.held_out["operands_all"].values()
    assert results["accuracy"] == pytest.approx(right.mean())
    drawn = problems()
    asked = ReferenceAnswers.of_problems(drawn)
    baseline = run_baseline(Session(model), model.encode(drawn), asked)
    expected = answers[P * drawn.operands["a"] + drawn.operands["b"]]
    numbers = baseline.answers.numbers.numpy()
    assert np.array_equal(numbers[expected < P], expected[expected < P])
    assert np.isnan(numbers[expected == P]).all()
