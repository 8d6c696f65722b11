"""Cells by weights from the command line: what they leave, and what they refuse."""

import re
import shutil

import pandas as pd
import pytest
from omegaconf import OmegaConf

from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE
from mech_arith.evidence.results import load_run
from mech_arith.experiment.names import look_up
from mech_arith.experiment.plan import prepare
from tests.experiment.test_main import composed
from tests.running import main

BY_WEIGHTS = (
    "problems.n=60",
    "tracing=pca_last",
    "tracing.point=mlp_out",
    "tracing.position_map=false",
    "tracing.n_components=3",
    "layers.start=2",
    "layers.stop=3",
    "intervention=shift",
    "intervention.via=weights",
    "intervention.strengths=[10.0]",
    "intervention.components=[0]",
    "intervention.n_problems=null",
    "intervention.controls.random=1",
    "intervention.controls.span=0",
    "intervention.controls.other=false",
    "intervention.controls.shuffled=false",
    "inference.resamples=100",
    "inference.permutations=100",
    "wandb=disabled",
)


@pytest.mark.slow
def test_the_saved_model_answers_as_the_edited_one_did(monkeypatch, tmp_path):
    model = f"intervention.save_model={tmp_path}/edited"
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(monkeypatch, first, *BY_WEIGHTS, model) == 0
    edited = load_run(first / "run")
    assert edited.summary["cell"]["edit"] == "shift by weights"
    assert edited.summary["weights_difference"] < 1e-4
    effects = edited.tables["effects"].set_index("arm")
    assert set(effects["via"]) == {"weights"}
    assert effects.loc["target", "change_rms"] == effects.loc["control", "change_rms"] > 0
    assert effects.loc["target", "accuracy_drop"] > 0.2
    loaded = ("model=trained", f"model.path={tmp_path}/edited", "intervention=none")
    plain = [o for o in BY_WEIGHTS if not o.startswith("intervention")]
    assert main(monkeypatch, second, *plain, *loaded) == 0
    again = load_run(second / "run").summary
    assert again["baseline_accuracy"] == effects.loc["target", "edited_accuracy"]
    # Taken up again with the model in its place, and with it gone; and asked of another cell.
    assert main(monkeypatch, first, *BY_WEIGHTS, model) == 0
    assert load_run(first / "run").summary["attempts"] == 1
    weights = [file.read_bytes() for file in sorted((tmp_path / "edited").glob("*.safetensors"))]
    shutil.rmtree(tmp_path / "edited")
    assert main(monkeypatch, first, *BY_WEIGHTS, model) == 0
    assert weights == [
        file.read_bytes() for file in sorted((tmp_path / "edited").glob("*.safetensors"))
    ]
    pd.testing.assert_frame_equal(
        load_run(first / "run").tables["effects"], edited.tables["effects"], check_exact=True
    )
    assert main(monkeypatch, tmp_path / "third", *BY_WEIGHTS, model, "problems.seed=1") == 1
    said = (tmp_path / "third" / "run" / ERROR_FILE).read_text()
    assert said.startswith("expected a new or an empty directory for the edited model, got ")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("tracing.positions=b-c",), "expected a single position with intervention.via=weights, g"),
        (("layers.stop=4",), "expected one layer and one position with intervention.save_model, g"),
    ],
)
def test_what_the_prompts_and_the_model_do_not_allow_is_said_first(
    monkeypatch, tmp_path, overrides, said
):
    model = f"intervention.save_model={tmp_path}/edited"
    assert main(monkeypatch, tmp_path, *BY_WEIGHTS, model, *overrides) == 1
    assert (tmp_path / "run" / ERROR_FILE).read_text().startswith(said)
    assert not (tmp_path / "edited").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_model_is_loaded(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    model = f"intervention.save_model={tmp_path}/file/edited"
    assert main(monkeypatch, tmp_path, *BY_WEIGHTS, model) == 1
    said = (tmp_path / "run" / ERROR_FILE).read_text()
    assert said.startswith("expected an output directory that can be written, got ")
    assert said.endswith("choose another with intervention.save_model\n")
    assert not (tmp_path / "run" / "cell.json").exists()


def settings(**changes):
    """A checked config of the decoder's that saves one model, but for the changes."""
    config = OmegaConf.to_object(composed(*BY_WEIGHTS, "intervention.save_model=edited"))
    for name, value in changes.items():
        setattr(config.intervention, name, value)
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"via": "weight"}, r"unknown intervention\.via 'weight'"),
        ({"via": "activations"}, r"expected intervention\.via=weights with .*, got activations:"),
        ({"strengths": [1.0, 2.0]}, r"expected one strength with .*, got \[1\.0, 2\.0\]; set int"),
        ({"components": [0, 1]}, r"expected one component with .*, got \[0, 1\]; set int"),
        ({"components": "all"}, r"expected one component with .*, got all; set intervention"),
        (
            {"edit": "none"},
            r"expected an edit with intervention\.save_model, got intervention=none",
        ),
        ({"edit": "set"}, r"got 'set', which moves each problem by a dose of its own"),
    ],
)
def test_what_no_config_allows_is_said_before_a_model_is_loaded(changes, said):
    with pytest.raises(UserError, match=said):
        prepare(settings(**changes))


@pytest.mark.parametrize("positions", ["all", "answer", "all+answer"])
def test_several_positions_are_refused_before_a_model_is_loaded(positions):
    config = settings()
    config.tracing.positions = positions
    said = (
        rf"expected a single position with intervention\.via=weights, got '{re.escape(positions)}'"
    )
    with pytest.raises(UserError, match=said) as caught:
        look_up(config)
    assert "\n" not in str(caught.value)
    config.tracing.positions = "answer.1"
    look_up(config)


def test_weights_are_edited_along_what_is_found_where_the_answer_is_written(monkeypatch, tmp_path):
    """The model writes with the folded weights, and its answers are those of edits of activations
    at every position, prompt and answer.
    """
    asked = ("tracing.positions=answer.1", "intervention.strengths=[0.0,10.0]")
    assert main(monkeypatch, tmp_path, *BY_WEIGHTS, *asked) == 0
    found = load_run(tmp_path / "run")
    assert found.summary["weights_difference"] < 1e-4
    effects = found.tables["effects"].set_index(["arm", "strength"])
    assert set(effects["via"]) == {"weights"}
    assert set(effects["position"]) == {"answer.1"}
    assert effects.loc[("target", 0.0), "mean_abs_shift"] == 0
    assert effects.loc[("target", 0.0), "accuracy_drop"] == 0
    assert effects.loc[("target", 10.0), "accuracy_drop"] > 0.1
    moved = effects.loc[[("target", 10.0), ("control", 10.0)], "change_rms"]
    assert moved.nunique() == 1


def test_the_residual_stream_is_refused_before_a_model_is_loaded():
    config = settings()
    prepare(config)
    config.tracing.point = "resid_post"
    with pytest.raises(UserError, match="got 'resid_post': the residual stream is a sum"):
        prepare(config)
