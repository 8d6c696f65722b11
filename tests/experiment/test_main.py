"""The entrypoint, run in this process: what a run leaves, and how bad input ends."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mech_arith.common.paths import conf_dir
from mech_arith.evidence.results import load_run
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.plan import prepare
from mech_arith.interventions.edits.base import WHOLE_WAY
from tests.running import SMALL, main
from tests.thinned import thinned
from tests.tiny import tiny_decoder

CONF = conf_dir()
GROUPS = ("model", "template", "layers", "tracing", "screen", "intervention", "wandb")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
MODELS = ("arith_decoder", "arith_encoder", "trained", "hf", "hf_dir", "gpt2")
"""One of each kind; the others name a model of the hub, as gpt2 does."""


def composed(*overrides):
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize(
    ("group", "option"),
    thinned(
        OPTIONS, [(group, name) for group, name in OPTIONS if group != "model" or name in MODELS]
    ),
)
def test_every_option_composes_and_validates(group, option, tmp_path):
    extra = ["model.path=/some/where"] if option in ("trained", "hf_dir", "gguf") else []
    extra += ["model.path=some/where"] if option == "hf" else []
    if option == "from_file":
        save_file({"frame": torch.eye(2)}, tmp_path / "frame.safetensors")
        extra = [f"tracing.options.path={tmp_path}/frame.safetensors"]
    config = composed(f"{group}={option}", *extra)
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, RunConfig)
    if group == "template":
        # division and small results need other operands than the paper's
        settings.problems.n = 60
    assert prepare(settings).template.expression.values


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_composes_and_validates(path):
    config = composed(f"+experiment={path.stem}")
    prepared = prepare(OmegaConf.to_object(config))
    n_layers = 6 if config.model.kind == "arithmetic" else 30
    assert prepared.cell(tiny_decoder(n_layers=n_layers)).layers
    assert path.read_text(encoding="utf-8").count("\n#") >= 1  # the question on top


@pytest.mark.parametrize("edit", thinned(["set", "interchange"], ["set"]))
@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_leaves_edits_towards_values_the_whole_way(path, edit):
    """Strengths that suit one edit must not be those of all: the headline would vanish."""
    strengths = composed(f"+experiment={path.stem}", f"intervention={edit}").intervention.strengths
    assert WHOLE_WAY in strengths


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_says_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    assert "# " in text.split("\n\n")[0]


@pytest.mark.slow
def test_expressions_as_the_shell_hands_them_over(monkeypatch, tmp_path):
    overrides = [*SMALL, "layers=late", "template.expression=(a+b)-c,a-(b-c)"]
    assert main(monkeypatch, tmp_path, *overrides, sweep=True) == 0
    cells = [load_run(tmp_path / "run" / job).summary["cell"] for job in ("0", "1")]
    assert [cell["expression"] for cell in cells] == ["a+b-c", "a-(b-c)"]
    assert {cell["template"] for cell in cells} == {"custom"}


def test_expression_from_the_command_line():
    config = composed("template.expression='(a+b)-(c-d)'", "template.name=mine")
    prepared = prepare(OmegaConf.to_object(config))
    assert prepared.template.expression.values == ("a", "b", "c", "d", "a+b", "c-d", "a+b-(c-d)")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        tmp_path = tmp_path_factory.mktemp("finished")
        arguments = [*SMALL, "wandb=offline", "layers=late", "locality.enabled=true"]
        code = main(monkeypatch, tmp_path, *arguments, "locality.n_problems=4")
        assert code == 0
    return tmp_path / "run"


def test_a_run_leaves_what_it_should(finished):
    result = load_run(finished)
    assert set(result.tables) == {
        "problems",
        "correlations",
        "subspaces",
        "effects",
        "contrasts",
        "control_draws",
        "off_distribution",
        "evidence",
        "locality",
        "locality_curves",
    }
    assert set(result.tables["effects"]["layer"]) == {2, 3}
    assert (result.tables["effects"]["status"] == "ok").all()
    positions = set(result.tables["correlations"]["position"])
    assert positions == {"all", *(str(index) for index in range(14))} - {"0", "3", "4"} | {
        position for position in ("0", "3", "4") if position in positions
    }
    figures = list((finished / "figures").iterdir())
    drawn, numbers = ({p.stem for p in figures if p.suffix == end} for end in (".png", ".csv"))
    assert drawn == numbers
    assert 6 <= len(drawn) == len(figures) / 2
    assert (finished / "mech_arith.log").is_file()
    assert len(list((finished / "wandb").glob("offline-run-*"))) == 1


def test_the_summary_says_what_made_it(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["cell"]["model"] == "arith_decoder"
    assert summary["cell"]["expression"] == "a-(b-c)"
    assert len(summary["provenance"]["weights_digest"]) == 64
    assert summary["provenance"]["versions"]["torch"].startswith("2.")
    assert set(summary["best"]) == {"a", "b", "c", "b-c", "a-(b-c)"}
    assert summary["n_fit"] == summary["n_report"] == 30
    assert summary["n_searched"] == 8
    assert 0 <= summary["largest_drop"]["b-c"]["control_drop"] <= 1
    assert OmegaConf.load(finished / "config.yaml").problems.n == 60


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(finished, monkeypatch, tmp_path):
    assert main(monkeypatch, tmp_path, *SMALL, "layers=late") == 0
    for name in ("correlations", "effects"):
        # Another cell, as that one has a locality test too.
        again, before = (
            load_run(path).tables[name].drop(columns="identity")
            for path in (tmp_path / "run", finished)
        )
        pd.testing.assert_frame_equal(again, before)


@pytest.mark.slow
def test_tracing_alone(monkeypatch, tmp_path):
    assert main(monkeypatch, tmp_path, *SMALL, "intervention=none", "layers=late") == 0
    result = load_run(tmp_path / "run")
    assert result.tables["effects"].empty
    assert result.summary["largest_drop"] == {}


@pytest.mark.slow
def test_a_run_without_controls_is_whole(monkeypatch, tmp_path):
    none = [f"intervention.controls.{kind}=0" for kind in ("random", "span", "valueless")]
    none += [f"intervention.controls.{kind}=false" for kind in ("other", "shuffled")]
    kept = [one for one in SMALL if "controls" not in one]
    assert main(monkeypatch, tmp_path, *kept, *none, "layers=late") == 0
    log = (tmp_path / "run" / "mech_arith.log").read_text(encoding="utf-8")
    assert "could not be drawn" not in log
    assert {"evidence.png", "accuracy_by_layer.png"} <= {
        path.name for path in (tmp_path / "run" / "figures").iterdir()
    }
    result = load_run(tmp_path / "run")
    assert result.tables["contrasts"].empty
    assert set(result.tables["evidence"]["untold"]) == {"no control directions were drawn"}


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_bad_cell_and_says_so(monkeypatch, tmp_path, capsys):
    code = main(monkeypatch, tmp_path, *SMALL, "layers.start=0,9", "layers.stop=1", sweep=True)
    assert code == 1
    assert load_run(tmp_path / "run" / "0").summary["best"]
    assert not (tmp_path / "run" / "1" / "summary.json").exists()
    error = (tmp_path / "run" / "1" / "error.txt").read_text(encoding="utf-8")
    assert error.startswith("expected layers 0 <= start < stop <= 4")
    printed = capsys.readouterr().out
    assert "arith_decoder" in printed
    assert "failed" in printed


BAD = {
    "template.expression=\"__import__('os')\"": "a single letter a to z at character 1, got '__imp",
    "template.expression='a-(b'": r"expression 'a-\(b'",
    "template.expression='1//0'": "divisor that can differ from 0, got '0'",
    "template.expression=__import__('os')": "a single letter a to z at character 1, got '__imp",
    "template.expression=a-(b": r"expression 'a-\(b'",
    f"template.expression='{'(' * 900}a{')' * 900}'": r"at most \d+ ",
    f"template.expression='a+{'9' * 300}'": "digits",
    "problems.constraints=['b > 10000']": "10000",
    "problems.constraints=['d > 1']": "unknown operand of constraint .* expected one of: a, b, c",
    "problems.n=0": "problems.n=0",
    "problems.n=1": "problems.n=1",
    "problems.n=12": "at least 10 problems to fit 10 components",
    "problems.operands={min:5,max:1}": "5.*1",
    "problems.operands={min:1,max:3}": "27",
    "+problems.operands.z={min:1,max:9}": "'z'.*a, b, c",
    "problems.operands={mn:1,max:2}": "unknown key 'problems.operands.mn'; nearest: problems.op",
    "template={expresion:a+b}": "unknown key 'template.expresion'; nearest: template.expression",
    "+problems.m=3": "unknown key 'problems.m'; leave it out",
    "+colour=red": "unknown key 'colour'; leave it out",
    "problems.fit_share=1": "fit_share above 0 and below 1, got 1.0",
    "problems.fit_share=1.5": "fit_share above 0 and below 1, got 1.5",
    "layers=-1": "layers as numbers from 0 to 9999, got '-1'",
    "layers=null": "unknown layers 'null'; expected one of: all, centre, early, late, middle",
    "layers.start=3 & layers.stop=3": "0 <= start < stop <= 4",
    "layers.start=3 & layers.stop=1": "0 <= start < stop <= 4",
    "layers.stop=40": "<= 4 .the model's.*stop 40",
    "layers.list=[1,4]": r"layers\.list of distinct layers from 0 to 3 .the model's., got .1, 4.",
    "layers.part=top": "unknown layers.part 'top'; expected one of: all, early, middle, late, c",
    "tracing.point=resid": "unknown point 'resid'; expected one of: resid_pre, z, attn_out",
    "tracing.positions=b+c": "unknown position 'b.c'; expected one of: each, all, first, last",
    "tracing.method=umap": "unknown tracing method 'umap'; expected one of: das, ",
    "tracing.rank=0": r"tracing\.rank of 1 or more, a list of such, or null, got 0; change it",
    "tracing.rank=-1": r"tracing\.rank of 1 or more, .* got -1; change it",
    "tracing.rank=x": r"tracing\.rank of 1 or more, .* got 'x'; change it",
    "tracing.rank=[]": r"tracing\.rank of 1 or more, .* got \[\]; change it",
    "tracing.rank=[1,2.5]": r"tracing\.rank of 1 or more, .* got \[1, 2\.5\]; change it",
    "tracing.rank=[1,1000]": r"tracing\.rank up to \d+, one less than the \d+ problems of the fit",
    "tracing.rank=2 & intervention.components=[0]": r"components=best with tracing\.rank",
    "tracing.rank=200 & problems.n=600 & tracing.positions=last": r"rank up to 128, the numbers of",
    "tracing.n_components=0": "tracing.n_components >= 1, got 0",
    "intervention.edit=twist": "unknown edit 'twist'; expected one of: ablate, interchange, ",
    "intervention.via=weight": "unknown intervention.via 'weight'",
    "intervention.values=[d]": "unknown value 'd'; expected one of: a, b, c, b-c",
    "intervention.strengths=[]": "at least one strength, got none",
    "intervention.strengths=[nan]": "finite intervention.strengths, got .nan.",
    "intervention.strengths=[inf,1]": "finite intervention.strengths, got .inf.",
    "intervention.strengths=[1,1]": "distinct intervention.strengths",
    "intervention.save_model=": "expected a directory in intervention.save_model, got ''; set",
    "intervention.components=[40]": "'best', 'all' or a list of 0..9",
    "intervention.components=worst": "'best', 'all' or a list of 0..9",
    "intervention=shift & intervention.centre=false": "only scale has an uncentred variant",
    "intervention.n_problems=0": "intervention.n_problems >= 2 or null, got 0",
    "intervention.controls.random=-1": "controls.random from 0 to 1000, got -1",
    "intervention.controls.span=1001": "controls.span from 0 to 1000, got 1001",
    "intervention.controls.stop_after=0": "stop_after null or a whole number of 1 or more, got 0",
    "intervention.controls.stop_after=-1": "stop_after null or a whole number of 1 or more, got -1",
    "intervention.controls.stop_after=2.5": "null or a whole number of 1 or more, got 2.5; set for",
    "intervention.controls.stop_after=10": "more than 20 directions of a kind .* got random=20, sp",
    "intervention.controls={random:0,span:0,valueless:0,stop_after:10}": "20 .* got random=0, span",
    "intervention.controls={random:99,stop_after:100}": "stop_after up to .*random=99, got 100: so",
    "intervention.controls={random:100001,stop_after:9}": "random from 0 to 100000, got 100001",
    "intervention.controls={random:99,stop_after:9} & intervention.via=weights": "stop_after=null",
    "intervention=set & intervention.sources=0": "intervention.sources from 1 to 1000, got 0",
    "intervention=interchange & intervention.centre=false": "only scale has an uncentred variant",
    "inference.level=1": "inference.level above 0 and below 1, got 1",
    "inference.resamples=10": "inference.resamples from 100 to 1000000, got 10",
    "inference.permutations=0": "inference.permutations from 100 to 1000000, got 0",
    "batch_size=none": "batch_size 'auto' or >= 1, got 'none'",
    "threads=0": "threads from 1 to 1024 or null, got 0",
    "threads=100000000": "threads from 1 to 1024 or null, got 100000000",
    "~nothing": "unknown key 'nothing'",
    "=60": "unknown key ''",
    "locality.enabled=true & tracing.positions=each": "one site per layer",
    "device=cuda": "expected a CUDA device, found none",
    "model.name=gpt5": "unknown model 'gpt5'; expected one of: arith_decoder, arith_encoder, "
    "modular_addition",
    "model=null": "unknown model 'null'; nearest of",
    "model=hf_dir & model.path=' '": "expected a directory in model.path, got ' '; set",
    "model=trained": "expected model.path, the directory of a model",
    "store.path=": "expected a directory in store.path, got ''; set store.path=DIR",
    "tolerance=-1": "tolerance >= 0 or null, got -1",
    "wandb.project=''": "expected a W&B project, got an empty name",
    "locality.enabled=true & locality.value_points=2": "value_points from 3 to 1000, got 2",
    "locality.enabled=true & locality.coordinate_points=1000000000": "from 6 to 1000, got 1000000",
    "locality.enabled=true & locality.coordinate_span=0": "coordinate_span above 0, got 0",
    "model=trained & model.path=/nowhere": "expected a model in /nowhere",
    "model=hf_dir": "expected model.path, the directory of a Hugging Face causal LM",
    "model=hf_dir & model.path=/nowhere": "directory at /nowhere, found none; set model.path=DIR",
    "model=gguf": "expected model.path, a GGUF file, got none; set model.path=FILE.gguf",
    "model=gguf & model.path=/nowhere.gguf": "expected a GGUF file at /nowhere.gguf, found none",
    "model=gguf & model.path=/": "expected a GGUF file at /, found a directory; set model.path=FI",
    "model=hf": "expected model.path with model=hf, got none; set model.path=ORG/NAME.DIR.FI",
    "model=hf & model.path=/nowhere": "got '/nowhere', which is none of them; give a name on",
    "model=gpt2": "model.path=DIR .*HF_HUB_OFFLINE=0",
    "model.kind=oracle": "model.kind 'oracle'; expected one of: arithmetic, gguf, hf, language_mo",
    "prompt=chat": "expected no prompt.style for arith_decoder, .* got 'chat'",
    "prompt.shots=-1": "expected prompt.shots from 0 to 1000, got -1",
    "prompt.system=hello": "expected no prompt.system for arith_decoder, .* got 'hello'",
    "dtype=bfloat16": "expected no dtype for arith_decoder, .* got 'bfloat16'",
    "template=word_apples": "symbolic template for arith_decoder",
    "template=balanced_four": "at most 14 tokens for arith_decoder",
    "template=product_of_two": "got '.'",
}


NEED_THE_MODEL = {
    "layers.start=3 & layers.stop=3",
    "layers.start=3 & layers.stop=1",
    "layers.stop=40",
    "layers.list=[1,4]",
    "tracing.positions=b+c",
    "tracing.rank=200 & problems.n=600 & tracing.positions=last",
    "device=cuda",
    "model.name=gpt5",
    "model=trained & model.path=/nowhere",
    "model=hf_dir & model.path=/nowhere",
    "model=gguf & model.path=/nowhere.gguf",
    "model=gguf & model.path=/",
    "model=gpt2",
    "template=word_apples",
    "template=balanced_four",
    "template=product_of_two",
}
"""The others are refused by their names and numbers, before a directory is made."""


@pytest.mark.parametrize("arguments", thinned(BAD, 22))
def test_bad_input_ends_with_one_line(monkeypatch, tmp_path, capsys, arguments):
    if arguments == "device=cuda":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(monkeypatch, tmp_path, *arguments.split(" & ")) == 1
    assert (tmp_path / "run").exists() == (arguments in NEED_THE_MODEL)
    if arguments in NEED_THE_MODEL:
        line = (tmp_path / "run" / "error.txt").read_text(encoding="utf-8")
        left = {path.name for path in (tmp_path / "run").iterdir()}
        assert left <= {".hydra", ".running.lock", "cell.json", "error.txt", "mech_arith.log"}
    else:
        line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert len(line) < 700
    assert re.search(BAD[arguments], line), line


@pytest.mark.slow
def test_operands_beyond_the_training_are_warned_of(monkeypatch, tmp_path):
    beyond = ["template=difference_of_two", "problems.operands={min:0,max:99}", "layers=late"]
    assert main(monkeypatch, tmp_path, *SMALL, *beyond, "intervention=none") == 0
    warnings = load_run(tmp_path / "run").summary["warnings"]
    assert any("go beyond the 1..999 that arith_decoder was trained on" in w for w in warnings)
    log = (tmp_path / "run" / "mech_arith.log").read_text(encoding="utf-8")
    assert log.index("go beyond") < log.index("arith_decoder answers")


def test_an_output_directory_that_cannot_be_made(monkeypatch, tmp_path, capsys):
    (tmp_path / "run").write_text("a file stands where the directory should", encoding="utf-8")
    for sweep in (False, True):
        assert main(monkeypatch, tmp_path, *SMALL, sweep=sweep) == 1
        shown = capsys.readouterr().err
        assert "expected an output directory that can be written" in shown
        assert "Traceback" not in shown
    assert (tmp_path / "run").read_text(encoding="utf-8").startswith("a file")


def test_results_are_never_overwritten(finished, monkeypatch, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    assert main(monkeypatch, tmp_path, *SMALL, "layers=early") == 1
    assert "expected a directory without results" in capsys.readouterr().err
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    assert main(monkeypatch, tmp_path, *SMALL, "layers=early", sweep=True) == 1


@pytest.mark.slow
def test_a_run_that_wandb_fails_keeps_its_results(monkeypatch, tmp_path):
    from mech_arith.reports import wandb as tracking

    def fails(*_args, **_kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(tracking.Run, "start", fails)
    asked = [*SMALL, "layers=late", "intervention=none", "wandb=offline"]
    assert main(monkeypatch, tmp_path, *asked) == 0
    assert load_run(tmp_path / "run").summary["best"]
    log = (tmp_path / "run" / "mech_arith.log").read_text(encoding="utf-8")
    assert "W&B failed, the results are on disk all the same: OSError('no space left')" in log


@pytest.mark.parametrize("path", sorted((CONF / "train").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_training_composes_and_validates(path):
    from mech_arith.models.arithmetic.objectives import TrainSettings
    from mech_arith.models.arithmetic.training import _check

    ConfigStore.instance().store(name="train_schema", node=TrainSettings)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"+train={path.stem}"])
    settings = OmegaConf.to_object(config)
    assert settings.model == path.stem
    _check(settings)
