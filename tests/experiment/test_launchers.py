"""The launchers' configs, and cells on this machine through submitit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.mech_arith_launcher import packed, unpacked
from mech_arith.common.paths import conf_dir
from mech_arith.common.runs.records import read_record
from mech_arith.common.runs.sweeps import cell_states, submitted_jobs
from mech_arith.experiment.config import RunConfig
from tests.running import SMALL, exit_code, main
from tests.waiting import PATIENCE_S, wait

LAUNCHERS = sorted(path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_composes(name):
    launcher = composed(f"hydra/launcher={name}").launcher
    kind = "Local" if name == "local" else "Slurm"
    assert launcher._target_.endswith(f".Packing{kind}Launcher")


def test_a_gpu_is_the_one_difference_in_kind():
    cpu, gpu = (composed(f"hydra/launcher={name}").launcher for name in ("slurm", "slurm_gpu"))
    assert (cpu.gpus_per_node, gpu.gpus_per_node) == (None, 1)
    assert (cpu.setup, cpu.max_num_timeout) == (gpu.setup, gpu.max_num_timeout)


def test_some_cells_at_a_time_on_this_machine():
    assert OmegaConf.select(composed(), "sweeper.max_batch_size") is None
    assert composed("hydra/launcher=local").sweeper.max_batch_size == 2
    chosen = composed("hydra/launcher=local", "hydra.sweeper.max_batch_size=3")
    assert chosen.sweeper.max_batch_size == 3


def test_a_launch_without_slurm_says_so(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no sbatch here
    assert main(monkeypatch, tmp_path, *SMALL, "hydra/launcher=slurm", sweep=True) == 1
    (state,) = cell_states(tmp_path / "run")
    assert state.status == "missing"
    assert "sbatch" in state.note or "slurm" in state.note.lower(), state.note
    assert "a job did not end well" in capfd.readouterr().out


def test_cells_of_a_pack_are_taken_apart_again():
    cells = [(4, ["layers=early", "+problems.operands.a={min:1}"]), (2, []), (7, ["a=b"])]
    assert unpacked(packed(cells)) == cells


@pytest.mark.parametrize("asked", ["0", "some", "1.5"])
def test_a_pack_of_another_size_is_refused_before_anything_is_written(
    monkeypatch, tmp_path, capsys, asked
):
    arguments = (*SMALL, "problems.n=60,61", f"sweep.pack={asked}")
    assert main(monkeypatch, tmp_path, *arguments, sweep=True) == 1
    assert "expected sweep.pack as a number of cells from 1 on" in capsys.readouterr().err
    assert not (tmp_path / "run" / "sweep.json").exists()


def test_a_launcher_that_cannot_pack_says_so(monkeypatch, tmp_path, capsys):
    arguments = (*SMALL, "hydra/launcher=submitit_local", "problems.n=60,61", "sweep.pack=2")
    assert main(monkeypatch, tmp_path, *arguments, sweep=True) == 1
    assert "expected a launcher that packs with sweep.pack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("local sweep.pack=4 sweep.workers=0", "expected sweep.workers as a number of processes"),
        ("local sweep.workers=2", "expected sweep.pack beside sweep.workers=2"),
        ("local sweep.pack=1 sweep.workers=2", "expected a cell for each worker of a job, got sw"),
        ("basic sweep.pack=4 sweep.workers=2", "expected hydra/launcher=local or slurm with sweep"),
        (
            "slurm sweep.pack=4 sweep.workers=auto",
            "expected GPUs for sweep.workers=auto, got a job",
        ),
        ("slurm_gpu sweep.pack=4 sweep.workers=2", "expected at most as many workers as the job h"),
    ],
)
def test_workers_that_there_cannot_be_are_refused_before_anything_is_written(
    monkeypatch, tmp_path, capsys, asked, said
):
    arguments = (*SMALL, "problems.n=60,61", *f"hydra/launcher={asked}".split())
    assert main(monkeypatch, tmp_path, *arguments, sweep=True) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not (tmp_path / "run" / "sweep.json").exists()


@pytest.mark.parametrize("option", ["workers=2", "pack=2", "together=[layers]"])
def test_what_is_about_the_cells_of_a_sweep_is_refused_in_a_single_run(
    monkeypatch, tmp_path, capsys, option
):
    assert main(monkeypatch, tmp_path, *SMALL, f"sweep.{option}") == 1
    assert f"error: expected -m beside sweep.{option}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


WATCHED = Path(__file__).parents[1] / "watched.py"
"""Not imported here: what it registers would be there for other tests."""

BARE = (
    *SMALL,
    "layers=[3]",
    "intervention.edit=watched",
    "intervention.controls.other=false",
    "intervention.controls.shuffled=false",
    "tracing.position_map=false",
    "hydra/launcher=local",
)


@pytest.mark.slow
def test_cells_of_a_pack_run_beside_each_other_each_with_a_gpu_of_its_own(
    monkeypatch, tmp_path, capsys
):
    (tmp_path / "die").touch()
    monkeypatch.setenv("WATCHED", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f2a,MIG-77c1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    cells = (f"plugins=[{WATCHED}]", "problems.n=60,61,62,63")
    own = ("sweep.pack=auto", "sweep.workers=auto", "~hydra.job.env_set.OMP_NUM_THREADS")
    assert main(monkeypatch, tmp_path, *BARE, *cells, *own, sweep=True) == 1
    sweep = tmp_path / "run"
    states = [state.status for state in cell_states(sweep)]
    assert sorted(states) == ["done", "done", "done", "killed"]
    assert len(submitted_jobs(sweep)) == 1
    records = [read_record(sweep / str(number)) for number in range(4)]
    workers = {record.attempts[0].pid for record in records if record is not None}
    seen = [json.loads((tmp_path / f"{worker}.seen").read_text()) for worker in workers]
    assert {gpu for gpu, _ in seen} == {"GPU-8f2a", "MIG-77c1"}
    assert {threads for _, threads in seen} == {"1"}
    (log,) = sweep.glob(".submitit/*/*_worker_1.log")
    assert log.read_text().count("loading arith_decoder") == log.read_text().count("worker ")

    # More workers than GPUs: nothing is launched, and all stays.
    again = (f"sweep.resume={sweep}", "sweep.workers=3")
    monkeypatch.setattr("sys.argv", ["mech_arith", *again])
    assert exit_code() == 1
    assert "expected at most as many workers as the job has GPUs" in capsys.readouterr().err
    assert [state.status for state in cell_states(sweep)] == states


@pytest.mark.slow
def test_cells_of_a_pack_share_a_process_and_fail_alone(monkeypatch, tmp_path):
    arguments = ("hydra/launcher=local", "sweep.pack=auto", "hydra.sweeper.max_batch_size=1")
    cells = ("layers=[0],[99],[1]", "intervention=none", "tracing.position_map=false")
    assert main(monkeypatch, tmp_path, *SMALL, *arguments, *cells, sweep=True) == 1
    sweep = tmp_path / "run"
    states = cell_states(sweep)
    assert [state.status for state in states] == ["done", "failed", "done"]
    records = [read_record(sweep / str(number)) for number in range(3)]
    assert len({record.attempts[0].pid for record in records if record is not None}) == 1
    assert len(submitted_jobs(sweep)) == 1
    logs = [(sweep / str(number) / "mech_arith.log").read_text() for number in range(3)]
    assert ["answers" in log for log in logs] == [True, False, True]
    assert sum("loading arith_decoder" in log for log in logs) == 1


@pytest.mark.slow
def test_a_pack_that_is_killed_loses_the_cell_in_work_alone(tmp_path: Path):
    sweep = tmp_path / "sweep"
    arguments = ["hydra/launcher=local", "sweep.pack=3", f"hydra.sweep.dir={sweep}"]
    cells = ["problems.n=60,61,62", f"store.path={tmp_path}/store", "intervention.components=all"]
    command = [sys.executable, "-m", "mech_arith", "-m", *arguments, *SMALL, *cells]
    begun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    record = wait(lambda: read_record(sweep / "1"))
    os.kill(record.attempts[0].pid, signal.SIGKILL)
    said, _ = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == 1, said
    assert [state.status for state in cell_states(sweep)] == ["done", "killed", "done"], said
    assert "1 cells of a pack were not come to" in said

    again = [sys.executable, "-m", "mech_arith", f"sweep.resume={sweep}"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 cells are to be run" in done.stdout


@pytest.mark.slow
def test_a_killed_process_takes_no_other_with_it(tmp_path: Path):
    sweep = tmp_path / "sweep"
    arguments = ["hydra/launcher=local", f"hydra.sweep.dir={sweep}", f"store.path={tmp_path}/store"]
    size = ["problems.n=60,61,62", "intervention.components=all", "intervention.n_problems=null"]
    size += ["intervention.controls.other=false", "intervention.controls.shuffled=false"]
    begun = subprocess.Popen(
        [sys.executable, "-m", "mech_arith", "-m", *arguments, *SMALL, *size],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )
    record = wait(lambda: read_record(sweep / "0"))
    os.kill(record.attempts[0].pid, signal.SIGKILL)
    said, _ = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == 1, said
    assert [state.status for state in cell_states(sweep)] == ["killed", "done", "done"], said
    assert "ended without a result" in said

    again = [sys.executable, "-m", "mech_arith", f"sweep.resume={sweep}", "hydra/launcher=basic"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 3 cells are to be run" in done.stdout
    assert [state.status for state in cell_states(sweep)] == ["resumed", "done", "done"]


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_a_directory_that_slurm_would_read_as_a_pattern_is_refused(
    monkeypatch, tmp_path, capfd, launcher
):
    place = tmp_path / "50%j"
    monkeypatch.chdir(tmp_path)
    overrides = [f"hydra/launcher={launcher}", f"hydra.sweep.dir='{place}'"]
    assert main(monkeypatch, tmp_path, *SMALL, *overrides, sweep=True) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: expected a directory without '%' for jobs of their own, got ")
    assert not list(tmp_path.glob("50*"))


def test_hydras_new_classes_are_told_by_where_they_run(monkeypatch, tmp_path):
    """Hydra executes its plugins' files anew, and so makes other classes of the same name."""
    from hydra.core.plugins import Plugins
    from hydra.utils import instantiate

    from hydra_plugins.mech_arith_sweeper import LOCAL, CellSweeper

    sweeper = CellSweeper()
    Plugins.instance()._initialize()
    launcher = composed("hydra/launcher=local").launcher
    sweeper.launcher = instantiate({"_target_": launcher._target_, "submitit_folder": "x"})
    assert sweeper._executor == LOCAL
