"""The benchmark's parts on a model of three layers: what is timed must agree first."""

import importlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.models.language.prompting import Prompting
from mech_arith.problems import draw_with_shots
from mech_arith.problems.templates import build_template
from tests.lms import tiny_lm

SCRIPTS = Path(__file__).parents[1] / "scripts" / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module that stands beside the script, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module
    for path in SCRIPTS.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


def tiny_workload(load: Any, *, first: int | None) -> Any:
    """Edits from a position on; for None, interchanges at the last."""
    workloads = load("workloads")
    with tempfile.TemporaryDirectory() as directory:
        tiny_lm("llama", Path(directory))
        loaded, for_bridge = (workloads.load(Path(directory)) for _ in range(2))
        bridge = TransformerBridge.boot_transformers(
            directory, hf_model=for_bridge.model, tokenizer=for_bridge.tokenizer
        )
    model = PretrainedModel(loaded, Prompting("comma"))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(19, (6, 9), generator=generator)
    tokens[:, :5] = tokens[0, :5]
    where = (loaded.model, workloads.LLAMA, tokens)
    if first is None:
        sites = workloads.interchanges(*where, layers=(0, 2), ranks=(3, 8), n_random=1, n_sources=2)
    else:
        sites = workloads.scaling_edits(
            *where, layers=(0, 2), first=first, n_components=2, n_strengths=3
        )
    return workloads.Workload(
        name="tiny",
        title="a random Llama",
        model=model,
        module=loaded.model,
        bridge=bridge.eval(),
        parts=workloads.LLAMA,
        options={"use_cache": False, "logits_to_keep": 1},
        tokens=tokens,
        prefix=5,
        sites=sites,
        bar=1,
        share_bar=0.5,
    )


@pytest.mark.parametrize("first", [5, 8, None])
@pytest.mark.parametrize("name", ["ForwardHooks", "TransformerLens", "PrefixCached"])
def test_a_peer_gives_the_engines_logits(load: Any, name: str, first: int | None) -> None:
    check_agreement(load, name, first=first)


@pytest.mark.parametrize(("package", "name"), [("pyvene", "Pyvene"), ("nnsight", "NNsight")])
def test_an_optional_peer_gives_the_engines_logits(package: str, name: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[bench]'")
    # In a process of its own: importing nnsight gives every object a method and patches torch.
    program = f"""
import importlib, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from tests.test_benchmarks import check_agreement
for first in (5, 8, None):
    check_agreement(importlib.import_module, {name!r}, first=first)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SCRIPTS.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def tiny_training(load: Any) -> Any:
    template = build_template("sum", "a+b")
    problems, shots = draw_with_shots(
        template, n=20, n_shots=2, ranges={"a": (1, 9), "b": (1, 9)}, seed=0
    )
    with tempfile.TemporaryDirectory() as directory:
        loaded = load("workloads").load(tiny_lm("llama", Path(directory)))
    model = PretrainedModel(loaded, Prompting("comma", shots, None))
    return load("trained").training_of(model, problems, layer=0, rank=3)


def test_steps_of_hooks_are_those_of_the_engine(load: Any) -> None:
    check_training(load, "Hooks")


@pytest.mark.parametrize("kind", ["RotatedSpaceIntervention", "LowRankRotatedSpaceIntervention"])
def test_pyvenes_rotated_interchange_gives_the_same_logits(kind: str) -> None:
    if importlib.util.find_spec("pyvene") is None:
        pytest.skip("pyvene is not installed: pip install -e '.[bench]'")
    program = f"""
import importlib, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from tests.test_benchmarks import check_training
check_training(importlib.import_module, "Pyvene", {kind!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SCRIPTS.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def check_training(load: Any, name: str, *kind: str) -> None:
    """The same logits with the same frame, and a loss that falls by the peer's own steps."""
    trained, work = load("trained"), tiny_training(load)
    peer = getattr(trained, name)(work, *kind)
    compared = trained.compare(work, peer)
    assert compared.logits == 20 * work.n_read * 105
    assert compared.largest_difference < trained.TOLERANCE
    some = torch.arange(20)
    with torch.no_grad():
        clean = work.module(work.bases).logits[:, -work.n_read :]
    frame = torch.eye(work.pairs.width)[:, :3]
    moved = trained.our_logits(work, some, frame) - clean
    assert float(moved.abs().max()) > 1e-3, "an interchange without effect says nothing"
    for one in (peer, trained.Ours(work)):
        losses = [one.step(some) for _ in range(8)]
        assert losses[-1] < losses[0]


@torch.inference_mode()
def check_agreement(load: Any, name: str, *, first: int | None) -> None:
    agreement_module: ModuleType = load("agreement")
    workload = tiny_workload(load, first=first)
    agreement = agreement_module.Agreement(workload)
    load("ours").logits(workload, agreement.fill)
    agreement.check_filled()
    peer = getattr(load("contenders"), name)(workload)
    compared = agreement_module.Compared()
    for site, edit in workload.passes:
        agreement.compare(compared, site, edit, peer.logits(workload.sites[site], edit))
    n_edits = 2 * 6 if first is not None else 2 * 2 * 4
    assert compared.logits == n_edits * 6 * 105
    assert compared.largest_difference < 1e-4
    assert compared.same_top_token == 1
    clean = workload.module(workload.tokens).logits[:, -1]
    changed = (agreement.logits[0] - clean).abs().amax(-1)
    assert bool((changed > 1e-3).any(1).all()), "an edit without effect says nothing"


def test_disagreement_and_gaps_are_noticed(load: Any) -> None:
    agreement_module: ModuleType = load("agreement")
    workload = tiny_workload(load, first=8)
    agreement = agreement_module.Agreement(workload)
    with pytest.raises(RuntimeError, match="got none or NaN for 72"):
        agreement.check_filled()
    load("ours").logits(workload, agreement.fill)
    compared = agreement_module.Compared()
    agreement.compare(compared, 0, 0, agreement.logits[0][0])
    assert compared.largest_difference == 0
    agreement.compare(compared, 0, 0, agreement.logits[0][0] * torch.nan)
    agreement.compare(compared, 0, 0, agreement.logits[0][0])
    assert compared.largest_difference == torch.inf


def test_no_strength_is_without_effect(load: Any) -> None:
    factors = load("workloads").factors_less_one(9)
    assert len(set(factors)) == 9
    assert min(map(abs, factors)) > 0
    assert max(factors) == 3


def test_prompts_are_sums_after_eight_examples(load: Any) -> None:
    prompts = load("workloads").few_shot_sums(n=24, shots=8, seed=0)
    *examples, question = prompts[0].split(", ")
    assert len(set(prompts)) == 24
    assert len(examples) == 8
    for example in examples:
        left, answer = example.split(" = ")
        assert sum(map(int, left.split(" + "))) == int(answer)
    assert question.endswith(" = ")


@pytest.mark.parametrize(("first", "layer", "expected"), [
    # No layer above: the unembedding, 105 x 32.
    (8, 2, 3360),
    # Layers 1 and 2 have 32 x 32 twice, 16 x 32 twice and 48 x 32 three times, 7,680 in all, and
    # attend to nine keys with scores and values of width 32: 2 x (7680 + 2 x 9 x 32) + 3360.
    (8, 0, 19872),
    # Layer 1 at four positions, which see 6 + 7 + 8 + 9 keys; layer 2 has keys and values at four
    # and the rest at one: 4 x 7680 + 2 x 30 x 32 + 4 x 1024 + 6656 + 2 x 9 x 32 + 3360.
    (5, 0, 47328),
])  # fmt: skip
def test_multiply_adds_by_hand(load: Any, first: int, layer: int, expected: int) -> None:
    workload = tiny_workload(load, first=first)
    (edits,) = (edits for edits in workload.sites if edits.layer == layer)
    assert load("bound").work_of_edit(workload, edits).total == expected


def test_multiply_adds_of_an_answer_by_hand(load: Any) -> None:
    """Two fed tokens behind the prompt's end, all three read: as above, at three positions."""
    workload = tiny_workload(load, first=8)
    work = load("bound").work_of_pass(
        list(workload.blocks), workload.unembedding, 0, first=8, end=11, read=3
    )
    assert work.total == 2 * (3 * 7680 + 2 * (9 + 10 + 11) * 32) + 3 * 3360


@pytest.mark.slow
def test_a_cell_by_hooks_gives_the_engines_answers(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = load("cells")
    monkeypatch.setattr(cells, "BOUND_SECONDS", 0.01)
    tiny_lm("llama", tmp_path)
    overrides = ["model=hf_dir", f"model.path={tmp_path}", "prompt=plain", "prompt.shots=2"]
    overrides += ["template=sum_of_two", "tracing=pca_last", "intervention=interchange"]
    overrides += ["problems.n=16", "problems.operands.min=1", "problems.operands.max=80"]
    overrides += ["tracing.n_components=2", "inference.resamples=100", "inference.permutations=100"]
    overrides += ["intervention.controls.random=2", "intervention.sources=2", "layers.stop=1"]
    cell = cells.prepare_cell(tuple(overrides))
    treated = cell.intervene()
    every, hooked = cells.passes(treated), cells.HookedCell(cell)
    differences = cells.Differences()
    for one in every[:6]:
        differences.add(cells.answers_of(treated, one), hooked.edit(treated, one))
    assert differences.answers == sum(len(treated[one[0]].rows) for one in every[:6])
    assert differences.same == differences.answers
    assert differences.log_prob < 1e-4
    clean = cell.baseline.answers.log_prob
    moved = cells.answers_of(treated, every[0]).log_prob - clean[treated[every[0][0]].rows]
    assert float(moved.abs().max()) > 1e-2, "an edit without effect says nothing"
    result = cells.benchmark(cell, rounds=1, seconds=0.01, clock=time.perf_counter)
    assert result.edits == sum(cells.n_moved(treated, one) for one in every)
    assert result.agrees
    assert cells.table(result).row_count == 2
    result.ours[:] = [0.5 * result.bound_edits_per_second]
    assert cells.verdict(result, share_of_a=0.8)[0].startswith("met: 0.50 of the bound")
    assert cells.verdict(result, share_of_a=0.9)[0].startswith("MISSED: 0.50 of the bound")


def test_the_bound_is_work_over_rate(load: Any) -> None:
    workload = tiny_workload(load, first=8)
    bound = load("bound")
    rates = bound.rates_of(workload, load("ours").stacked).measure(seconds=0.01)
    assert set(rates) == {(32, 32), (16, 32), (48, 32), (32, 48), (105, 32)}
    assert min(rates.values()) > 0
    constant = dict.fromkeys(rates, 1e6)
    assert bound.bound_seconds(workload, constant) == pytest.approx(36 * (3360 + 19872) / 1e6)


@pytest.mark.slow
def test_a_small_benchmark_from_end_to_end(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peers, contenders = load("peers"), load("contenders")

    class Missing(contenders.Peer):
        name = "missing"

        def __init__(self, workload: object) -> None:
            raise contenders.Unavailable("no such tool")

        logits = contenders.ForwardHooks.logits

    monkeypatch.setattr(peers, "PEERS", (contenders.ForwardHooks, Missing))
    result = peers.benchmark(tiny_workload(load, first=5), rounds=2, seconds=0.02)
    assert result.edits == 72
    assert result.agrees
    assert len(result.ours.edits_per_second) == 2
    assert result.ratio > 0
    assert peers.table(result).row_count == 3
    lines = peers.verdict(result)
    assert lines[0] == "missing: n/a, no such tool"
    assert sum("asked for" in line for line in lines) == 3


def test_unknown_workload(load: Any) -> None:
    with pytest.raises(ValueError, match="unknown workload 'Z'; expected one of: A, B, C, D, E, F"):
        load("peers").load("Z")


def test_a_model_that_was_not_fetched(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path))
    for name in ("A", "F"):
        with pytest.raises(
            ValueError, match=r"expected SmolLM2-135M in .*fetch_models\.py smollm2_135m`$"
        ):
            load("peers").load(name)


def test_the_arithmetic_of_the_page_on_scale_is_what_its_script_prints(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scale.py"])
    load("scale").main()
    page = (SCRIPTS.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- scale -->\n")[2].partition("<!-- end of scale -->")[0]
    assert shown == capsys.readouterr().out


def test_the_store_of_a_site_is_as_large_as_the_formula_says(load: Any) -> None:
    """The entry of `arith_decoder` that docs/scale.md names: 14 positions of width 128."""
    scale = load("scale")
    assert scale.entry_kb(14 * 128, components=4, values=5) == pytest.approx(109.384, rel=0.001)
    net = scale.Network(80, 8192, 64, 8, 28672, 128256)
    assert net.weights == pytest.approx(70.55e9, rel=0.001)  # as the model's card says
