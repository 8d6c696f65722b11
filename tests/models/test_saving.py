"""Edited models on disk: they load anywhere and answer as they did, or nothing is written."""

import json
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mech_arith.common.errors import UserError
from mech_arith.engine.run import ReferenceAnswers
from mech_arith.interventions.fold import difference, fold
from mech_arith.models.arithmetic.checkpoints import CARD_TEXT
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.language.hf_files import quiet
from mech_arith.models.saving import EDITED, is_saved, save_edited
from tests.interventions.test_fold import ARITHMETIC, answers_of, assert_close, change_at, twin
from tests.lms import smollm2, tiny_lm  # noqa: F401
from tests.models.test_pretrained import ASKED, PROBLEMS, model_in
from tests.thinned import thinned
from tests.tiny import tiny_decoder, tiny_encoder

EDIT = {"identity": "1" * 64, "layer": 1, "edit": "shift"}
TRAINING = {
    "seed": 0,
    "steps": 1,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "seconds": 1.0,
    "hardware": "none",
    "threads": 1,
    "torch": "2",
    "sparse_share": 0.0,
    "pretrained": None,
    "held_out_problems": 0,
}


@pytest.mark.parametrize("make", [tiny_decoder, tiny_encoder])
@pytest.mark.parametrize("point", ["attn_out", "mlp_out"])
def test_an_edited_arithmetic_model_loads_as_any_other(make, point, tmp_path):
    model = make()
    model.card = replace(model.card, training=TRAINING)
    prompts, asked = model.encode(ARITHMETIC), ReferenceAnswers.of_problems(ARITHMETIC)
    folded = fold(model, change_at(model, 1, point, "shift", 2.0))
    save_edited(folded, tmp_path / "edited", EDIT)
    loaded = load_arithmetic("trained", directory=tmp_path / "edited")
    assert loaded.name == f"{model.name}_edited"
    assert_close(answers_of(loaded, prompts, asked), answers_of(folded, prompts, asked))
    assert "edited after training: identity 111" in (tmp_path / "edited" / CARD_TEXT).read_text()
    assert json.loads((tmp_path / "edited" / EDITED).read_text()) == EDIT


@pytest.mark.parametrize(
    ("architecture", "point"),
    thinned(
        product(("llama", "gpt2", "granite", "phi", "qwen3"), ("attn_out", "mlp_out")),
        [("llama", "attn_out"), ("gpt2", "mlp_out"), ("phi", "attn_out"), ("granite", "mlp_out")],
    ),
)
def test_an_edited_language_model_loads_with_plain_transformers(architecture, point, tmp_path):
    model = model_in(tiny_lm(architecture, tmp_path / "model"))
    change = change_at(model, 1, point, "shift", 2.0)
    folded = fold(model, change)
    if (architecture, point) == ("qwen3", "mlp_out"):
        for call in (
            lambda: model.check_bias(1, point),
            lambda: save_edited(folded, tmp_path / "edited", EDIT),
        ):
            with pytest.raises(UserError, match=r"place for model.layers.1.mlp.down_proj.bias, go"):
                call()
        assert {path.name for path in tmp_path.iterdir()} == {"model"}
        return
    model.check_bias(1, point)
    save_edited(folded, tmp_path / "edited", EDIT)
    prompts = model.encode(PROBLEMS)
    tokens = prompts.whole(prompts.layouts[0])
    with quiet():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "edited")
    with torch.inference_mode():
        logits = plain(tokens).logits[:, -1:]
    twins = twin(model, change)
    torch.testing.assert_close(logits, twins.full_pass(tokens, {}), rtol=1e-4, atol=1e-4)
    assert tokenizer("3 + 5 = ").input_ids == model.tokenizer("3 + 5 = ").input_ids
    loaded = model_in(tmp_path / "edited")
    assert_close(answers_of(loaded, prompts, ASKED), answers_of(folded, prompts, ASKED))


def test_an_edit_about_the_origin_needs_no_bias(tmp_path):
    model = model_in(tiny_lm("qwen2", tmp_path / "model"))
    folded = fold(model, change_at(model, 1, "mlp_out", "scale", 0.0, centre=False))
    save_edited(folded, tmp_path / "edited", EDIT)
    prompts = model.encode(PROBLEMS)
    loaded = model_in(tmp_path / "edited")
    assert_close(answers_of(loaded, prompts, ASKED), answers_of(folded, prompts, ASKED))


def test_tied_embeddings_stay_tied(tmp_path):
    directory = tiny_lm("llama", tmp_path / "model")
    with quiet():
        network = AutoModelForCausalLM.from_pretrained(directory)
        network.config.tie_word_embeddings = True
        network.tie_weights()
        network.save_pretrained(directory)
    model = model_in(directory)
    folded = fold(model, change_at(model, 1, "mlp_out", "shift", 2.0))
    save_edited(folded, tmp_path / "edited", EDIT)
    loaded = model_in(tmp_path / "edited")
    assert loaded.network.lm_head.weight is loaded.network.model.embed_tokens.weight
    prompts = model.encode(PROBLEMS)
    assert_close(answers_of(loaded, prompts, ASKED), answers_of(folded, prompts, ASKED))


def test_what_is_there_already_is_never_written_over(tmp_path):
    model = model_in(tiny_lm("llama", tmp_path / "model"))
    folded = fold(model, change_at(model, 0, "mlp_out"))
    target = tmp_path / "edited"
    target.mkdir()
    save_edited(folded, target, EDIT)  # into an empty one
    assert is_saved(target, identity=EDIT["identity"])
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    save_edited(folded, target, EDIT)  # a job that is taken up again
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before
    for directory, other in ((target, {**EDIT, "identity": "2" * 64}), (tmp_path / "model", EDIT)):
        with pytest.raises(UserError, match=r"new or an empty directory .* something else; choose"):
            save_edited(folded, directory, other)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"new or an empty directory for the edited model, got .*f"):
        save_edited(folded, tmp_path / "file", EDIT)
    with pytest.raises(UserError, match=r"can be written, got .*file/edited \(Not a directory\)"):
        save_edited(folded, tmp_path / "file" / "edited", EDIT)


def test_a_failure_leaves_nothing(tmp_path):
    model = tiny_decoder()  # whose card cannot be written: it says nothing of its training
    with pytest.raises(KeyError):
        save_edited(fold(model, change_at(model, 0, "mlp_out")), tmp_path / "edited", EDIT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_smollm2(smollm2, tmp_path):  # noqa: F811
    model = model_in(smollm2, name="smollm2_135m", dtype="float32")
    change = change_at(model, 15, "mlp_out", "shift", 3.0)
    folded = fold(model, change)
    prompts = model.encode(PROBLEMS)
    ours = answers_of(folded, prompts, ASKED)
    assert_close(ours, answers_of(twin(model, change), prompts, ASKED))
    assert difference(model, folded, change, prompts) < 1e-4
    save_edited(folded, tmp_path / "edited", EDIT)
    assert_close(answers_of(model_in(tmp_path / "edited"), prompts, ASKED), ours)
