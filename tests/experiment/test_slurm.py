"""Sweeps on a real SLURM, disturbed as jobs are on a cluster. `make test-slurm` runs these."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors import safe_open

from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.objective import read_objective
from mech_arith.evidence.results import load_run
from tests.slurm import (
    LONG,
    ON_SLURM,
    SHORT,
    Sweep,
    end_all,
    has_testbed,
    is_signalled,
    slurm,
    stopped,
)
from tests.test_docs import blocks
from tests.waiting import wait

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not has_testbed(), reason="needs a SLURM testbed: make test-slurm"),
]

SCENARIOS: list[Callable[[Path], object]] = []
"""They spend much of their time on waiting, and so run side by side, begun in this order. Each has
a directory of its own, and its tests right below."""

WATCHED = Path(__file__).parents[1] / "watched.py"
"""Not imported here: what it registers would be there for other tests."""

AT_ONCE = 5
"""How many scenarios run side by side: more would slow each other down beyond their time limits."""


def scenario(run: Callable[[Path], object]) -> Callable[[Path], object]:
    SCENARIOS.append(run)
    return run


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """What a scenario gives, once it has ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        directories = {run: tmp_path_factory.mktemp(run.__name__) for run in SCENARIOS}
        futures = {run: pool.submit(run, path) for run, path in directories.items()}
        try:
            yield lambda run: futures[run].result()
        finally:
            end_all()


def start(tmp_path: Path, name: str, *overrides: str) -> Sweep:
    sweep = Sweep(tmp_path / "sweep", name)
    place = (f"hydra.sweep.dir={sweep.directory}", f"hydra.launcher.name={name}")
    return sweep.start(
        "hydra/launcher=slurm", *place, *ON_SLURM, f"store.path={tmp_path}/store", *overrides
    )


@scenario
def timed_out(tmp_path: Path) -> Sweep:
    # SLURM looks at the clock every half minute. It gives notice up to so much earlier than asked
    # for, which leaves a job of one minute no time to begin on a busy machine.
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=1")
    sweep = start(tmp_path, "timed-out", *limit, *LONG)
    sweep.wait_for_edits()
    pid = sweep.record()["attempts"][0]["pid"]
    with stopped(pid):  # so that its time is over before its work is
        wait(lambda: is_signalled(pid, signal.SIGUSR2))
    return sweep.end()


@scenario
def preempted(tmp_path: Path) -> Sweep:
    room = ("hydra.launcher.partition=low", "hydra.launcher.mem_gb=40")
    sweep = start(tmp_path, "preempted", *room, *LONG)
    sweep.wait_for_edits()
    slurm("sbatch", "--partition=urgent", "--mem=40G", "--output=/dev/null", "--wrap=sleep 1")
    return sweep.end()


@scenario
def signalled(tmp_path: Path) -> Sweep:
    sweep = start(tmp_path, "signalled", *LONG)
    sweep.wait_for_edits()
    slurm("scancel", "--signal=USR2", sweep.job())
    return sweep.end()


@scenario
def undisturbed(tmp_path: Path) -> Path:
    """The same cell, without SLURM."""
    command = [sys.executable, "-m", "mech_arith", f"hydra.run.dir={tmp_path}/run", "threads=1"]
    subprocess.run(
        [*command, f"store.path={tmp_path}/store", *LONG],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("disturbed", "said"),
    [(signalled, "preempted"), (timed_out, "timed-out"), (preempted, "preempted")],
)
def test_a_requeued_job_goes_on_and_ends_as_if_nothing_had_been(outcome, disturbed, said):
    sweep = outcome(disturbed)
    assert sweep.exit_code == 0, sweep.output
    assert sweep.states() == {"0": ("resumed", "")}
    assert sweep.jobs() == [(sweep.job(), "COMPLETED")]
    lives = [state for _, state in sweep.jobs("--duplicates")]
    assert lives == ["REQUEUED"] * (len(lives) - 1) + ["COMPLETED"]
    assert 2 <= len(sweep.record()["attempts"]) <= len(lives)
    (log,) = sweep.directory.glob(".submitit/*/*.err")
    assert f"this job is {said}" in log.read_text(encoding="utf-8")
    assert sweep.summary()["units_found"] > 0
    assert not (sweep.cell() / "parts").exists()
    tables, expected = load_run(sweep.cell()).tables, load_run(outcome(undisturbed)).tables
    assert set(tables) == set(expected) >= {"correlations", "effects", "contrasts", "evidence"}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, expected[name], check_exact=True)


@scenario
def shared_out(tmp_path: Path) -> Sweep:
    """A job of three cells and two GPUs, one for each worker. It is told to queue itself again."""
    job = ("hydra.launcher.gpus_per_node=2", "sweep.pack=4", "sweep.workers=auto")
    edit = (f"plugins=[{WATCHED}]", "intervention.edit=watched")
    cells = ("problems.seed=0,1,2", "layers=[2]", "intervention.n_problems=40")
    own = [entry for entry in LONG if "n_problems" not in entry]
    sweep = start(tmp_path, "shared-out", *job, *own, *edit, *cells)
    sweep.wait_for_edits(0)
    with stopped(sweep.record(0)["attempts"][0]["pid"]):  # so that it does not end meanwhile
        sweep.wait_for_edits(1)
    slurm("scancel", "--signal=USR2", sweep.job())
    return sweep.end()


def test_workers_have_a_gpu_each_and_are_requeued_with_their_job(outcome):
    sweep = outcome(shared_out)
    assert sweep.exit_code == 0, sweep.output
    assert {name: status for name, (status, _) in sweep.states().items()} == {
        "0": "resumed",
        "1": "resumed",
        "2": "done",
    }
    assert sweep.jobs() == [(sweep.job(), "COMPLETED")]
    workers = [{attempt["pid"] for attempt in sweep.record(n)["attempts"]} for n in range(3)]
    assert len(set.union(*workers)) == 4  # two of each life
    seen = [json.loads(path.read_text()) for path in sweep.directory.parent.glob("*.seen")]
    assert {gpu for gpu, _ in seen} == {"0", "1"}
    assert {threads for _, threads in seen} == {"1"}
    (log,) = sweep.directory.glob(".submitit/*/*.err")
    assert "this job is preempted" in log.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Cancelled:
    sweep: Sweep
    states: dict[str, tuple[str, str]]
    jobs: list[tuple[str, ...]]
    written: dict[str, int]
    again: Sweep


@scenario
def by_others(tmp_path: Path) -> list[Sweep]:
    """Hydra's own launcher under our sweeper, and our launcher under Optuna's."""
    searched = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "objective=abs_r/b-c")
    asked = {
        "stock": ["hydra/launcher=submitit_slurm"],
        "ours": ["hydra/launcher=slurm", *searched],
    }
    cell = (*ON_SLURM, *SHORT, "intervention=none", f"store.path={tmp_path}/store")
    sweeps = []
    for name, own in asked.items():
        sweep = Sweep(tmp_path / name, name)
        place = (f"hydra.sweep.dir={sweep.directory}", f"hydra.launcher.name={name}")
        sweeps.append(sweep.start(*own, *place, *cell))
    return [sweep.end() for sweep in sweeps]


def test_launchers_and_sweepers_of_others_work(outcome):
    stock, ours = outcome(by_others)
    for sweep in (stock, ours):
        assert sweep.exit_code == 0, sweep.output
        (state,) = (state for _, state in sweep.jobs())
        assert state == "COMPLETED"
        assert find_runs(sweep.directory) == [sweep.directory / "0"]
    evidence = load_run(ours.directory / "0").tables["evidence"]
    found = yaml.safe_load((ours.directory / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(read_objective(evidence, "abs_r/b-c"))


def results_written(sweep: Sweep) -> dict[str, int]:
    """When each whole cell was ended."""
    return {
        path.name: (path / "summary.json").stat().st_mtime_ns for path in find_runs(sweep.directory)
    }


@scenario
def cancelled(tmp_path: Path) -> Cancelled:
    """The middle one of three jobs is killed. Then the sweep is resumed."""
    sweep = start(tmp_path, "cancelled", *LONG, "intervention.n_problems=10,120,11")
    sweep.wait_for_edits(1)
    slurm("scancel", sweep.job(1))
    sweep.end()
    before = (sweep.states(), sweep.jobs(), results_written(sweep))
    again = Sweep(sweep.directory, sweep.name).start(f"sweep.resume={sweep.directory}")
    return Cancelled(sweep, *before, again.end())


def test_a_killed_job_is_named_and_the_others_are_whole(outcome):
    sweep, killed = outcome(cancelled).sweep, outcome(cancelled)
    assert sweep.exit_code == 1, sweep.output
    assert killed.states["0"] == killed.states["2"] == ("done", "")
    status, note = killed.states["1"]
    assert status == "killed"
    (job,) = (job for job, _ in killed.jobs if job.endswith("_1"))
    assert note.startswith(f"SLURM job {job}: cancelled")
    assert re.search(r"1.*n_problems=120.*killed", sweep.output.replace("\n", " "))
    assert f"sweep.resume={sweep.directory}" in sweep.output
    assert sorted(killed.written) == ["0", "2"]
    assert {job[-1]: state for job, state in killed.jobs} == {
        "0": "COMPLETED",
        "1": "CANCELLED by 0",
        "2": "COMPLETED",
    }


def test_resuming_runs_the_killed_cell_alone(outcome):
    killed = outcome(cancelled)
    again = killed.again
    assert again.exit_code == 0, again.output
    assert {name: status for name, (status, _) in again.states().items()} == {
        "0": "done",
        "1": "resumed",
        "2": "done",
    }
    new = set(again.jobs()) - set(killed.jobs)
    assert new == {(again.job(1), "COMPLETED")}
    assert results_written(again).items() > killed.written.items()
    assert again.summary(1)["units_found"] > 0
    assert re.findall(r"cell (\d+) \(.*\): (.*)", again.output) == [
        ("1", f"it was killed: {killed.states['1'][1]}")
    ]


@scenario
def too_large(tmp_path: Path) -> Sweep:
    size = ("problems.n=40000", "batch_size=20000")
    return start(tmp_path, "too-large", "hydra.launcher.mem_gb=1", *SHORT, *size).end()


def test_a_job_beyond_its_memory_limit_is_told_as_such(outcome):
    sweep = outcome(too_large)
    assert sweep.exit_code == 1, sweep.output
    status, note = sweep.states()["0"]
    assert status == "killed"
    assert "memory" in note
    assert "memory" in sweep.output
    assert sweep.jobs() == [(sweep.job(), "FAILED")]  # OUT_OF_MEMORY where SLURM has cgroups


@scenario
def four_cells(tmp_path: Path) -> tuple[Sweep, Path]:
    """Pairs of cells that trace alike, in a store that is empty at first."""
    choices = ("model=arith_decoder,arith_encoder", "intervention=scale,shift")
    sweep = start(tmp_path, "four", *choices, *SHORT)
    sweep.wait(lambda: sweep.record(0))
    with stopped(sweep.record(0)["attempts"][0]["pid"]):  # the second one may start much later
        sweep.wait(lambda: sweep.record(1))
    return sweep.end(), tmp_path / "store"


def test_a_sweep_lands_its_cells(outcome):
    sweep, _ = outcome(four_cells)
    assert sweep.exit_code == 0, sweep.output
    assert {status for status, _ in sweep.states().values()} == {"done"}
    assert [state for _, state in sweep.jobs()] == ["COMPLETED"] * 4
    assert find_runs(sweep.directory) == [sweep.cell(number) for number in range(4)]
    cells = [sweep.summary(number)["cell"] for number in range(4)]
    assert [(cell["model"], cell["edit"]) for cell in cells] == [
        ("arith_decoder", "scale"),
        ("arith_decoder", "shift"),
        ("arith_encoder", "scale"),
        ("arith_encoder", "shift"),
    ]


def test_jobs_that_compute_the_same_leave_one_valid_entry(outcome):
    sweep, store = outcome(four_cells)
    (one_start, one_end), (other_start, other_end), *_ = sweep.jobs(fields="Start,End")
    assert max(one_start, other_start) < min(one_end, other_end), "they did not run at once"
    entries = [path for path in store.rglob("*") if path.suffix in (".safetensors", ".tmp")]
    for path in entries:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        assert path.stem == hashlib.sha256(metadata["identity"].encode()).hexdigest()
        digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
        assert metadata["digest"] == json_digest(digests)
    # Each is computed by one of the two, and read by the other.
    used = [sweep.summary(number)["store"] for number in range(4)]
    assert sum(cell["misses"] for cell in used) == len(entries) > 0
    assert sum(cell["hits"] for cell in used) >= len(entries)


@scenario
def twins(tmp_path: Path) -> list[Sweep]:
    """Two at once, which are not told where to go; one of them asks for a GPU."""
    sweeps = [
        Sweep(tmp_path / "multirun", "twins").start(
            launcher, *ON_SLURM, "hydra.launcher.name=twins", f"store.path={tmp_path}/store", *SHORT
        )
        for launcher in ("hydra/launcher=slurm", "hydra/launcher=slurm_gpu")
    ]
    return [sweep.end() for sweep in sweeps]


def test_sweeps_of_one_second_have_a_directory_each(outcome):
    sweeps = outcome(twins)
    assert [sweep.exit_code for sweep in sweeps] == [0, 0]
    places = [re.findall(r"^results: (\S+)$", sweep.output, re.M)[0] for sweep in sweeps]
    assert len(set(places)) == 2
    root = sweeps[0].directory.parent
    for place in places:
        assert find_runs(root / place) == [root / place / "0"]
    jobs = sweeps[0].jobs(fields="State,AllocTRES")
    assert [state for state, _ in jobs] == ["COMPLETED"] * 2
    assert sorted("gres/gpu=1" in resources for _, resources in jobs) == [False, True]


PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"

OURS = ("python -m mech_arith", "python scripts/", "squeue", "sacct")
"""The others install and fetch."""

FEWER = [entry for entry in SHORT if entry != "wandb=disabled"]
FEWER += ["model=arith_decoder", "tracing.untrained_twins=0", "store.path=store"]


def smaller(command: str) -> str:
    """A command of the page, as it fits a testbed."""
    command = command.partition("#")[0].strip()
    if "hydra/launcher=" in command:
        command = re.sub(r"hydra\.launcher\.(partition|account)=\w+ ", "", command)
        return shlex.join([*shlex.split(command), *ON_SLURM, *FEWER])
    if "wandb_sync" in command:
        return command.replace("scripts/", f"{PAGE.parents[1]}/scripts/") + " --dry-run"
    return command


@scenario
def as_documented(tmp_path: Path) -> list[tuple[str, int, str]]:
    """Commands of the page, in its order: its exit code, and what it says. `test_launchers.py` has
    workers on this machine."""
    commands = [c for block in blocks(PAGE) if block.language == "bash" for c in block.commands]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = []
    ours = [c for c in commands if c.startswith(OURS) and "launcher=local" not in c]
    for command in map(smaller, ours):
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"},
        )
        told.append((command, done.returncode, done.stdout))
    return told


def test_what_the_page_on_clusters_says_to_type_works(outcome):
    told = outcome(as_documented)
    assert len(told) == 8
    for command, code, said in told:
        assert code == 0, f"{command}\n{said}"
    said = {command: said for command, _, said in told}
    (resumed,) = (said for command, said in said.items() if "sweep.resume" in command)
    assert "0 of 2 cells are to be run" in resumed
    (sent,) = (said for command, said in said.items() if "wandb_sync" in command)
    assert "6 runs, 0 of them on the server already" in sent
