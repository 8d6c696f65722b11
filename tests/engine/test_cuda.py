"""The same numbers on a GPU as on the CPU. Skipped where there is no GPU."""

from typing import Any

import pytest
import torch

from mech_arith.engine.batching import Batching
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.run import ReferenceAnswers, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.results import load_run
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.language.loading import load_pretrained
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm
from tests.models.test_pretrained import FourTokens
from tests.running import SMALL, main
from tests.tiny import random_edits

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that torch can use"
)

DEVICES = ("cpu", "cuda")
ARITHMETIC = ("arith_decoder", "arith_encoder")
MODELS = (*ARITHMETIC, "tiny_llama")
TINY_LLAMA = ("model=hf_dir", "template=difference_of_two", "tracing=pca_last", "prompt.shots=3")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_lm("llama", tmp_path_factory.mktemp("llama"))


def drawn(name):
    """Problems that the model reads, and its examples."""
    is_arithmetic = name in ARITHMETIC
    template = build_template("t", "a-(b-c)" if is_arithmetic else "a-b")
    low, high = (100, 999) if is_arithmetic else (1, 99)
    ranges = dict.fromkeys(template.expression.operands, (low, high))
    return draw_with_shots(template, n=20, n_shots=3, ranges=ranges, seed=0)


def model_on(device, name, directory):
    if name in ARITHMETIC:
        return load_arithmetic(name, device=device)
    loaded = load_pretrained(
        name,
        path=directory,
        hub=None,
        revision=None,
        dtype="float32",
        device=device,
        device_map=None,
    )
    model = PretrainedModel(loaded, Prompting("comma", drawn(name)[1], None))
    reader: Any = FourTokens()  # random weights write no numbers: read whatever they write
    model.reader = reader
    return model


def assert_close(ours, theirs, *, atol=1e-3):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-3, equal_nan=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_cell_on_a_gpu_is_one_on_the_cpu(monkeypatch, tmp_path, tiny, name):
    options = (
        (f"model={name}",)
        if name in ARITHMETIC
        # Random weights answer nothing right, so that there is no drop to report.
        else (*TINY_LLAMA, f"model.path={tiny}", "intervention=none")
    )
    runs = []
    for device in DEVICES:
        overrides = (*SMALL, "layers=late", *options, f"device={device}")
        assert main(monkeypatch, tmp_path / str(len(runs)), *overrides) == 0
        runs.append(load_run(tmp_path / str(len(runs)) / "run"))
    cpu, gpu = runs
    assert gpu.summary["provenance"]["device"].startswith(DEVICES[1])
    assert gpu.summary["engine"] == "resumed"
    assert gpu.summary["engine_difference"] < 1e-3
    keys = ["layer", "position", "component", "value"]
    tables = [run.tables["correlations"].set_index(keys) for run in runs]
    assert tables[0].index.equals(tables[1].index)
    for column in ("abs_r", "r_fit", "explained_variance"):
        pair = [torch.tensor(table[column].abs().to_numpy()) for table in tables]
        assert_close(*pair)
    assert cpu.summary["baseline_accuracy"] == gpu.summary["baseline_accuracy"]
    if name in ARITHMETIC:
        one_problem = 1 / cpu.summary["n_edited"] + 1e-9  # a tie may fall to the other side
        drops = [torch.tensor(run.tables["effects"]["accuracy_drop"].to_numpy()) for run in runs]
        torch.testing.assert_close(*drops, atol=one_problem, rtol=0)
        sure = [run.tables["effects"]["edited_right_probability"].to_numpy() for run in runs]
        assert_close(*map(torch.tensor, sure))


@pytest.mark.parametrize("name", MODELS)
def test_edited_answers_on_a_gpu_are_those_on_the_cpu(tiny, name):
    """At every point, with tokens that rows write of their own."""
    problems, _ = drawn(name)
    models = [model_on(device, name, tiny) for device in DEVICES]
    baselines = [
        run_baseline(
            Session(model, Batching(8)),
            model.encode(problems),
            ReferenceAnswers.of_problems(problems),
        )
        for model in models
    ]
    changed = []
    for point in models[0].points:
        asked = random_edits(
            models[0],
            baselines[0].prompts,
            Site(1, point, "last"),
            size=30,
            n_edits=3,
            seed=0,
        )
        cpu, gpu = (
            edited_answers(Session(model, Batching(8)), baseline, asked)
            for model, baseline in zip(models, baselines, strict=True)
        )
        changed += (cpu.numbers != baselines[0].answers.numbers).flatten().tolist()
        assert gpu.numbers.device.type == "cpu"
        for field in ("log_prob", "logit_difference"):
            assert_close(getattr(cpu, field), getattr(gpu, field))
        if models[0].regresses:
            assert_close(cpu.numbers, gpu.numbers, atol=0.1)
        else:
            # Where two tokens are equally likely, either may be written.
            same = cpu.numbers.nan_to_num(-1) == gpu.numbers.nan_to_num(-1)
            assert same.double().mean() > 0.95
    assert any(changed)


@pytest.mark.parametrize("name", MODELS)
def test_the_fast_path_is_the_full_pass_on_a_gpu(tiny, name):
    model = model_on(DEVICES[1], name, tiny)
    prompts = model.encode(drawn(name)[0])
    for layer in range(model.n_layers):
        sites = [Site(layer, point, "last") for point in model.points]
        for start in range(0, len(sites), 3):
            difference = check_fast_path(model, prompts, sites[start : start + 3])
            assert difference is not None  # as it would be if every pass were a full one
            assert difference < 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_its_check_on_a_gpu(tiny, dtype):
    loaded = load_pretrained(
        "tiny_llama",
        path=tiny,
        hub=None,
        revision=None,
        dtype=dtype,
        device=DEVICES[1],
        device_map=None,
    )
    problems, shots = drawn("tiny_llama")
    model = PretrainedModel(loaded, Prompting("comma", shots, None))
    sites = [Site(layer, "resid_post", "last") for layer in range(model.n_layers)]
    # It raises if they disagree by more than the precision makes likely.
    assert check_fast_path(model, model.encode(problems), sites) is not None
