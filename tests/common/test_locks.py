"""File systems without locks, and with locks that lie: work is done, and at worst done twice."""

import errno
import fcntl
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from mech_arith.common import errors
from mech_arith.common import store as artifacts
from mech_arith.common.runs.records import LOCK, claimed, is_running
from mech_arith.common.store import Store
from mech_arith.models.language.keeping import alone

ROUNDS = 6

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_everything_goes_on(tmp_path: Path) -> None:
    made = Store(tmp_path).fetch("stage", {"n": 1}, lambda: {"x": torch.ones(3)}, code=[errors])
    read = Store(tmp_path).fetch("stage", {"n": 1}, dict, code=[errors])
    assert torch.equal(made["x"], read["x"])
    with claimed(tmp_path / "cell" / LOCK, patience_s=0.0, busy="busy"):
        assert not is_running(tmp_path / "cell")
    with alone(tmp_path / "models" / "one", "converts"):
        pass


def test_a_lock_that_is_lost_while_it_is_held_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(fd, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", flock)
        with claimed(tmp_path / LOCK, patience_s=0.0, busy="busy"):
            pass
        with alone(tmp_path / "models" / "one", "converts"):
            pass


def torn(*said: object) -> None:
    """No entry is ever seen half."""
    raise AssertionError(said)


def _write(directory: Path, barrier: Barrier) -> None:
    fcntl.flock = lambda *_: None
    vars(artifacts.log).update(warning=torn)
    for round_ in range(ROUNDS):
        try:
            barrier.wait()
            # Not what an honest store is given: by it one sees who has written.
            made = {"x": torch.full((5000,), float(os.getpid()))}
            for _ in range(3):
                Store(directory).fetch(
                    "stage", {"n": round_}, lambda made=made: made, code=[errors]
                )
        except BaseException:
            barrier.abort()  # else the others would wait for this one
            raise


def test_writers_whose_locks_lie_leave_the_whole_entry_of_one(tmp_path: Path) -> None:
    barrier = FORK.Barrier(3)
    writers = [FORK.Process(target=_write, args=(tmp_path, barrier)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 3
    for round_ in range(ROUNDS):
        read = Store(tmp_path).fetch("stage", {"n": round_}, dict, code=[errors])
        assert read["x"].unique().tolist()[0] in [writer.pid for writer in writers]
        assert len(read["x"].unique()) == 1
    assert not list(tmp_path.rglob("*.tmp"))
