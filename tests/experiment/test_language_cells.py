"""Whole cells of language models through the entrypoint, on tiny random weights."""

import json
import logging
import re
from contextlib import redirect_stderr
from dataclasses import asdict
from io import StringIO
from typing import Any

import pandas as pd
import pytest

from mech_arith.common import file_digests
from tests.ggufs import write_gguf
from tests.lms import tiny_lm
from tests.running import main
from tests.thinned import thinned

SMALL = (
    "model=hf_dir",
    "template=sum_of_two",
    "problems.operands={min:1,max:9}",
    "problems.n=40",
    "tracing.n_components=3",
    "tracing.positions=last",
    "prompt.shots=3",
    "wandb=disabled",
    "intervention=none",
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_lm("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def plain(llama, tmp_path_factory):
    """The directory of a cell that is asked for nothing more than `SMALL`."""
    directory = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, directory, llama)
    return directory / "run"


def summary_of(cell):
    return json.loads((cell / "summary.json").read_text(encoding="utf-8"))


def run(monkeypatch, tmp_path, directory, *overrides) -> dict[str, Any]:
    arguments = [f"model.path={directory}", *overrides]
    assert main(monkeypatch, tmp_path, *SMALL, *arguments) == 0
    return summary_of(tmp_path / "run")


def refused(monkeypatch, tmp_path, directory, *overrides) -> str:
    """The one line: in the cell's directory, or where no model was needed to see it, on stderr."""
    said = StringIO()
    with redirect_stderr(said):
        asked = (*SMALL, f"model.path={directory}", *overrides)
        assert main(monkeypatch, tmp_path, *asked) == 1
    assert not (tmp_path / "run" / "summary.json").exists()
    left = tmp_path / "run" / "error.txt"
    line = left.read_text(encoding="utf-8") if left.exists() else said.getvalue()
    assert line.count("\n") == 1
    return line


@pytest.mark.slow
def test_a_gguf_file_gives_the_numbers_of_the_directory_that_it_is_converted_to(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    write_gguf(tmp_path / "tiny.gguf", "qwen2")
    asked = (*SMALL[1:], "model=gguf", f"model.path={tmp_path / 'tiny.gguf'}")
    (tmp_path / "gguf").mkdir()
    assert main(monkeypatch, tmp_path / "gguf", *asked) == 0
    summary = summary_of(tmp_path / "gguf" / "run")
    assert summary["cell"]["model"] == "gguf:tiny.gguf"
    assert summary["engine"] == "resumed"
    (converted,) = (tmp_path / "store" / "models" / "gguf").glob("[0-9a-f]*")
    (tmp_path / "directory").mkdir()
    run(monkeypatch, tmp_path / "directory", converted)
    tables = (
        pd.read_parquet(tmp_path / name / "run" / "correlations.parquet")
        for name in ("gguf", "directory")
    )
    ours, theirs = (
        table[["layer", "value", "component", "r", "weights_digest"]] for table in tables
    )
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.slow
def test_a_model_that_knows_no_arithmetic_is_traced_and_said_to_know_none(plain, llama):
    summary = summary_of(plain)
    assert summary["baseline_accuracy"] <= summary["majority_floor"]
    assert summary["above_floor_p"] > 0.01
    assert summary["engine"] == "resumed"
    assert summary["engine_difference"] < 1e-4
    assert "batch_effect" not in summary  # float32
    said = [warning for warning in summary["warnings"] if "not clearly above" in warning]
    assert re.search(
        r"accuracy 0.000 of hf_dir is not clearly above 0\.\d+, that of always", said[0]
    )
    log = (plain / "mech_arith.log").read_text(encoding="utf-8")
    assert "not clearly above" in log
    assert 0 <= summary["baseline_not_a_number"] <= 1
    assert 0 <= summary["baseline_right_probability"] < 0.1
    assert summary["provenance"]["dtype"] == "float32"
    assert summary["cell"]["prompt"] == "comma, 3 shots"
    assert summary["cell"]["model"] == f"hf_dir:{llama.name}"
    correlations = pd.read_parquet(plain / "correlations.parquet")
    assert set(correlations["value"]) == {"a", "b", "a+b"}
    assert correlations["r_passed"].isna().all()  # it passes none
    assert (correlations["position"] == "last").any()
    assert correlations["position_index"].max() >= 5  # the map of single positions


def test_require_baseline_makes_it_an_error(monkeypatch, tmp_path, llama):
    line = refused(monkeypatch, tmp_path, llama, "require_baseline=true")
    assert "expected a model that answers the problems, but baseline accuracy 0.000" in line


def test_an_intervention_needs_answers(monkeypatch, tmp_path, llama):
    line = refused(monkeypatch, tmp_path, llama, "intervention=scale")
    assert "got baseline accuracy 0 on 20 problems a+b: no drop can be reported" in line


@pytest.mark.slow
def test_full_passes_give_the_same_tables(monkeypatch, tmp_path, llama, plain):
    summary = run(monkeypatch, tmp_path, llama, "engine=full")
    assert summary["engine"] == "full passes"
    assert summary["store"]["hits"] == 0
    cells = (plain, tmp_path / "run")
    tables = [pd.read_parquet(cell / "correlations.parquet") for cell in cells]
    ours, theirs = (table.drop(columns=["explained_variance_fit", "identity"]) for table in tables)
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-3)


@pytest.mark.slow
def test_numbers_of_several_lengths_have_no_map_and_named_positions_alone(
    monkeypatch, tmp_path, llama
):
    wide = "problems.operands={min:1,max:99}"
    summary = run(monkeypatch, tmp_path, llama, wide, "tracing.positions=a.last")
    assert any(w.startswith("no map of single positions: not all") for w in summary["warnings"])
    for positions in ("all", "a", "operands", "each"):
        line = refused(
            monkeypatch, tmp_path / positions, llama, wide, f"tracing.positions={positions}"
        )
        assert f"positions '{positions}'" in line


@pytest.mark.slow
def test_worded_templates_have_readers(monkeypatch, tmp_path, llama):
    worded = ["template=word_apples", "prompt=qa", "prompt.shots=1"]
    summary = run(monkeypatch, tmp_path, llama, *worded)
    assert summary["cell"]["template"] == "word_apples"
    assert summary["cell"]["prompt"].startswith("qa")


BAD = [
    (["prompt=chat"], "chat"),
    (["prompt.style=sung"], "unknown prompt style 'sung'; expected one of: bare, plain"),
    (["prompt.shots=60"], "40 distinct problems and 60 few-shot examples"),
    (
        ["problems.operands={min:1,max:200}", "prompt.shots=100"],
        "at most 512 tokens for hf_dir",
    ),
    (["tracing.point=resid_middle"], "unknown point 'resid_middle'"),
    (["layers.start=3"], "0 <= start < stop <= 3"),
    (["tracing.positions=c"], "unknown position 'c'"),
    (["model.dtype=int4"], "dtype"),
    (["model.device_map=everywhere"], "device_map"),
    (
        ["model.device_map=auto", "device=cpu"],
        "expected model.device_map or device, got 'auto'",
    ),
    (["model.revision=main"], "expected no model.revision with model.path, got 'main'"),
]


@pytest.mark.parametrize(("overrides", "message"), thinned(BAD, 5))
def test_bad_input_ends_with_one_line(monkeypatch, tmp_path, llama, overrides, message):
    assert message in refused(monkeypatch, tmp_path, llama, *overrides)


def test_phi_has_no_stream_between_attention_and_mlp(monkeypatch, tmp_path):
    directory = tiny_lm("phi", tmp_path / "phi")
    line = refused(monkeypatch, tmp_path, directory, "tracing.point=resid_mid")
    assert "unknown point of hf_dir 'resid_mid'; expected one of: resid_pre, z" in line


@pytest.mark.slow
@pytest.mark.parametrize("device_map", ["auto", "balanced"])
def test_a_device_map_gives_the_same(monkeypatch, tmp_path, llama, plain, device_map):
    mapped = run(monkeypatch, tmp_path, llama, f"model.device_map={device_map}")
    for field in ("baseline_right_probability", "baseline_logit_difference"):
        assert mapped[field] == pytest.approx(summary_of(plain)[field], rel=1e-4)


@pytest.mark.slow
def test_splits_of_unlike_layouts_are_not_mixed(monkeypatch, tmp_path, llama):
    """Both splits together decide whether there are single positions that all prompts share."""
    few_wide = ["problems.operands={min:1,max:10}", "problems.n=40", "problems.seed=3"]
    summary = run(monkeypatch, tmp_path, llama, *few_wide)
    assert any("no map of single positions" in warning for warning in summary["warnings"])
    line = refused(monkeypatch, tmp_path / "each", llama, *few_wide, "tracing.positions=each")
    assert "same positions for positions 'each'" in line


@pytest.mark.slow
def test_locality_of_a_model_that_answers_nothing_leaves_its_tables(monkeypatch, tmp_path, llama):
    asked = ["locality.enabled=true", "locality.n_problems=4", "locality.value_points=3"]
    run(monkeypatch, tmp_path, llama, *asked, "locality.coordinate_points=6")
    assert (tmp_path / "run" / "correlations.parquet").exists()
    assert (tmp_path / "run" / "locality.parquet").exists()


def test_weights_are_verified_and_half_precision_is_said(monkeypatch, tmp_path, llama):
    """A digest that lies is refused; what the cell does without it says all of its summary."""
    monkeypatch.setattr(file_digests, "_known", {})
    monkeypatch.setattr(file_digests, "_verified", set())
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "digests"))
    stamp = file_digests._Stamp.of(llama / "model.safetensors")
    file_digests._keep(stamp.entry, asdict(stamp), "0" * 64)
    asked = ("model.verify=true", "dtype=bfloat16")
    (tmp_path / "lie").mkdir()
    line = refused(monkeypatch, tmp_path / "lie", llama, *asked)
    assert "with the SHA-256 0000000000000000... that is kept of it, got " in line
    stamp.entry.unlink()
    summary = run(monkeypatch, tmp_path, llama, *asked)
    effect, log = summary["batch_effect"], (tmp_path / "run" / "mech_arith.log").read_text()
    assert (effect["dtype"], effect["n"], effect["n_edited"]) == ("bfloat16", 4, 8)
    assert effect["changed"] == effect["changed_edited"] == 0  # it writes no numbers
    assert {"near", "near_edited"} < set(effect)
    assert "in bfloat16 64 rows at a time and single rows" in log
    assert summary["tokenizer"].startswith("one token per digit ('7', '4|2', ")
    assert f"its tokenizer: {summary['tokenizer']}" in log
    # Requests would run through the bar of a download.
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
    assert logging.getLogger("mech_arith").isEnabledFor(logging.INFO)
