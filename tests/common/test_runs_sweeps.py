"""A sweep on disk: what is read back, and what has become of its cells."""

import json

import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.runs import sweeps
from mech_arith.common.runs.records import begin
from mech_arith.common.runs.slurm import JobState
from mech_arith.common.runs.sweeps import (
    PLAN,
    STATES,
    CellState,
    Launch,
    PlannedCell,
    SweepPlan,
    begin_plan,
    cell_states,
    own_overrides,
    read_plan,
    swept_overrides,
    untold,
    write_plan,
    write_states,
)


def planned(directory, *cells):
    write_plan(directory, SweepPlan(("layers=early,late",), ("hydra.verbose=true",), cells))


def test_a_plan_is_read_back(tmp_path):
    cells = (PlannedCell("0", ("layers=early",), "id", "7_0"), PlannedCell("a b/1", ("x='y z'",)))
    planned(tmp_path, *cells)
    plan = read_plan(tmp_path)
    assert plan.cells == cells
    assert (plan.overrides, plan.hydra_overrides) == (
        ("layers=early,late",),
        ("hydra.verbose=true",),
    )


def test_of_two_new_sweeps_in_one_directory_one_is_told_that_it_is_the_other(tmp_path):
    """Without any lock: two nodes may both believe that they hold it."""
    ours, theirs = (SweepPlan((text,), (), ()) for text in ("layers=early", "layers=late"))
    assert begin_plan(tmp_path, ours)
    assert not begin_plan(tmp_path, theirs)
    assert read_plan(tmp_path) == ours


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}', '{"cells": 3}'])
def test_a_damaged_plan_is_one_line(tmp_path, text):
    (tmp_path / PLAN).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"expected a readable sweep.json") as error:
        read_plan(tmp_path)
    assert "\n" not in str(error.value)


def test_a_directory_without_a_sweep_is_said(tmp_path):
    with pytest.raises(UserError, match=r"has no sweep.json"):
        cell_states(tmp_path)


@pytest.fixture
def accounting(monkeypatch):
    """What SLURM says of jobs, set by the test; and what it was asked."""
    known, asked = {}, []

    def answer(jobs):
        asked.extend(jobs)
        return {job: known[job] for job in asked if job in known}

    monkeypatch.setattr(sweeps, "job_states", answer)
    return known, asked


def state_of(tmp_path, cell=None):
    planned(tmp_path, cell or PlannedCell("0", ()))
    (state,) = cell_states(tmp_path)
    return state.status, state.note


def attempted(tmp_path, monkeypatch, job=None, times=1):
    (tmp_path / "0").mkdir()
    if job is not None:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
        monkeypatch.setenv("SLURM_JOB_ID", job)
    for _ in range(times):
        begin(tmp_path / "0", "id", {}, [])


def test_whole_cells_are_done_or_resumed_and_slurm_is_not_asked(tmp_path, monkeypatch, accounting):
    attempted(tmp_path, monkeypatch, job="7")
    (tmp_path / "0" / SUMMARY).write_text('{"tables": {}}', encoding="utf-8")
    assert state_of(tmp_path)[0] == "done"
    begin(tmp_path / "0", "id", {}, [])
    assert state_of(tmp_path)[0] == "resumed"
    assert accounting[1] == []


def test_a_result_counts_more_than_an_old_error(tmp_path, monkeypatch):
    attempted(tmp_path, monkeypatch)
    (tmp_path / "0" / SUMMARY).write_text('{"tables": {}}', encoding="utf-8")
    (tmp_path / "0" / ERROR_FILE).write_text("failed before\n", encoding="utf-8")
    assert state_of(tmp_path)[0] == "done"


def test_a_failed_cell_says_the_first_line(tmp_path, monkeypatch):
    attempted(tmp_path, monkeypatch)
    (tmp_path / "0" / ERROR_FILE).write_text("bad thing\n\nTraceback\n", encoding="utf-8")
    planned(tmp_path, PlannedCell("0", ()))
    (state,) = cell_states(tmp_path)
    assert (state.status, state.note) == ("failed", "bad thing")
    assert state.error == "bad thing\n\nTraceback"


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        (JobState("7", frozenset({"OUT_OF_MEMORY"})), "killed", "memory"),
        (JobState("7", frozenset({"FAILED"}), "3K of 2K"), "killed", "3K of 2K"),
        (JobState("7", frozenset({"CANCELLED"})), "killed", "cancelled"),
        (JobState("7", frozenset({"PENDING"})), "running", "queued or runs"),
        (JobState("7", frozenset({"REQUEUED"})), "running", "queued or runs"),
    ],
)
def test_slurm_says_why_a_cell_has_no_result(
    tmp_path, monkeypatch, accounting, state, status, words
):
    accounting[0]["7"] = state
    attempted(tmp_path, monkeypatch, job="7")
    found = state_of(tmp_path)
    assert found[0] == status
    assert words in found[1]


def test_a_job_that_died_before_its_first_line_was_killed(tmp_path, accounting):
    accounting[0]["7_1"] = JobState("7_1", frozenset({"FAILED"}))
    assert state_of(tmp_path, PlannedCell("0", (), job="7_1"))[0] == "killed"


def test_a_job_that_was_cancelled_in_the_queue_is_missing(tmp_path, accounting):
    accounting[0]["7_1"] = JobState("7_1", frozenset({"CANCELLED"}), began=False)
    status, note = state_of(tmp_path, PlannedCell("0", (), job="7_1"))
    assert status == "missing"
    assert "before it began" in note


def test_an_old_error_counts_less_than_a_job_in_the_queue(tmp_path, monkeypatch, accounting):
    accounting[0]["7"] = JobState("7", frozenset({"PENDING"}))
    attempted(tmp_path, monkeypatch, job="7")
    (tmp_path / "0" / ERROR_FILE).write_text("failed before\n", encoding="utf-8")
    assert state_of(tmp_path)[0] == "running"


def test_a_launch_that_was_killed_leaves_its_jobs_to_be_found(tmp_path, accounting):
    for job in ("5_0", "7_0", "7_1"):
        (tmp_path / ".submitit" / job).mkdir(parents=True)
        (tmp_path / ".submitit" / job / f"{job}_submitted.pkl").touch()
    cells = tuple(PlannedCell(str(n), ()) for n in range(3))
    write_plan(tmp_path, SweepPlan((), (), cells, launch=Launch(((2, 1), (0,)), ("5_0",))))
    assert [cell.job for cell in read_plan(tmp_path).cells] == ["7_1", "7_0", "7_0"]


def test_the_job_queued_last_counts(tmp_path, monkeypatch, accounting):
    accounting[0]["7"] = JobState("7", frozenset({"CANCELLED"}))
    accounting[0]["9_0"] = JobState("9_0", frozenset({"PENDING"}))
    attempted(tmp_path, monkeypatch, job="7")
    assert state_of(tmp_path, PlannedCell("0", (), job="9_0"))[0] == "running"


def test_a_process_that_vanished_was_killed(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    attempted(tmp_path, monkeypatch)
    status, note = state_of(tmp_path)
    assert status == "killed"
    assert "ended without a result or an error" in note


def test_a_launch_that_failed_says_why(tmp_path):
    cell = PlannedCell("0", (), launch_error="sbatch: error: invalid partition")
    assert state_of(tmp_path, cell) == (
        "missing",
        "it was never started: sbatch: error: invalid partition",
    )


def test_nothing_at_all_is_missing(tmp_path):
    assert state_of(tmp_path) == ("missing", "it was never started")


def test_states_are_written_with_their_counts(tmp_path):
    states = [
        CellState(tmp_path / "0", ("a=1",), "done"),
        CellState(tmp_path / "deep" / "1", (), "failed", "bad", "bad\nTraceback"),
    ]
    write_states(tmp_path, states)
    known = json.loads((tmp_path / STATES).read_text(encoding="utf-8"))
    assert known["counts"]["done"] == known["counts"]["failed"] == 1
    assert known["counts"]["missing"] == 0
    assert known["cells"][1] == {
        "directory": "deep/1",
        "overrides": [],
        "status": "failed",
        "note": "bad",
        "error": "bad\nTraceback",
    }


def test_a_cell_goes_by_what_tells_it_from_the_others():
    assert own_overrides([("n=60", "layers=early"), ("n=60", "layers=late")]) == [
        "layers=early",
        "layers=late",
    ]
    assert own_overrides([("n=60", "layers=early")]) == ["n=60 layers=early"]
    assert own_overrides([]) == []


def test_swept_overrides_are_those_in_which_cells_differ():
    cells = [
        ("problems.n=60", "intervention.strengths=[0,1]", "+experiment=paper"),
        ("problems.n=60", "intervention.strengths=[2]", "~wandb"),
    ]
    assert swept_overrides(cells) == [
        {"intervention.strengths": "[0,1]", "experiment": "paper"},
        {"intervention.strengths": "[2]", "wandb": "removed"},
    ]
    assert swept_overrides(cells[:1]) == [{}]


def test_a_label_names_the_swept_overrides_that_no_field_tells():
    swept = [
        {"intervention": edit, "intervention.strengths": by, "model.path": path}
        for edit, by, path in (
            ("scale", "[0,1]", "one/seed_0"),
            ("scale", "[2]", "two/seed_0"),
            ("shift", "[2]", "two/seed_0"),
        )
    ]
    fields = [{"edit": own["intervention"], "model": "trained:seed_0"} for own in swept]
    assert untold(swept, fields)[1] == {"intervention.strengths": "[2]", "model.path": "two/seed_0"}
    fields = [{"edit": own["intervention"], "model": own["model.path"]} for own in swept]
    assert untold(swept, fields)[0] == {"intervention.strengths": "[0,1]"}
    by_number = [{"layers.list": "[0,1]"}, {"layers.list": "[2]"}]
    assert untold(by_number, [{"layers": "0-1"}, {"layers": "2"}]) == [{}, {}]
