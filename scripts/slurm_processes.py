"""Processes that a testbed starts and ends, and no others."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mech_arith.common.errors import UserError


@dataclass(frozen=True)
class Process:
    """A process, known by more than its id: that may be another's by now."""

    name: str
    pid: int
    started: str
    """When, in the kernel's ticks since the machine started."""

    @property
    def runs(self) -> bool:
        return start_of(self.pid) == self.started

    def stop(self) -> None:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            if self.runs:
                os.kill(self.pid, kind)
                wait(lambda: not self.runs, seconds=15)


def start_of(pid: int) -> str | None:
    """When a process started; None if there is none."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child that has ended stays until it is asked for
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is a name in parentheses, in which anything may stand.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def free_ports(n: int) -> list[int]:
    """Distinct ports on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether it comes true within that time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return true


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this program as Ctrl-C does, so that what is open is closed."""

    def end(number: int, _: object) -> None:
        for each in kinds:
            signal.signal(each, signal.SIG_IGN)  # once is enough: nothing may cut the closing short
        sys.exit(128 + number)

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, end) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Wait for a command, and end it should this be interrupted; its exit code as a shell's.

    Raises:
        UserError: there is no such program.
    """
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise UserError(
            f"expected a command that can be run, got {command[0]!r}: {error.strerror}"
        ) from None
    try:
        code = child.wait()
    finally:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
    return code if code >= 0 else 128 - code
