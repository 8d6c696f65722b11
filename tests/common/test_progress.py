import logging
import os
import pty
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from mech_arith.common import progress as module
from mech_arith.common.progress import counted, duration, progress
from tests.waiting import wait


class Clock:
    """Stands in for `time` in the module; tells what it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    caplog.set_level(logging.INFO)
    return clock


def take(work: Any, clock: Clock, seconds: float) -> list[object]:
    done = []
    for item in progress(work, description="tracing", unit="layers"):
        clock.now += seconds
        done.append(item)
    return done


def test_short_work_shows_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert take(["x", "y"], clock, 0.9) == ["x", "y"]
    assert caplog.messages == []


def test_a_number_counts_up_to_it(clock: Clock) -> None:
    assert take(3, clock, 0) == [0, 1, 2]
    assert take(0, clock, 0) == []


def test_work_over_two_seconds_is_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    take(4, clock, 2.0)
    assert caplog.messages == [
        "tracing: 1/4 layers (25%), 0.5/s, about 6.0 s left",
        "tracing: 2/4 layers (50%), 0.5/s, about 4.0 s left",
        "tracing: 4/4 layers (100%), 0.5/s",
        "tracing: 4 layers in 8.0 s",
    ]


def test_lines_grow_sparse(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """In an hour of work a line comes every minute at least, and seldom more often."""
    take(3600, clock, 1.0)
    assert 60 <= len(caplog.messages) < 70


def test_a_unit_of_work_that_takes_minutes_is_not_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LONGEST_SILENCE_SECONDS", 0.05)
    caplog.set_level(logging.INFO)
    with progress(4, description="tracing", unit="layers"):
        wait(lambda: len(caplog.messages) >= 2)
    assert set(caplog.messages[:2]) == {"tracing: 0/4 layers (0%)"}


def test_a_generator_has_no_total(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    take((n for n in range(2)), clock, 5.0)
    assert caplog.messages[0] == "tracing: 1 layer in 5.0 s"


def test_counting_by_hand_with_a_note(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress(10, description="training", unit="steps") as bar:
        clock.now += 3
        bar.advance(6, note="loss 0.25")
        clock.now += 1
        bar.advance(4)
    assert caplog.messages == [
        "training: 6/10 steps (60%), 2/s, about 2.0 s left; loss 0.25",
        "training: 10 steps in 4.0 s; loss 0.25",
    ]


def test_an_error_claims_no_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> Iterator[int]:
        clock.now += 1
        yield 1
        clock.now += 60
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(progress(failing(), description="tracing", unit="layers"))
    assert caplog.messages == []


def test_a_finished_progress_counts_no_more() -> None:
    bar = progress(1, description="tracing", unit="layers")
    with pytest.raises(RuntimeError, match="use it in a `with` statement"):
        bar.advance()


def test_a_negative_number_of_units() -> None:
    with pytest.raises(ValueError, match="expected at least 0 layers, got -1"):
        progress(-1, description="tracing", unit="layers")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(float(seconds)) == text


def test_one_thing_and_several() -> None:
    assert [counted(number, "shot") for number in (0, 1, 4)] == ["0 shots", "1 shot", "4 shots"]


def on_terminal(code: str, *, columns: int = 80) -> str:
    """What a program writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how a terminal says that its other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


@pytest.mark.parametrize(("quiet_seconds", "shown"), [(0.0, True), (60.0, False)])
def test_a_terminal_gets_a_bar(quiet_seconds: float, shown: bool) -> None:
    written = on_terminal(
        f"""
        import time
        from mech_arith.common import progress
        progress.QUIET_SECONDS = {quiet_seconds}
        with progress.progress(4, description="training", unit="steps") as bar:
            for _ in range(4):
                time.sleep(0.15)
                bar.advance(note="loss 0.5")
        """
    )
    assert ("training" in written) == shown
    assert ("loss 0.5" in written) == shown


def test_a_terminal_of_no_width_gets_log_lines() -> None:
    written = on_terminal(
        """
        import logging
        from mech_arith.common import progress
        logging.basicConfig(level=logging.INFO)
        progress.QUIET_SECONDS = 0.0
        list(progress.progress(2, description="training", unit="steps"))
        """,
        columns=0,
    )
    assert "training: 2 steps in" in written
