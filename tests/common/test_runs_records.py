"""What a cell writes down about itself, and who may work at it."""

import json
import multiprocessing
import os
import time

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.runs.records import (
    LOCK,
    RECORD,
    begin,
    claimed,
    is_running,
    mark_tracked,
    read_record,
)
from tests.waiting import PATIENCE_S, wait


def test_attempts_at_one_cell_add_up(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    begin(tmp_path, "abc", {"code": "1"}, ["layers=late"])
    monkeypatch.setenv("SLURM_JOB_ID", "16")  # an allocation in which other cells run too
    assert begin(tmp_path, "abc", {"code": "1"}, []).attempts[-1].slurm_job is None
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    begin(tmp_path, "abc", {"code": "1"}, ["layers=late"])
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "15")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    record = begin(tmp_path, "abc", {"code": "1"}, ["layers=late"])
    assert [attempt.slurm_job for attempt in record.attempts] == [None, None, "17", "15_2"]
    assert record == read_record(tmp_path)
    assert record.attempts[0].pid == os.getpid()
    assert record.overrides == ("layers=late",)


def test_another_identity_begins_anew(tmp_path):
    begin(tmp_path, "abc", {"code": "1"}, [])
    assert len(begin(tmp_path, "xyz", {"code": "2"}, []).attempts) == 1


def test_logging_to_wandb_is_remembered(tmp_path):
    mark_tracked(tmp_path, begin(tmp_path, "abc", {}, []), "offline")
    record = read_record(tmp_path)
    assert record is not None
    assert (record.tracked, len(record.attempts)) == ("offline", 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "attempts": 3}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / RECORD).write_text(text, encoding="utf-8")
    assert read_record(tmp_path) is None
    assert len(begin(tmp_path, "abc", {}, []).attempts) == 1


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path) is None


def _hold(directory, seconds):
    with claimed(directory / LOCK, patience_s=0.0, busy="busy"):
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path):
    process = multiprocessing.get_context("spawn").Process(
        target=_hold, args=(tmp_path, PATIENCE_S)
    )
    process.start()
    wait(lambda: is_running(tmp_path))
    yield process
    process.kill()
    process.join()


def test_one_process_at_a_time(tmp_path, holder):
    with (
        pytest.raises(UserError, match="busy"),
        claimed(tmp_path / LOCK, patience_s=0.2, busy="busy"),
    ):
        raise AssertionError("expected the lock to be held by the other process")


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.join()
    assert not is_running(tmp_path)
    with claimed(tmp_path / LOCK, patience_s=0.0, busy="busy"):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


def test_nothing_runs_where_nothing_has_begun(tmp_path):
    assert not is_running(tmp_path)
    assert not is_running(tmp_path / "none")


def test_the_record_is_plain_json(tmp_path):
    begin(tmp_path, "abc", {"config": {"problems.n": 10}}, ["problems.n=10"])
    known = json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))
    assert known["identity"] == "abc"
    assert known["determines"]["config"]["problems.n"] == 10
