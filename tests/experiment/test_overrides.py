"""Text stays the text that was typed, layers go by number, and refusals take one line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mech_arith.common.errors import UserError
from mech_arith.common.paths import conf_dir
from mech_arith.common.runs.records import read_record
from mech_arith.common.runs.sweeps import read_plan
from mech_arith.evidence.results import load_run
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.overrides import (
    Kind,
    as_typed,
    check_files,
    check_grammar,
    in_shell,
    kind_of,
    quoted,
)
from mech_arith.experiment.refusals import one_line_errors
from mech_arith.models.arithmetic.objectives import TrainSettings
from tests.running import SMALL, exit_code, main
from tests.thinned import thinned


def read(argument: str) -> object:
    """What Hydra reads of an argument after it was made ready."""
    return OverridesParser.create().parse_override(as_typed(argument)).value()


@pytest.mark.parametrize(
    "text",
    [
        "695e0514",
        "2026_10",
        "1_000",
        "007",
        "1e5",
        "0x1F",
        "true",
        "inf",
        "nan",
        "1.50",
        "+1",
        ".5",
    ],
)
@pytest.mark.parametrize(
    "key",
    [
        "model.revision",
        "model.path",
        "model.name",
        "prompt.system",
        "template.name",
        "template.wording",
        "wandb.group",
        "wandb.project",
        "wandb.entity",
        "store.path",
        "intervention.save_model",
        "tracing.positions",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "hydra.job.name",
        "hydra.launcher.partition",
        "hydra.launcher.account",
        "hydra.launcher.name",
        "hydra.job.env_set.NAME",
        "+experiment",
    ],
)
def test_text_is_read_as_it_was_typed(key, text):
    assert read(f"{key}={text}") == text


def test_text_of_a_training_is_read_as_it_was_typed():
    for key in ("directory", "model", "pretrained"):
        argument = as_typed(f"{key}=2026_10", TrainSettings)
        assert OverridesParser.create().parse_override(argument).value() == "2026_10"


def test_every_key_of_text_is_known_as_one():
    config = OmegaConf.to_container(OmegaConf.structured(RunConfig), enum_to_str=True)
    assert isinstance(config, dict)
    text = {
        f"{section}.{key}"
        for section, entries in config.items()
        if isinstance(entries, dict)
        for key, value in entries.items()
        if isinstance(value, str)
    }
    text -= {"wandb.mode", "screen.method", "screen.metric"}  # choices
    text -= {"intervention.components"}  # a word or a list
    assert {key for key in text if kind_of(key, RunConfig) is not Kind.TEXT} == set()
    lists = ("wandb.tags", "problems.constraints", "intervention.values", "hydra.launcher.setup")
    assert {kind_of(key, RunConfig) for key in lists} == {Kind.TEXTS}


@given(st.text("0123456789_eE.+-xinfatrueNULL:/ ", min_size=1).filter(lambda t: t == t.strip()))
def test_whatever_looks_like_a_number_stays_text(text):
    assert read(f"wandb.group={text}") == (None if text == "null" else text)


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1))
def test_quotes_of_hydras_grammar_keep_any_text(text):
    assert read(f"wandb.group={quoted(text)}") == text


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("wandb.tags=[1e5,007]", ["1e5", "007"]),
        ("wandb.tags=[]", []),
        ("wandb.tags=['a, b',2026_10]", ["a, b", "2026_10"]),
        ("problems.constraints=[b>c]", ["b>c"]),
        ("problems.constraints=[a-(b-c) >= 0, b>c]", ["a-(b-c) >= 0", "b>c"]),
        ("intervention.values=[a-(b-c)]", ["a-(b-c)"]),
        ("template.wording=何{expression}", "何{expression}"),
        ("template.wording=What's {expression}?", "What's {expression}?"),
        ("wandb.group='tis", "'tis"),
        ("wandb.group=null", None),
        ("wandb.group='null'", "null"),
        (r"wandb.group=a\,b", "a,b"),
        ("wandb.group=${problems.seed}", "${problems.seed}"),
        ("hydra.launcher.additional_parameters.reservation=1e5", "1e5"),
        ("hydra.launcher.additional_parameters.requeue=true", True),
        ("problems.n=1_000", 1000),
        ("intervention.components=[1,2]", [1, 2]),
    ],
)
def test_lists_quotes_and_numbers(argument, expected):
    assert read(argument) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("template.expression=(a+b)-(c-d)", ["(a+b)-(c-d)"]),
        ("template.expression=a-b,max(a,b)", ["a-b", "max(a,b)"]),
        ("template.expression=choice(a-b,max(a,b))", ["a-b", "max(a,b)"]),
        ("wandb.group=x,1e5,'p, q'", ["x", "1e5", "p, q"]),
        ("wandb.tags=[1e5],[a,b]", [["1e5"], ["a", "b"]]),
        ("layers=0-2,[3,5]", [[0, 1, 2], [3, 5]]),
        ("tracing.positions=range(0,3)", [0, 1, 2]),
    ],
)
def test_commas_outside_brackets_separate_choices(argument, expected):
    override = OverridesParser.create().parse_override(as_typed(argument))
    if not override.is_sweep_override():
        assert [override.value()] == expected
        return
    parser = OverridesParser.create()
    texts = [f"key={choice}" for choice in override.sweep_string_iterator()]
    assert [parser.parse_override(text).value() for text in texts] == expected


def test_what_is_made_ready_twice_stays_as_it_is():
    for argument in ("wandb.tags=[1e5,007]", "template.expression=max(a,b)", "layers=0-2", "-m"):
        assert as_typed(as_typed(argument)) == as_typed(argument)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("layers=3", "layers.list=[3]"),
        ("layers=0-3", "layers.list=[0,1,2,3]"),
        ("layers=[1,3]", "layers.list=[1,3]"),
        ("layers.list=[0-2, 5]", "layers.list=[0,1,2,5]"),
        ("layers=early,late", "layers=early,late"),
    ],
)
def test_layers_by_number(argument, expected):
    assert as_typed(argument) == expected


BAD_LAYERS = ["5-2", "[a]", "[]", "early,3", "-1", "1.5", "0-", "0-999999999999", "[0-10000]"]


@pytest.mark.parametrize("layers", BAD_LAYERS)
def test_bad_layers_say_how(layers):
    with pytest.raises(UserError, match="layers=0-"):
        as_typed(f"layers={layers}")


@pytest.mark.parametrize("argument", ["model=null", "layers=null", "+experiment=null", "wandb=3"])
def test_an_option_is_a_name(argument):
    """Hydra ends with a traceback where a group's choice is no text."""
    key, _, value = argument.partition("=")
    assert as_typed(argument) == f"{key}='{value}'"


def test_keys_that_may_be_null_stay_so():
    assert as_typed("model.path=null") == "model.path=null"


@pytest.mark.parametrize(
    ("argument", "better"),
    [
        ("problems.constraints=b>c", "\"problems.constraints=['b>c']\""),
        ("problems.n=[b>c]", "a number, true, false, null"),
    ],
)
def test_what_cannot_be_read_says_what_can(argument, better):
    with pytest.raises(UserError) as caught:
        check_grammar([as_typed(argument)])
    assert better in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quotes_of_the_shell():
    assert in_shell("wandb.group='a, b'") == "\"wandb.group='a, b'\""
    assert (
        subprocess.run(
            ["sh", "-c", f"printf %s {in_shell('a=$HOME')}"], capture_output=True, text=True
        ).stdout
        == "a=$HOME"
    )


def test_texts_in_configs_are_no_numbers(tmp_path):
    """YAML reads an unquoted 695e0514 as a number; a revision of hexadecimal digits may be one."""
    check_files(conf_dir())
    for path, text, key in (
        ("model/mine.yaml", "name: mine\nrevision: 695e0514\n", "model.revision"),
        ("experiment/mine.yaml", "# @package _global_\nwandb:\n  tags: [a, 007]\n", "wandb.tags"),
        (
            "experiment/mine.yaml",
            "# @package _global_\nhydra:\n  sweeper:\n    params:\n      wandb.group: 2026_10\n",
            "hydra.sweeper.params.wandb.group",
        ),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=f"expected text for {key} in .* put it in quotes"):
            check_files(tmp_path)
        (tmp_path / path).unlink()


HEAVY = ("torch", "transformer_lens", "transformers", "sklearn", "wandb", "matplotlib")

MISTYPED = {
    "problems.n=0": "problems.n=0",
    "-m --cfg job layers=early,late": "expected -m or --cfg, got both; leave -m out, for --cfg",
    "problems.m=3": "unknown key 'problems.m'; nearest: problems.n",
    "tracing.seed=3": "an option of the method is tracing.options.seed; ",
    "tracing.option.seed=3": "an option of the method is tracing.options.seed; ",
    "problem.n=3": "unknown key 'problem.n'; nearest: problems.n",
    "problems.n=many": "expected a value that fits, got problems.n=many (Value 'many'",
    "model=no_such_model": "unknown model 'no_such_model'; nearest of ",
    "model=gpt3": "gpt2",
    "template=sum_of_tow": "sum_of_two",
    "hydra/launcher=slrum": "unknown hydra/launcher 'slrum'; expected one of: basic, ",
    "+experiment=papr": "paper",
    "+experiment=papers/zhu": "papers/zhu_2024",
    "+experiment=zhu_2024": "papers/zhu_2024",
    "+model=gpt2": "leave out the + before model=",
    "engine=slow": "expected one of [auto, full]",
    "wandb.mode=maybe": "expected one of [online, offline, disabled]",
    "prompt=nicely": "expected one of: bare, chat, comma",
    "layers=early,late": "add -m to run a sweep",
    "template.expression=choice(a,b)": "add -m to run it",
    "problems.seed=range(1,3)": "add -m to run it",
    "intervention.edit=twist": "unknown edit 'twist'",
    "problems.constraints=[d>1]": "unknown operand of constraint",
    "problems.operands={min:1,max:3}": "27 possible",
    "nonsense": "expected key=value, got 'nonsense'",
    "layers=1 --config-dri conf": "unknown flag '--config-dri'; nearest of 24: --config-dir",
    "layers=1 --config-dir": "expected a value after --config-dir, got none; write --config-dir=",
    "--help --halp": "unknown flag '--halp'; nearest of 24: --help",
    "-m template=glob(zzz*)": "at least one choice, got none by template=glob(zzz*)",
    "-m problems.seed=range(3,3)": "at least one choice, got none by problems.seed=range(3,3)",
    "-m layers=early,top": "unknown layers 'top'; expected one of: all, centre, early, late, mi",
    "problems.n=40 -m layers=early,top": "unknown layers 'top'",  # overrides on both sides of -m
    "-m problems.n=0,1": "problems.n=0",
    "-m layers=early,late sweep.together=[layers,model]": "got 'model', which is not",
    "-m layers=early,late problems.n=1,2,3 sweep.together=[layers,problems.n]": "2 of layers, 3 of",
}

PROGRAM = f"""
import json, os, sys
from pathlib import Path
import hydra.main
from mech_arith import __main__ as entry

for number, arguments in enumerate(json.load(sys.stdin)):
    place = Path(str(number), "empty").resolve()
    place.mkdir(parents=True)
    if not (child := os.fork()):
        os.chdir(place)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(f"../{{name}}", os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv[1:] = arguments
        try:
            entry.main()
        finally:
            print([name for name in {HEAVY} if name in sys.modules])
    Path(str(number), "code").write_text(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""
"""Runs command lines, each in a directory and a process of its own, forked from a light one."""


@pytest.fixture(scope="module")
def mistyped(tmp_path_factory, request):
    """Each command line's directory; the empty one below it was the working directory."""
    place = tmp_path_factory.mktemp("mistyped")
    asked = [
        item.callspec.params["arguments"]
        for item in request.session.items
        if "mistyped" in item.fixturenames
    ]
    lines = [arguments.split(" ") for arguments in asked]
    program = [sys.executable, "-c", PROGRAM]
    subprocess.run(program, cwd=place, input=json.dumps(lines), text=True, check=True)
    return {arguments: place / str(number) for number, arguments in enumerate(asked)}


@pytest.mark.parametrize("arguments", thinned(MISTYPED, 10))
def test_a_mistyped_command_line_costs_nothing(mistyped, arguments):
    """One line, an exit code, nothing heavy imported, and no directory."""
    place = mistyped[arguments]
    said = (place / "stderr").read_text(encoding="utf-8")
    assert (place / "code").read_text() == "1"
    assert said.count("\n") == 1, said
    assert said.startswith("error: ")
    assert MISTYPED[arguments] in said
    assert (place / "stdout").read_text(encoding="utf-8") == "[]\n"
    assert list((place / "empty").iterdir()) == []


def test_what_does_not_resolve_is_no_traceback():
    unresolved = OmegaConf.create({"a": "${nothing}"})
    expected = pytest.raises(UserError, match="config that resolves, got: Interpolation key 'noth")
    with expected, one_line_errors():
        OmegaConf.to_container(unresolved, resolve=True)


def test_hydras_own_errors_are_shown_whole_if_asked_for(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(HydraException, match="missing EQUAL"), one_line_errors():
        OverridesParser.create().parse_overrides(["nonsense"])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


QUICK = (*SMALL, "intervention=none", "tracing.position_map=false")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of texts that look like numbers, of which one cell is then run anew."""
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as monkeypatch:
        texts = ["wandb.group=2026_10,695e0514", "wandb.tags=[1e5,007]", "wandb.project=1_000"]
        layers = ["layers=[1,3],0-1", "sweep.together=[wandb.group,layers]"]
        assert main(monkeypatch, place, *QUICK, *texts, *layers, sweep=True) == 0
        shutil.rmtree(place / "run" / "1")
        monkeypatch.setattr(sys, "argv", ["mech_arith", f"sweep.resume={place}/run"])
        assert exit_code() == 0
    return place / "run"


@pytest.mark.slow
def test_texts_and_layers_of_a_sweep(swept):
    configs = [OmegaConf.load(swept / cell / "config.yaml") for cell in ("0", "1")]
    assert [config.wandb.group for config in configs] == ["2026_10", "695e0514"]
    assert [config.wandb.project for config in configs] == ["1_000", "1_000"]
    assert [list(config.wandb.tags) for config in configs] == [["1e5", "007"]] * 2
    cells = [load_run(swept / cell) for cell in ("0", "1")]
    assert [cell.summary["cell"]["layers"] for cell in cells] == ["1, 3", "0-1"]
    record = read_record(swept / "0")
    assert record is not None
    assert record.cell["layers"] == "1, 3"  # by which a killed cell would be named
    layers = [sorted(set(cell.tables["correlations"]["layer"])) for cell in cells]
    assert layers == [[1, 3], [0, 1]]


@pytest.mark.slow
def test_keys_that_move_together_make_one_cell_for_each_pair(swept):
    assert sorted(path.parent.name for path in swept.glob("*/summary.json")) == ["0", "1"]
    groups = {
        cell.directory: [o for o in cell.overrides if "list" in o]
        for cell in read_plan(swept).cells
    }
    assert groups == {"0": ["layers.list=[1,3]"], "1": ["layers.list=[0,1]"]}
