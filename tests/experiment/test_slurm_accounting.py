"""What is understood of SLURM's answers, which are those of a real SLURM 22.05."""

import os
import stat

import pytest

from mech_arith.common.runs.slurm import FIELDS, job_states

ANSWERS = """\
7_0|COMPLETED|2026-11-23T03:00:00||4194304K
7_0.batch|COMPLETED|2026-11-23T03:00:00|300000K|
7_1|CANCELLED by 0|2026-11-23T03:00:00||4194304K
7_1.batch|CANCELLED|2026-11-23T03:00:00|200000K|
7_2|CANCELLED by 0|None||4194304K
7_3|FAILED|2026-11-23T03:00:00||204800K
7_3.batch|FAILED|2026-11-23T03:00:00|5000K|
7_3.0|CANCELLED by 0|2026-11-23T03:00:00|262572K|
7_4|OUT_OF_MEMORY|2026-11-23T03:00:00||204800K
7_5|PENDING|Unknown||204800K
7_6|TIMEOUT|2026-11-23T03:00:00||204800K
7_6.0|CANCELLED|2026-11-23T03:00:00|100K|
7_7|FAILED|2026-11-23T03:00:00||204800K
7_8|COMPLETED|2026-11-23T03:00:00||204800K
7_8.0|COMPLETED|2026-11-23T03:00:00|262572K|
8|RUNNING|2026-11-23T03:00:00||1G
"""


QUEUE = """\
7_9|PENDING
6_0|RUNNING
"""


@pytest.fixture
def sacct(tmp_path, monkeypatch):
    """Programs of SLURM's names that give the answers, and write down what they were asked."""
    for name, answers in (("sacct", ANSWERS), ("squeue", QUEUE)):
        (tmp_path / f"{name}.answers").write_text(answers, encoding="utf-8")
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "$@" > "{tmp_path}/{name}.asked"\ncat "{tmp_path}/{name}.answers"\n',
            encoding="utf-8",
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_every_end_is_told(sacct):
    states = job_states([f"7_{task}" for task in range(9)] + ["8", "99"])
    said = {job: str(state) for job, state in states.items()}
    assert "cancelled" in said["7_1"]
    assert "memory limit" in said["7_3"] or "memory" in said["7_3"]
    assert "262572K of 204800K" in said["7_3"]
    assert "memory" in said["7_4"]
    assert "time limit" in said["7_6"]
    assert "process died" in said["7_7"]
    assert "memory" not in said["7_8"]
    assert "99" not in states
    assert [job for job, state in states.items() if state.is_alive] == ["7_5", "8"]


def test_tasks_that_wait_are_in_the_queue_alone(sacct):
    states = job_states(["7_0", "7_9"])
    assert [job for job, state in states.items() if state.is_alive] == ["7_9"]
    assert not states["7_9"].began


def test_what_never_began_is_told(sacct):
    states = job_states([f"7_{task}" for task in range(9)])
    assert [job for job, state in states.items() if not state.began] == ["7_2", "7_5"]


def test_only_what_is_needed_is_asked(sacct):
    job_states(["7_1", "7_0", "7_1"])
    asked = (sacct / "sacct.asked").read_text(encoding="utf-8")
    assert f"--format={','.join(FIELDS)}" in asked
    assert asked.strip().endswith("--jobs 7_0,7_1")


def test_no_jobs_ask_nothing(sacct):
    assert job_states([]) == {}
    assert not (sacct / "sacct.asked").exists()


def test_without_accounting_nothing_is_known(sacct):
    (sacct / "sacct").write_text("#!/bin/sh\necho 'accounting is disabled' >&2\nexit 1\n")
    assert job_states(["7_1"]) == {}
    assert job_states(["7_9"])["7_9"].is_alive


def test_without_slurm_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_states(["7_1"]) == {}
