"""Sweepers of others: Hydra's Optuna sweeper searches cells by the number that the task returns."""

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from mech_arith.common.runs.sweeps import cell_states
from mech_arith.evidence.objective import read_objective
from mech_arith.evidence.results import load_run
from tests.running import SMALL, main
from tests.thinned import thinned

OPTUNA = (
    "hydra/sweeper=optuna",
    "hydra/sweeper/sampler=random",
    "hydra.sweeper.sampler.seed=0",
    "hydra.sweeper.direction=maximize",
    "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.n_trials=3",  # of two choices each comes once or twice, by this seed
)
TRACED = (*SMALL, "intervention=none", "tracing.position_map=false")
"""A cell of a second."""


@pytest.fixture(autouse=True)
def one_log() -> None:
    """Optuna's own handler would write to the first test's captured stream for ever."""
    optuna.logging.disable_default_handler()


def result(directory: Path) -> dict:
    return yaml.safe_load((directory / "optimization_results.yaml").read_text(encoding="utf-8"))


def test_optuna_finds_the_best_cell(monkeypatch, tmp_path, capsys):
    said = (*OPTUNA, *TRACED, "layers=0,2", "objective=abs_r/b-c")
    assert main(monkeypatch, tmp_path, *said, sweep=True) == 0
    numbers = {}
    for number in range(3):
        run = load_run(tmp_path / "run" / str(number))
        (layer,) = yaml.safe_load(run.config_yaml)["layers"]["list"]
        numbers[layer] = read_objective(run.tables["evidence"], "abs_r/b-c")
    best = max(numbers, key=numbers.__getitem__)
    assert numbers[0] != numbers[2]
    found = result(tmp_path / "run")
    assert found["best_value"] == pytest.approx(numbers[best])
    assert found["best_params"] == {"layers.list": f"[{best}]"}
    assert re.search(r"done .*3", capsys.readouterr().out)
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_cell_that_is_there_already_returns_the_same_number(monkeypatch, tmp_path, capsys):
    found = []
    for objective in ("[abs_r/b-c,abs_r/a]", "abs_r/b-c"):
        said = (*TRACED, "layers=2", f"objective={objective}")
        assert main(monkeypatch, tmp_path, *said) == 0
        out = capsys.readouterr().out
        found.append(re.findall(r"objective abs_r/b-c: (\S+)", out))
    assert "finished before, kept" in out
    assert found[0] == found[1] != []


def test_a_value_that_nothing_was_found_for_has_no_number(monkeypatch, tmp_path, capsys):
    of_a = ("tracing=neurons", "tracing.options.values=[a]", "tracing.options.pairs=10")
    said = (*SMALL, *of_a, "intervention=none", "layers=3", "objective=[abs_r/a,abs_r/b]")
    assert main(monkeypatch, tmp_path, *said) == 0
    out = capsys.readouterr().out
    assert "objective abs_r/a: " in out
    assert "no number for objective=abs_r/b: the evidence has no row of b" in out


def test_a_trial_without_a_number_fails_and_the_search_goes_on(monkeypatch, tmp_path, capsys):
    drawn = ("intervention.controls.span=0", "intervention.controls.valueless=0")
    fixed = [given for given in SMALL if "controls" not in given]
    said = (*OPTUNA, *fixed, "tracing.position_map=false", "layers=2", "intervention=scale", *drawn)
    axis = ("intervention.controls.random=0,3", "objective=excess_drop/b-c")
    assert main(monkeypatch, tmp_path, *said, *axis, sweep=True) == 0
    why = "no number for objective=excess_drop/b-c: no control directions were drawn"
    out = capsys.readouterr().out
    assert out.count(why) == out.count("Failed experiment: ") > 0
    assert result(tmp_path / "run")["best_params"] == {"intervention.controls.random": 3}


@pytest.mark.parametrize(
    ("grid", "end"),
    [
        (False, "expected a trial with a number to search by, got none"),
        (True, "expected a number from the last trial of Optuna's grid, got none"),
    ],
)
def test_a_search_without_any_number_ends_in_one_line(monkeypatch, tmp_path, capsys, grid, end):
    search = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid") if grid else OPTUNA
    said = (*search, *TRACED, "layers=99,98", "objective=abs_r/b-c")
    assert main(monkeypatch, tmp_path, *said, sweep=True) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {end}")
    assert "expected layers.list" in (tmp_path / "run" / "0" / "error.txt").read_text()


REFUSED = [
    (["layers=1,2"], "expected an objective with hydra/sweeper=optuna, which searches by a n"),
    (["layers=1,2", "objective=abs/b-c"], "unknown metric 'abs' in objective; expected one"),
    (["layers=1,2", "objective=abs_r/b*c"], "unknown value 'b*c' in objective; expected one"),
    (["objective=abs_r/b", "lyers=1,2"], "unknown key 'lyers'; nearest: layers."),
    (["objective=abs_r/b", "hydra.sweeper.direction=up"], "unknown hydra.sweeper.direction 'up'"),
    (["objective=[abs_r/b,abs_r/a]"], "expected 1 of objective, one for each hydra.sweeper.d"),
    (["objective=excess_drop/b", "intervention=none"], "expected an edit with objective=exce"),
    (["objective=iia/b", "intervention=scale"], "expected an edit towards another value with"),
    (
        ["objective=iia/b", "intervention=interchange", "intervention.strengths=[0.5],[2]"],
        "expected 1, the whole way to the other value, in intervention.strengths with objecti",
    ),
    (
        ["objective=slope/b", "intervention=interchange", "intervention.values=[a]"],
        "expected 'b' in intervention.values with objective=slope/b, got ['a']; add it",
    ),
    (["objective=abs_r/b", "hydra.sweep.subdir=x"], "expected a hydra.sweep.subdir for each cell,"),
    (["objective=abs_r/b", "sweep.pack=2"], "expected hydra/sweeper=cells with sweep.pack,"),
    (["objective=abs_r/b", "problems.n=interval(0.5,9)"], "expected a value that fits, got p"),
]


@pytest.mark.parametrize(("asked", "said"), thinned(REFUSED, 4))
def test_what_cannot_be_searched_is_refused_before_a_cell_starts(
    monkeypatch, tmp_path, capsys, asked, said
):
    assert main(monkeypatch, tmp_path, *OPTUNA, *asked, sweep=True) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not (tmp_path / "run").exists()


def test_choices_of_an_experiment_are_read_as_those_of_a_command_line(monkeypatch, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    text = "hydra: {sweeper: {params: {layers: '0,2', objective: abs_r/b-c}}}"
    (folder / "search.yaml").write_text(f"# @package _global_\n{text}\n", encoding="utf-8")
    said = (*OPTUNA, *TRACED, f"--config-dir={tmp_path}/conf", "+experiment=search")
    assert main(monkeypatch, tmp_path, *said, sweep=True) == 0
    assert list(result(tmp_path / "run")["best_params"]) == ["layers.list"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "joblib"])
def test_a_search_takes_every_launcher(tmp_path, launcher):
    place = (f"hydra.sweep.dir={tmp_path}/run", f"store.path={tmp_path}/store")
    said = (*OPTUNA, f"hydra/launcher={launcher}", "objective=abs_r/b-c", *place)
    said = (*said, "layers=2", "hydra.sweeper.n_trials=1")
    command = [sys.executable, "-m", "mech_arith", "-m", *said, *TRACED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run" / "0")
    number = read_objective(run.tables["evidence"], "abs_r/b-c")
    assert result(tmp_path / "run")["best_value"] == pytest.approx(number)


@pytest.mark.slow
def test_our_sweeper_takes_hydras_own_launcher_of_submitit(monkeypatch, tmp_path):
    """The one bad cell fails alone."""
    said = (*TRACED, "hydra/launcher=submitit_local", "layers=2,99")
    assert main(monkeypatch, tmp_path, *said, sweep=True) == 1
    assert [state.status for state in cell_states(tmp_path / "run")] == ["done", "failed"]
