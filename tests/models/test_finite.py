"""A number format that does not hold the activations is named in one line, with the first layer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mech_arith.common.errors import UserError
from mech_arith.engine.capture import capture
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.rows import opener
from mech_arith.engine.run import edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.language.pretrained import PretrainedModel
from tests.experiment.test_language_cells import SMALL
from tests.lms import tiny_lm
from tests.models.test_pretrained import ASKED, PROBLEMS, edits, model_in
from tests.running import main

LINE = (
    "expected finite activations of hf_dir, but activations of layer 1 are not finite in float16; "
    "use dtype=bfloat16 or float32"
)


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What layer 1 writes is beyond float16, and well within bfloat16 and float32."""
    directory = tiny_lm("llama", tmp_path_factory.mktemp("overflowing"))
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 3e4
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(params=[True, False], ids=["fast", "full"])
def half(request: pytest.FixtureRequest, overflowing: Path) -> PretrainedModel:
    model = model_in(overflowing, dtype="float16")
    model.replays = request.param
    return model


def said(caught: pytest.ExceptionInfo[UserError]) -> str:
    return str(caught.value)


def test_the_check_says_so_before_anything_is_run(half: PretrainedModel) -> None:
    with pytest.raises(UserError) as caught:
        check_fast_path(half, half.encode(PROBLEMS), [Site(0, "resid_post", "last")])
    assert said(caught) == LINE
    assert half.name == "hf_dir"


def test_the_baseline_says_so(half: PretrainedModel) -> None:
    with pytest.raises(UserError) as caught:
        run_baseline(Session(half), half.encode(PROBLEMS), ASKED)
    assert said(caught) == LINE


def test_tracing_says_so(half: PretrainedModel) -> None:
    sites = [Site(2, "resid_post", "last")]
    with pytest.raises(UserError) as caught:
        list(capture(Session(half), half.encode(PROBLEMS), sites))
    assert said(caught) == LINE


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_formats_hold_them(overflowing: Path, dtype: str) -> None:
    model = model_in(overflowing, dtype=dtype)
    prompts = model.encode(PROBLEMS)
    assert check_fast_path(model, prompts, [Site(0, "resid_post", "last")]) is not None
    assert run_baseline(Session(model), prompts, ASKED).answers.log_prob.isfinite().all()


@pytest.mark.parametrize("replays", [True, False])
@pytest.mark.parametrize(
    ("site", "size"),
    [(Site(1, "resid_post", "last"), 1e6), (Site(0, "mlp_out", "b.last"), 1e6)],
)
def test_edits_say_so(tmp_path: Path, site: Site, size: float, replays: bool) -> None:
    model = model_in(tiny_lm("llama", tmp_path), dtype="float16")
    model.replays = replays
    baseline = run_baseline(Session(model), model.encode(PROBLEMS), ASKED)
    with pytest.raises(UserError) as caught:
        edited_answers(Session(model), baseline, edits(model, site, size=size))
    assert said(caught) == (
        f"expected finite activations of hf_dir, but activations of layer {site.layer} are not "
        f"finite in float16 under an edit at layer {site.layer}, {site.point}; use dtype=bfloat16 "
        "or float32"
    )


@pytest.fixture
def loud(tmp_path: Path) -> PretrainedModel:
    """What is read out is beyond float16, and no layer's activations are."""
    model = model_in(tiny_lm("llama", tmp_path), dtype="float16")
    with torch.no_grad():
        model.network.lm_head.weight *= 5e4
    return model


READ_OUT = LINE.replace("layer 1", "the read-out")


@pytest.mark.parametrize("replays", [True, False], ids=["fast", "full"])
def test_logits_that_overflow_are_no_table_of_nan(loud: PretrainedModel, replays: bool) -> None:
    loud.replays = replays
    with pytest.raises(UserError) as caught:
        check_fast_path(loud, loud.encode(PROBLEMS), [Site(0, "resid_post", "last")])
    assert said(caught) == READ_OUT
    with pytest.raises(UserError) as caught:
        run_baseline(Session(loud), loud.encode(PROBLEMS), ASKED)
    assert said(caught) == READ_OUT


def test_logits_that_overflow_while_an_answer_is_written_are_said(loud: PretrainedModel) -> None:
    only, prompts = torch.tensor([0]), loud.encode(PROBLEMS)
    layout = prompts.layouts[0].part(slice(1))
    nothing = torch.empty(1, 0, dtype=torch.int64)
    tails = opener(loud, prompts)(layout, nothing)(None, 1).tails(only)
    with pytest.raises(UserError) as caught:
        list(tails.next_read_outs(only, [(int(layout.tokens[0, -1]),)]))
    assert said(caught) == READ_OUT


def test_other_formats_are_told_what_helps_them(tmp_path: Path) -> None:
    model = model_in(tiny_lm("llama", tmp_path))
    with torch.no_grad():
        model.network.model.layers[2].mlp.down_proj.weight[:] = torch.inf
    with pytest.raises(UserError, match=r"activations of layer 2 are not finite in float32; check"):
        check_fast_path(model, model.encode(PROBLEMS), [])


@pytest.mark.parametrize("engine", ["auto", "full"])
def test_a_cell_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overflowing: Path, engine: str
) -> None:
    asked = (f"model.path={overflowing}", "dtype=float16", f"engine={engine}")
    assert main(monkeypatch, tmp_path, *SMALL, *asked) == 1
    assert (tmp_path / "run" / "error.txt").read_text(encoding="utf-8").strip() == LINE
