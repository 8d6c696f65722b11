"""Cells of a job beside each other: who runs what, with what, and what a death costs."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.runs.workers import (
    DEVICES,
    THREADS,
    Share,
    check_devices,
    check_workers,
    run_beside,
    shares,
    usable_threads,
    visible_devices,
)
from tests.waiting import wait

CPU = Share((), 1)


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "7_"


def test_each_worker_has_its_own_gpus_threads_and_log(tmp_path, logs):
    def run(cell):
        seen = [os.getpid(), os.environ[DEVICES], os.environ[THREADS]]
        (tmp_path / f"{cell}.json").write_text(json.dumps(seen))
        # The other worker takes a cell too, however late it starts.
        wait(lambda: (tmp_path / f"{1 - cell}.json").exists() or cell > 1)
        print(f"cell {cell}")
        return "refused" if cell == 2 else ""

    own = shares("auto", ["GPU-8f2a", "MIG-77c1"], 6)
    assert run_beside(5, run, own, logs=logs) == {0: "", 1: "", 2: "refused", 3: "", 4: ""}
    seen = [json.loads((tmp_path / f"{cell}.json").read_text()) for cell in range(5)]
    assert {tuple(rest) for _, *rest in seen} == {("GPU-8f2a", "3"), ("MIG-77c1", "3")}
    assert len({process for process, *_ in seen}) == 2  # each loads its model once
    texts = [(tmp_path / f"7_worker_{number}.log").read_text() for number in range(2)]
    said = sorted(line for text in texts for line in text.splitlines() if "cell" in line)
    assert said == [f"cell {cell}" for cell in range(5)]


@pytest.fixture(autouse=True)
def _no_output_of_pytests(capfd):
    """Workers write to files of their own."""
    yield
    assert capfd.readouterr().out == ""


def test_a_worker_that_dies_fails_its_cell_alone(logs):
    def run(cell):
        if cell == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell == 2:
            os._exit(3)
        return ""

    ends = run_beside(6, run, [CPU, CPU], logs=logs)
    assert {cell for cell, why in ends.items() if not why} == {0, 3, 4, 5}
    assert "got its end by SIGKILL" in ends[1]
    assert "got its end by exit code 3" in ends[2]


def test_there_are_no_more_workers_than_cells(tmp_path, logs):
    assert run_beside(1, lambda _: "", [CPU] * 3, logs=logs) == {0: ""}
    assert len(list(tmp_path.glob("*.log"))) == 1
    assert run_beside(0, lambda _: "", [CPU], logs=logs) == {}


def test_a_signal_for_the_job_passes_its_workers_by(tmp_path, logs):
    """SLURM sends its signal to all processes of a job; the workers end when the job does."""

    class RequeuedError(Exception):
        pass

    def requeue(number, frame):
        raise RequeuedError

    def run(cell):
        (tmp_path / str(cell)).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGUSR2)
        (tmp_path / f"{cell} lives").touch()
        os.kill(os.getppid(), signal.SIGUSR2)
        time.sleep(3600)
        return ""

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(RequeuedError):
            run_beside(1, run, [CPU], logs=logs, ignored=[signal.SIGUSR2])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / "0 lives").exists()
    assert not _is_alive(int((tmp_path / "0").read_text()))


JOB = """
import os, pathlib, sys, time
from mech_arith.common.runs.workers import Share, run_beside
here = pathlib.Path(sys.argv[1])
def run(cell):
    (here / f"{cell}.pid").write_text(str(os.getpid()))
    time.sleep(3600)
run_beside(2, run, [Share((), 1)] * 2, logs=here / "7_")
"""


def test_workers_end_with_a_job_that_is_killed(tmp_path):
    job = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path)])
    wait(lambda: len([p for p in tmp_path.glob("*.pid") if p.read_text()]) == 2)
    job.kill()
    job.wait()
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait(lambda: not any(_is_alive(pid) for pid in pids))


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("0,1", ["0", "1"]),
        (" GPU-8f2a , MIG-77c1", ["GPU-8f2a", "MIG-77c1"]),
        ("2,-1,3", ["2"]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_cuda_would_see(listed, names):
    assert visible_devices({DEVICES: listed}) == names


def test_gpus_are_shared_out_in_their_order():
    own = [share.devices for share in shares(2, ["a", "b", "c", "d"], 8)]
    assert own == [("a", "b"), ("c", "d")]
    assert [share.devices for share in shares(2, ["a", "b", "c"], 8)] == [("a",), ("b", "c")]
    assert shares(3, [], 2) == [CPU] * 3
    assert usable_threads({THREADS: "6"}) == 6
    assert usable_threads({}) >= 1


@pytest.mark.parametrize("asked", [0, -1, 1.5, True, "all", [2]])
def test_another_number_of_workers_is_refused(asked):
    with pytest.raises(UserError, match=r"sweep\.workers as a number of processes from 1 on, or a"):
        check_workers(asked, 8)


def test_workers_without_cells_to_share_are_refused():
    with pytest.raises(UserError, match=r"expected sweep\.pack beside sweep\.workers=2"):
        check_workers(2, None)
    with pytest.raises(UserError, match=r"a cell for each worker of a job, got sweep\.pack=1"):
        check_workers("auto", 1)
    with pytest.raises(UserError, match=r"got sweep\.pack=3 and sweep\.workers=4"):
        check_workers(4, 3)
    check_workers(1, 1)
    check_workers("auto", "auto")


def test_more_workers_than_gpus_are_refused():
    with pytest.raises(UserError, match=r"as many workers as the job has GPUs, got .*=3 and 2"):
        check_devices(3, 2)
    with pytest.raises(UserError, match=r"expected GPUs for sweep\.workers=auto"):
        check_devices("auto", 0)
    check_devices(3, 0)  # on the CPU
    check_devices(2, 4)
