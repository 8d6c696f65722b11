"""Signals: each ends the program with one line, its own exit code, and no process left behind."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mech_arith.common.interrupts import Interrupted, end, interruptible, raise_if_received
from mech_arith.common.runs.records import Attempt, read_record
from mech_arith.common.runs.sweeps import cell_states
from mech_arith.evidence.results import load_summary
from tests.running import SMALL, exit_code
from tests.waiting import PATIENCE_S, wait

QUICK = (*SMALL, "intervention=none", "tracing.position_map=false")
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture(autouse=True)
def _signals_count() -> Iterator[None]:
    """A shell starts what it runs in the background so that it ignores Ctrl-C."""
    known = {number: signal.getsignal(number) for number, _ in CODES}
    for number in known:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, handler)
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


def started(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mech_arith", *arguments, *QUICK, f"store.path={tmp_path}/store"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def attempt_at(cell: Path) -> Attempt:
    """The attempt at a cell, once one has begun."""
    return wait(lambda: read_record(cell)).attempts[-1]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), CODES[:2])
def test_a_single_run_says_how_to_go_on(tmp_path, monkeypatch, number, code):
    directory = tmp_path / "a run, of mine"
    begun = started(tmp_path, f"hydra.run.dir='{directory}'")
    attempt_at(directory)
    begun.send_signal(number)
    _, errors = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == code, errors
    (line,) = errors.splitlines()
    said, _, command = line.partition("; go on: ")
    assert said == f"interrupted by {number.name}"
    program, flag, module, *arguments = shlex.split(command)
    assert (program, flag, module) == ("python", "-m", "mech_arith")
    assert attempt_at(directory).interrupted == number.name
    assert not (directory / "error.txt").exists()

    monkeypatch.setattr(sys, "argv", ["mech_arith", *arguments])
    assert exit_code() == 0
    assert load_summary(directory)["attempts"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_ends_with_its_cells_written_down(tmp_path, launcher):
    sweep = tmp_path / "sweep"
    arguments = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={sweep}", "problems.seed=1,2,3"]
    begun = started(tmp_path, "-m", *arguments)
    n_workers = {"basic": 1, "local": 2}[launcher]
    attempts = [attempt_at(sweep / str(number)) for number in range(n_workers)]
    begun.send_signal(signal.SIGTERM)  # to the launching process alone
    _, errors = begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode == 143, errors
    (line,) = errors.splitlines()
    n_missing = 3 - n_workers
    assert line == (
        f"interrupted by SIGTERM: {n_workers} killed, {n_missing} missing of 3 cells; go on: "
        f"python -m mech_arith -m sweep.resume={sweep}"
    )
    assert not [attempt for attempt in attempts if is_alive(attempt.pid)]
    known = json.loads((sweep / "cells.json").read_text(encoding="utf-8"))
    assert known["counts"]["killed"] == n_workers
    notes = [state.note for state in cell_states(sweep) if state.status == "killed"]
    assert all("was interrupted by SIG" in note for note in notes), notes


def test_every_signal_becomes_an_exception_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number, _ in CODES]
    for number, code in CODES:
        with pytest.raises(Interrupted) as stop, interruptible():
            signal.raise_signal(number)
        assert 128 + stop.value.number == code
    assert [signal.getsignal(number) for number, _ in CODES] == before


def test_a_signal_that_compiled_code_makes_another_error_of_is_not_lost():
    """safetensors does so: the cell would pass for a failed one."""
    with interruptible():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            raise_if_received()
    raise_if_received()  # it is over


def test_what_is_to_be_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_process_is_left_behind(stubborn):
    """Not even one that takes no notice of being asked, nor what it has started."""
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN);" if stubborn else ""
    child = f"import signal, time; {ignore} print('there', flush=True); time.sleep(1000)"
    code = (
        f"import signal, subprocess, sys, time; {ignore}"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True);"
        "time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        lines = sorted(process.stdout.readline().strip() for _ in range(2))
        grandchild = int(lines[0])
        assert end({process.pid}) == {process.pid, grandchild}
        assert not is_alive(grandchild)
