from dataclasses import replace

import numpy as np
import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic import objectives as objectives
from mech_arith.models.arithmetic import training
from mech_arith.models.arithmetic.checkpoints import read_card, read_weights
from mech_arith.models.arithmetic.decoder_objective import DecoderObjective
from mech_arith.models.arithmetic.encoder import PreNormEncoder
from mech_arith.models.arithmetic.encoder_objective import EncoderObjective
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.arithmetic.objectives import TrainSettings, draw_operands, held_out
from mech_arith.models.arithmetic.training import learning_rate, train

SMALL = dict(
    model="small",
    steps=6,
    batch_size=8,
    warmup_steps=2,
    templates={"a-b": 1.0, "a-(b-c)": 1.0},
    operand_max=99,
    sparse_share=0.5,
    shape={"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 16},
    prompt_length=12,
    answer={"width": 3, "sign": "first", "digits": "units_first", "negatives": "magnitude"},
    checkpoint_every=2,
    evaluate_every=3,
    held_out_problems=20,
)
ENCODER = {
    **SMALL,
    "kind": "encoder",
    "templates": {"a-(b-c)": 1.0, "(a+b)-c": 1.0},
    "shape": {"n_layers": 1, "d_model": 12, "n_heads": 2, "d_mlp": 16, "n_ctx": 32},
    "answer": {},
    "scale": 100.0,
}
PRE_NORM = {**ENCODER, "shape": {**ENCODER["shape"], "norm": "pre"}}


@pytest.fixture(autouse=True)
def _keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "settings", [SMALL, ENCODER, PRE_NORM], ids=["decoder", "encoder", "pre-norm encoder"]
)
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch, settings):
    whole = train(TrainSettings(**settings, directory=str(tmp_path / "whole")))

    original, calls = training.write_training_state, []

    def dies_after_two(*args, **kwargs):
        original(*args, **kwargs)
        calls.append(kwargs["step"])
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_training_state", dies_after_two)
    broken = TrainSettings(**settings, directory=str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    monkeypatch.setattr(training, "write_training_state", original)
    resumed = train(broken)
    assert read_card(resumed).digest == read_card(whole).digest
    card = (resumed / "CARD.md").read_text(encoding="utf-8")
    for expected in ("| steps | 6 of 8 problems |", "`a-(b-c)`", "hardware", "wall time"):
        assert expected in card


@pytest.mark.parametrize("settings", [ENCODER, PRE_NORM], ids=["post", "pre"])
def test_what_was_trained_is_what_answers(tmp_path, settings):
    """The model that is loaded gives what the network in training gave."""
    directory = train(TrainSettings(**settings, directory=str(tmp_path)))
    model = load_arithmetic("small", directory=directory)
    said = "norm before attention and MLP" in (directory / "CARD.md").read_text(encoding="utf-8")
    assert said == (settings is PRE_NORM)
    assert isinstance(model, PreNormEncoder) == (settings is PRE_NORM)
    objective = EncoderObjective(TrainSettings(**settings))
    objective.network.load_state_dict(read_weights(directory, model.card))
    prompts, _ = objective.batch(0)
    with torch.inference_mode():
        expected = 100 * objective._predict(prompts)
    torch.testing.assert_close(model.full_pass(prompts, {})[:, 0, 0], expected)


def test_encoders_differ_in_where_they_normalise_alone():
    post, pre = (EncoderObjective(TrainSettings(**settings)) for settings in (ENCODER, PRE_NORM))
    sizes = [
        sorted(p.shape for n, p in r.network.named_parameters() if p.dim() == 2 and "type" not in n)
        for r in (post, pre)
    ]
    assert sizes[0] == sizes[1]
    assert torch.equal(post.batch(3)[0], pre.batch(3)[0])


def test_a_card_says_what_determined_the_training(tmp_path):
    settings = [
        read_card(train(TrainSettings(**{**SMALL, "seed": seed}, directory=f"{tmp_path}/{seed}")))
        for seed in (0, 1)
    ]
    first, second = (card.settings for card in settings)
    assert (first.pop("seed"), second.pop("seed")) == (0, 1)
    assert first == second
    assert not {"directory", "seconds", "hardware", "model"} & set(first)
    card = read_card(tmp_path / "0")
    assert replace(card, facts={"edited": "layer 1"}).settings["edited"] == "layer 1"


def test_the_last_state_belongs_to_its_settings(tmp_path):
    train(TrainSettings(**SMALL, directory=str(tmp_path)))
    with pytest.raises(UserError, match=r"expected the settings that .* was made with"):
        train(TrainSettings(**{**SMALL, "seed": 1}, directory=str(tmp_path)))
    (tmp_path / "training.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"expected a training state at .* delete it"):
        train(TrainSettings(**SMALL, directory=str(tmp_path)))


def test_held_out_problems_are_never_trained_on():
    rng = np.random.default_rng(0)
    for want in (False, True):
        drawn = draw_operands(
            ("a", "b", "c"),
            200,
            low=1,
            high=99,
            rng=rng,
            sparse_share=0.5,
            want_held_out=want,
        )
        assert (held_out(drawn) == want).all()
        assert all(len(x) == 200 for x in drawn.values())
    share = held_out({name: rng.integers(1, 999, 200_000) for name in "abc"}).mean()
    assert share == pytest.approx(1 / objectives.HELD_OUT_ONE_IN, rel=0.1)


def test_batches_are_a_function_of_seed_and_step():
    objective = DecoderObjective(TrainSettings(**SMALL))
    again = DecoderObjective(TrainSettings(**SMALL))
    assert torch.equal(objective.batch(3)[0], again.batch(3)[0])
    assert not torch.equal(objective.batch(3)[0], objective.batch(4)[0])


def test_sparse_operands_keep_or_drop_whole_digits():
    rng = np.random.default_rng(0)
    numbers = rng.integers(100, 1000, 500)
    dropped = objectives._drop_digits(numbers, 1.0, rng)
    for before, after in zip(numbers, dropped, strict=True):
        pairs = zip(f"{before:03d}", f"{after:03d}", strict=True)
        assert all(new in (old, "0") for old, new in pairs)
    assert (dropped == 0).any()
    assert np.array_equal(objectives._drop_digits(numbers, 0.0, rng), numbers)


def test_the_schedule_warms_up_and_comes_down():
    settings = TrainSettings(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], rel=0.05)
    assert rates[-1] < 0.02


def test_training_errors(tmp_path):
    with pytest.raises(UserError, match="unknown kind 'oracle'; expected one of: decoder, encoder"):
        train(TrainSettings(**{**SMALL, "kind": "oracle"}, directory=str(tmp_path)))
    with pytest.raises(UserError, match="pretrained BERT, got 'no_such_package'; run"):
        train(
            TrainSettings(**{**ENCODER, "pretrained": "no_such_package"}, directory=str(tmp_path))
        )
    with pytest.raises(
        UserError, match=r"shape\.norm=post for a pretrained BERT, got pre; set pre"
    ):
        train(TrainSettings(**PRE_NORM, pretrained="any", directory=str(tmp_path)))
    middle = {**ENCODER["shape"], "norm": "middle"}
    with pytest.raises(
        UserError, match=r"unknown shape\.norm 'middle'; expected one of: post, pre"
    ):
        train(TrainSettings(**{**ENCODER, "shape": middle}, directory=str(tmp_path)))
    mixed = {**ENCODER, "templates": {"a-b": 1.0, "a-(b-c)": 1.0}}
    with pytest.raises(UserError, match=r"templates of one length for an encoder, got \[5, 10\]"):
        train(TrainSettings(**mixed, directory=str(tmp_path)))
    for bad in (
        {"steps": 0},
        {"seed": -1},
        {"operand_min": 99},
        {"templates": {}},
        {"templates": {"a-b": 0.0}},
        {"device": "tpu"},
        {"shape": {"depth": 3}},
    ):
        with pytest.raises(UserError, match=r"expected"):
            train(TrainSettings(**{**SMALL, **bad}, directory=str(tmp_path)))
    with pytest.raises(UserError, match=r"found 0 in 50 draws; widen"):
        draw_operands(("a",), 3, low=1, high=9, rng=np.random.default_rng(0), want_held_out=True)
    with pytest.raises(UserError, match=r"at most 5 tokens for small, got 6"):
        train(TrainSettings(**{**SMALL, "prompt_length": 5}, directory=str(tmp_path)))
