"""Sweeps that go on: which cells are run again, where, why, and that none is lost."""

import json
import os
import shlex
import shutil
import sys
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mech_arith import __main__ as entry
from mech_arith.__main__ import resumed_arguments
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.runs import sweeps
from mech_arith.common.runs.directories import find_runs
from mech_arith.common.runs.records import LOCK, begin, claimed, read_record, write_record
from mech_arith.common.runs.slurm import JobState
from mech_arith.common.runs.sweeps import PlannedCell, SweepPlan, cell_states, read_plan, write_plan
from mech_arith.evidence.results import load_run
from mech_arith.experiment import callbacks, job
from mech_arith.experiment.identity import Identity
from mech_arith.experiment.resume import SUPERSEDED, AskedCell, decide, set_aside
from tests.running import SMALL, exit_code, main

QUICK = (*SMALL, "intervention=none", "tracing.position_map=false")


def identity(name):
    return Identity(name, {"config": {"name": name}})


def asked(*overrides, name, is_tracked=False):
    return AskedCell(overrides, identity(name), overrides[0].partition("=")[2], is_tracked)


def finish(directory):
    (directory / SUMMARY).write_text('{"tables": {}}', encoding="utf-8")


@pytest.fixture
def sweep(tmp_path):
    """Cells that came to every end: 0 done, 1 failed, 2 killed, 3 never begun."""
    cells = tuple(PlannedCell(str(n), (f"seed={n}",)) for n in range(4))
    write_plan(tmp_path, SweepPlan(("seed=0,1,2,3",), (), cells))
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        begin(tmp_path / str(number), f"id {number}", identity(f"id {number}").determines, [])
    finish(tmp_path / "0")
    (tmp_path / "1" / ERROR_FILE).write_text("ValueError: bad\n\nTraceback ...\n", encoding="utf-8")
    return tmp_path


def four(**changes):
    return [asked(f"seed={n}", name=changes.get(f"id_{n}", f"id {n}")) for n in range(4)]


def ran(decisions):
    return [decision.cell.directory for decision in decisions if decision.run]


def test_only_what_has_no_result_is_run(sweep):
    decisions = decide(sweep, four())
    assert ran(decisions) == ["1", "2", "3"]
    why = [decision.why for decision in decisions]
    assert why[0] == "it is done"
    assert why[1] == "it failed: ValueError: bad"
    assert why[2].startswith("it was killed: its process")
    assert why[3] == "it is missing: it was never started"


def test_a_changed_cell_is_run_and_says_what_changed(sweep):
    decisions = decide(sweep, four(id_0="id new"))
    assert ran(decisions) == ["0", "1", "2", "3"]
    assert decisions[0].why == "it has changed: name id 0 -> id new"
    assert decisions[0].supersedes
    assert not any(decision.supersedes for decision in decisions[1:])


def test_a_grown_grid_keeps_the_directories_of_its_old_cells(sweep):
    grown = [asked("seed=9", name="id 9"), *four(), asked("seed=8", name="id 8")]
    decisions = decide(sweep, grown)
    assert [decision.cell.directory for decision in decisions] == ["9", "0", "1", "2", "3", "8"]
    assert not decisions[1].run


def test_a_cell_is_found_by_its_identity_under_other_overrides(sweep):
    decisions = decide(sweep, [asked("problems.seed=0", name="id 0")])
    assert [(d.cell.directory, d.run) for d in decisions] == [("0", False)]
    assert decisions[0].cell.overrides == ("problems.seed=0",)


def test_one_result_does_not_stand_for_two_cells(sweep):
    twice = [asked("seed=0", name="id 0"), asked("seed=00", name="id 0")]
    assert ran(decide(sweep, twice)) == ["00"]


def test_a_cell_is_found_again_though_a_launch_in_between_did_not_ask_for_it(sweep):
    write_plan(sweep, SweepPlan((), (), (PlannedCell("1", ("seed=1",)),)))
    (decision,) = decide(sweep, [asked("seed=0", name="id 0")])
    assert (decision.cell.directory, decision.run) == ("0", False)


def test_a_cell_that_never_began_is_found_by_its_identity(sweep):
    cell = PlannedCell("3", ("seed=3",), "id 3")
    write_plan(sweep, SweepPlan((), (), (cell,)))
    (decision,) = decide(sweep, [asked("seed=3", "threads=1", name="id 3")])
    assert (decision.cell.directory, decision.run) == ("3", True)


def test_a_damaged_result_is_computed_again(sweep):
    (sweep / "0" / SUMMARY).write_text('{"tables": {"effects": 3}}', encoding="utf-8")
    (decision,) = decide(sweep, [asked("seed=0", name="id 0")])
    assert decision.run
    assert not decision.supersedes
    assert "its result is damaged" in decision.why


def test_the_job_of_a_cell_that_is_left_alone_is_not_forgotten(sweep, monkeypatch):
    monkeypatch.setattr(
        sweeps, "job_states", lambda jobs: {j: JobState(j, frozenset({"PENDING"})) for j in jobs}
    )
    write_plan(sweep, SweepPlan((), (), (PlannedCell("3", ("seed=3",), job="12_0"),)))
    (decision,) = decide(sweep, [asked("seed=3", name="id 3")])
    assert not decision.run
    assert decision.cell.job == "12_0"


def test_a_cell_at_work_is_left_alone(sweep):
    with claimed(sweep / "2" / LOCK, patience_s=0.0, busy="busy"):
        decisions = decide(sweep, four())
    assert ran(decisions) == ["1", "3"]
    assert "it is running" in decisions[2].why


def test_a_finished_cell_that_was_not_logged_is_taken_up_for_that(sweep):
    (decision,) = decide(sweep, [asked("seed=0", name="id 0", is_tracked=True)])
    assert decision.run
    assert decision.why == "it is done, but for W&B"


def test_a_cell_with_a_bad_config_is_run_to_say_so(sweep):
    (decision,) = decide(sweep, [AskedCell(("seed=1",), None, "1")])
    assert decision.run
    assert decision.cell.directory == "1"


def test_a_superseded_result_is_moved_and_never_overwritten(sweep):
    for _ in range(2):
        (decision,) = decide(sweep, [asked("seed=0", name="id new")])
        set_aside(sweep, decision)
        assert not (sweep / "0").exists()
        (sweep / "0").mkdir()
        begin(sweep / "0", "id 0", {}, [])
        finish(sweep / "0")
    assert sorted(os.listdir(sweep / SUPERSEDED)) == ["0-id 0", "0-id 0-2"]
    assert find_runs(sweep) == [sweep / "0"]


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A real sweep of two cells, and of one that failed by an error of ours."""

    def go(*overrides):
        return main(monkeypatch, tmp_path, *QUICK, *overrides, sweep=True)

    return tmp_path / "run", go


@pytest.fixture(scope="module")
def two_cells(tmp_path_factory):
    """A finished sweep."""
    place = tmp_path_factory.mktemp("two_cells")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert main(monkeypatch, place, *QUICK, "layers=early,late", sweep=True) == 0
    return place / "run"


@pytest.fixture(scope="module")
def one_cell(tmp_path_factory):
    """A finished single run."""
    place = tmp_path_factory.mktemp("one_cell")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert main(monkeypatch, place, *QUICK) == 0
    return place / "run"


@pytest.fixture
def single(one_cell, tmp_path):
    """A copy of it that a test may change, with its times."""
    return shutil.copytree(one_cell, tmp_path / "run")


@pytest.fixture
def finished(two_cells, tmp_path):
    """A copy of it that a test may change, with its times."""
    return shutil.copytree(two_cells, tmp_path / "run")


def resume(monkeypatch, directory, *overrides):
    monkeypatch.setattr(sys, "argv", ["mech_arith", "-m", f"sweep.resume={directory}", *overrides])
    return exit_code()


def stamps(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*.parquet")}


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_missing(swept, monkeypatch, capfd):
    directory, go = swept
    assert go("layers=early,late", "problems.seed=1,2") == 0
    expected = {path.name: load_run(path).tables for path in find_runs(directory)}
    (directory / "1" / SUMMARY).unlink()
    for path in (directory / "2").rglob("*"):
        path.unlink() if path.is_file() else None
    before = stamps(directory / "0") | stamps(directory / "3")
    capfd.readouterr()

    assert resume(monkeypatch, directory) == 0
    said = capfd.readouterr().out
    assert "cell 1 (layers=early problems.seed=2): it was killed" in said.replace("\n", " ")
    assert "2 of 4 cells are to be run" in said
    assert stamps(directory / "0") | stamps(directory / "3") == before
    states = {state.directory.name: state.status for state in cell_states(directory)}
    assert states == {"0": "done", "1": "resumed", "2": "done", "3": "done"}
    for name, tables in expected.items():
        for table, numbers in tables.items():
            pd.testing.assert_frame_equal(load_run(directory / name).tables[table], numbers)


@pytest.mark.slow
def test_a_finished_sweep_has_nothing_left_to_do(finished, monkeypatch, capfd):
    directory = finished
    before = stamps(directory / "0") | stamps(directory / "1")
    assert resume(monkeypatch, directory) == 0
    assert "0 of 2 cells are to be run" in capfd.readouterr().out
    assert stamps(directory / "0") | stamps(directory / "1") == before


@pytest.mark.slow
def test_what_is_given_at_a_resume_wins(finished, monkeypatch):
    directory = finished
    before = stamps(directory / "0") | stamps(directory / "1")
    assert resume(monkeypatch, directory, "layers=early,middle,late", "tracing.n_components=3") == 0
    cells = read_plan(directory).cells
    assert [cell.directory for cell in cells] == ["2", "3", "4"]
    assert all("tracing.n_components=3" in cell.overrides for cell in cells)
    # The first two are no part of the sweep any more, and are as they were.
    assert [path.name for path in find_runs(directory)] == ["0", "1", "2", "3", "4"]
    assert stamps(directory / "0") | stamps(directory / "1") == before


def test_what_is_recorded_gives_way_to_what_is_given(tmp_path):
    directory = tmp_path / "it's, a=sweep"
    directory.mkdir()
    plan = SweepPlan(
        ("model=arith_decoder", "+x=1"), ("hydra/launcher=slurm", "hydra.mode=RUN"), ()
    )
    write_plan(directory, plan)
    arguments = [f"sweep.resume={directory}", "hydra/launcher=local", "x=2"]
    written = resumed_arguments(arguments)
    quoted = str(directory).replace("'", "\\'")
    assert written == [
        *("-m", f"hydra.sweep.dir='{quoted}'", "++hydra.sweeper.resume=true"),
        *("model=arith_decoder", "hydra/launcher=local", "x=2"),
    ]
    write_plan(directory, SweepPlan(("layers.list=[1,3]",), (), ()))
    again = resumed_arguments([f"sweep.resume={directory}", "layers=late"])
    assert again[3:] == ["layers=late"]
    (parsed,) = OverridesParser.create().parse_overrides([written[1]])
    assert parsed.value() == str(directory)
    assert resumed_arguments(["layers=late"]) == ["layers=late"]


@pytest.mark.slow
def test_a_cell_of_other_code_is_run_anew_and_the_old_one_kept(finished, monkeypatch, capfd):
    directory = finished
    record = read_record(directory / "1")
    assert record is not None
    other = replace(record, identity="0" * 64, determines=record.determines | {"code": "other"})
    write_record(directory / "1", other)
    before = stamps(directory / "1")
    capfd.readouterr()
    assert resume(monkeypatch, directory) == 0
    assert "cell 1 (layers=late): it has changed: code" in capfd.readouterr().out
    aside = directory / SUPERSEDED / "1-00000000"
    assert sorted(stamps(aside).values()) == sorted(before.values())
    assert find_runs(directory) == [directory / "0", directory / "1"]


@pytest.mark.slow
def test_a_failed_cell_stops_no_other_and_leaves_its_traceback(swept, monkeypatch, capfd):
    directory, go = swept
    real = job.run_cell

    def sometimes(session, fit, report, plan):
        if plan.seed == 1:
            raise RuntimeError("the GPU fell off\nthe bus")
        return real(session, fit, report, plan)

    monkeypatch.setattr(job, "run_cell", sometimes)
    assert go("problems.seed=1,2") == 1
    said = capfd.readouterr().out
    assert "RuntimeError: the GPU fell off the bus" in " ".join(said.split())
    text = (directory / "0" / ERROR_FILE).read_text(encoding="utf-8")
    assert text.startswith("RuntimeError: the GPU fell off the bus\n")
    assert "Traceback (most recent call last)" in text
    known = json.loads((directory / "cells.json").read_text(encoding="utf-8"))
    assert known["counts"] | {"failed": 1, "done": 1} == known["counts"]
    assert "Traceback" in known["cells"][0]["error"]
    assert find_runs(directory) == [directory / "1"]

    monkeypatch.setattr(job, "run_cell", real)
    assert resume(monkeypatch, directory) == 0
    assert not (directory / "0" / ERROR_FILE).exists()
    assert len(find_runs(directory)) == 2


def test_a_sweep_that_is_interrupted_says_how_to_go_on(swept, monkeypatch, capfd):
    directory, go = swept
    real = job.run_cell

    def stopped(session, fit, report, plan):
        if plan.seed == 2:
            raise KeyboardInterrupt
        return real(session, fit, report, plan)

    monkeypatch.setattr(job, "run_cell", stopped)
    assert go("problems.seed=1,2,3") == 130
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "interrupted by SIGINT: 1 done, 1 killed, 1 missing of 3 cells; go on: "
        f"python -m mech_arith -m sweep.resume={directory}"
    )
    known = json.loads((directory / "cells.json").read_text(encoding="utf-8"))
    assert known["counts"]["killed"] == 1
    assert known["cells"][1]["note"].endswith("was interrupted by SIGINT")
    assert [state.status for state in cell_states(directory)] == ["done", "killed", "missing"]
    monkeypatch.setattr(job, "run_cell", real)
    assert resume(monkeypatch, directory) == 0


@pytest.mark.parametrize("content", [None, "{", '{"overrides": 3}'])
def test_a_resume_of_nothing_is_one_line(tmp_path, monkeypatch, capsys, content):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content, encoding="utf-8")
    assert resume(monkeypatch, tmp_path) == 1
    error = capsys.readouterr().err
    assert "expected" in error
    assert len(error.strip().splitlines()) <= 1


@pytest.mark.slow
def test_a_sweep_is_not_begun_where_another_stands(finished, monkeypatch, tmp_path, capfd):
    assert main(monkeypatch, tmp_path, *QUICK, "layers=early,late", sweep=True) == 1
    assert f"sweep.resume={finished}" in capfd.readouterr().err


@pytest.mark.slow
def test_two_launches_do_not_work_at_one_sweep(swept, monkeypatch, capfd):
    directory, go = swept
    assert go("layers=early,late") == 0
    with claimed(directory / ".sweep.lock", patience_s=0.0, busy="busy"):
        assert resume(monkeypatch, directory) == 1
    assert "no other launch at work" in capfd.readouterr().err
    assert callbacks.without_result == []


def test_a_sweep_whose_end_fails_does_not_pass_for_a_good_one(swept, monkeypatch, capfd):
    directory, go = swept

    def fails(_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(callbacks, "cell_states", fails)
    assert go("layers=early") == 1
    said = capfd.readouterr()
    (line,) = (row for row in f"{said.out}\n{said.err}".splitlines() if "the disk is gone" in row)
    assert f"expected to read and write in {directory}, got the disk is gone; " in line
    assert f"sweep.resume={directory}" in line


@pytest.mark.slow
def test_names_of_ones_own_for_the_directories(swept):
    directory, go = swept
    assert go("problems.seed=1,2", "hydra.sweep.subdir='seed ${problems.seed}'") == 0
    assert [path.name for path in find_runs(directory)] == ["seed 1", "seed 2"]


@pytest.mark.slow
def test_a_directory_that_says_who_runs_it_is_the_planned_one(swept):
    directory, go = swept
    assert go("problems.seed=1,2", "hydra.sweep.subdir='${hydra.job.id}-${now:%f}'") == 0
    planned = [cell.directory for cell in read_plan(directory).cells]
    assert [path.name for path in find_runs(directory)] == planned


@pytest.mark.slow
def test_a_name_with_quotes_is_found_again(swept, monkeypatch):
    directory, go = swept
    names = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    assert (
        go("template.expression=a-b,(a+b)", names, "hydra.job.config.override_dirname.kv_sep=:")
        == 0
    )
    (first,) = (run for run in find_runs(directory) if "'" in run.name)
    (first / SUMMARY).unlink()
    assert resume(monkeypatch, directory) == 0
    assert len(find_runs(directory)) == 2


@pytest.mark.slow
def test_a_cell_that_cannot_be_launched_stops_no_other(swept, capfd):
    directory, go = swept
    directory.mkdir(parents=True)
    (directory / "0").write_text("in the way", encoding="utf-8")
    assert go("problems.seed=1,2") == 1
    states = cell_states(directory)
    assert [state.status for state in states] == ["missing", "done"]
    assert "File exists" in states[0].note


@pytest.mark.slow
def test_another_sweeper_ends_with_its_table_too(swept, capfd):
    directory, go = swept
    assert go("layers=early,late", "hydra/sweeper=basic") == 0
    assert "sweep.resume" not in capfd.readouterr().out
    assert not (directory / "sweep.json").exists()


@pytest.mark.slow
def test_flags_that_choose_the_config_are_recorded(swept, monkeypatch, tmp_path):
    directory, _ = swept
    (tmp_path / "conf" / "layers").mkdir(parents=True)
    (tmp_path / "conf" / "layers" / "mine.yaml").write_text("part: late\n", encoding="utf-8")
    places = [f"hydra.sweep.dir={directory}", f"store.path={tmp_path}/store"]
    command = ["-m", "--config-dir", str(tmp_path / "conf"), *places, *QUICK, "layers=mine,early"]
    monkeypatch.setattr(sys, "argv", ["mech_arith", *command])
    assert exit_code() == 0
    (directory / "0" / SUMMARY).unlink()
    assert resume(monkeypatch, directory) == 0
    assert [state.status for state in cell_states(directory)] == ["resumed", "done"]


@pytest.mark.slow
def test_a_damaged_table_is_computed_again_at_a_resume(swept, monkeypatch):
    directory, go = swept
    assert go("layers=early,late") == 0
    table = directory / "0" / "correlations.parquet"
    whole = load_run(directory / "0").tables["correlations"]
    table.write_bytes(table.read_bytes()[:300])
    assert [state.status for state in cell_states(directory)] == ["failed", "done"]
    assert resume(monkeypatch, directory) == 0
    pd.testing.assert_frame_equal(load_run(directory / "0").tables["correlations"], whole)


def test_two_cells_in_one_directory_are_refused(swept, capfd):
    directory, go = swept
    assert go("problems.seed=1,2", "hydra.sweep.subdir=same") == 1
    assert "a directory of its own" in capfd.readouterr().err
    assert not (directory / "same").exists()


@pytest.mark.slow
def test_a_cell_run_again_in_its_own_directory_is_kept(single, tmp_path, monkeypatch, capfd):
    before = stamps(single)
    assert main(monkeypatch, tmp_path, *QUICK) == 0
    assert stamps(tmp_path / "run") == before
    assert "finished before, kept" in capfd.readouterr().out
    assert main(monkeypatch, tmp_path, *QUICK, "problems.seed=5") == 1
    assert stamps(tmp_path / "run") == before
    assert "expected a directory without results" in capfd.readouterr().err
    # Nor does a config that is no cell at all touch what stands there.
    before = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_bytes()
    assert main(monkeypatch, tmp_path, *QUICK, "problems.n=-5") == 1
    assert (tmp_path / "run" / ".hydra" / "overrides.yaml").read_bytes() == before
    assert not (tmp_path / "run" / ERROR_FILE).exists()


def contents(directory):
    """Every file and its bytes; where it is a lock there are none."""
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_cell_that_another_process_works_at_is_left_to_it(single, tmp_path, monkeypatch, capfd):
    (single / SUMMARY).unlink()
    before = contents(tmp_path / "run")
    monkeypatch.setattr(entry, "PATIENCE_S", 0.1)
    with claimed(tmp_path / "run" / LOCK, patience_s=0.0, busy="busy"):
        for another, expected in (
            ("problems.seed=0", "no other process at work in "),
            ("problems.seed=5", "no other process at work in "),
            ("problems.n=-5", "at least 4 problems to fit 4 components"),
        ):
            capfd.readouterr()
            assert main(monkeypatch, tmp_path, *QUICK, another) == 1
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith(f"error: expected {expected}")
            assert contents(tmp_path / "run") == before
    # Nor does a config that is no cell at all leave its error in a cell that may go on.
    assert main(monkeypatch, tmp_path, *QUICK, "problems.n=-5") == 1
    assert contents(tmp_path / "run") == before


def test_a_launch_that_waited_for_another_cells_end_writes_nothing(
    single, tmp_path, monkeypatch, capfd
):
    """Hydra would write its folder before the wait, and the error would lie in a whole cell."""
    summary = single / SUMMARY
    expected, whole = contents(tmp_path / "run"), summary.read_bytes()
    summary.unlink()
    at_work = threading.Event()

    def other_process():
        with claimed(tmp_path / "run" / LOCK, patience_s=0.0, busy="busy"):
            at_work.set()
            time.sleep(2.0)
            summary.write_bytes(whole)

    thread = threading.Thread(target=other_process)
    thread.start()
    at_work.wait()
    assert main(monkeypatch, tmp_path, *QUICK, "problems.seed=5") == 1
    thread.join()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: expected a directory without results, or with this cell's own")
    assert contents(tmp_path / "run") == expected


@pytest.mark.slow
def test_a_sweep_and_a_single_run_do_not_share_a_directory(swept, tmp_path, monkeypatch, capfd):
    directory, go = swept
    assert main(monkeypatch, tmp_path, *QUICK) == 0
    (directory / SUMMARY).unlink()  # it was killed, say
    before = contents(directory)
    assert go("layers=early,late") == 1
    assert "expected a directory of a sweep" in capfd.readouterr().err
    assert contents(directory) == before

    shutil.rmtree(directory)
    assert go("layers=early") == 0
    before = contents(directory)
    assert main(monkeypatch, tmp_path, *QUICK) == 1
    assert "expected a directory without a sweep" in capfd.readouterr().err
    assert contents(directory) == before


def test_figures_that_a_kill_has_left_undrawn_are_drawn(single, tmp_path, monkeypatch):
    figures = single / "figures"
    names = sorted(path.name for path in figures.iterdir())
    shutil.rmtree(figures)
    assert main(monkeypatch, tmp_path, *QUICK) == 0
    assert sorted(path.name for path in figures.iterdir()) == names


@pytest.mark.slow
def test_the_command_in_the_summary_gives_the_same_numbers(swept, monkeypatch, tmp_path):
    directory, go = swept
    assert go("layers=early,late", "template.expression=a-b,(a+b)-c") == 0
    run = load_run(directory / "3")
    program, flag, module, *overrides = shlex.split(run.summary["command"])
    assert (program, flag, module) == ("python", "-m", "mech_arith")
    monkeypatch.setattr(sys, "argv", ["mech_arith", *overrides, f"hydra.run.dir={tmp_path}/again"])
    assert exit_code() == 0
    again = load_run(tmp_path / "again")
    assert again.summary["identity"] == run.summary["identity"]
    for name, table in run.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
