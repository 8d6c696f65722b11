"""Signals that end the program, and the processes that must end with it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, a plain `kill` (a batch system's too), a terminal that is closed."""

GRACE_S = 3.0
"""How long a worker may take to end by itself. What it has finished is on disk in any case."""

POLL_S = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal has asked the program to end. Libraries treat it as they treat Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """The signal behind an exception; SIGINT if it does not say."""
    return signal.Signals(stop.number if isinstance(stop, Interrupted) else signal.SIGINT)


_received: list[int] = []
"""Signals that have come: the exception may be lost on its way."""


@contextlib.contextmanager
def interruptible(numbers: Sequence[int] = ENDING) -> Iterator[None]:
    """Let signals raise `Interrupted`, in the main thread.

    One that the program was started to ignore (as under nohup) stays ignored.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        _received.append(number)
        raise Interrupted(number)

    try:
        with _handled(interrupt, numbers):
            yield
    finally:
        _received.clear()


def raise_if_received() -> None:
    """Raise `Interrupted` anew if a signal came: compiled code may make another error of it.

    Raises:
        Interrupted: a signal has come.
    """
    if _received:
        raise Interrupted(_received[0])


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold the signals off while the program tidies up, which must be short."""
    with _handled(signal.SIG_IGN, ENDING):
        yield


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, numbers: Sequence[int]
) -> Iterator[None]:
    known = {number: signal.getsignal(number) for number in numbers}
    changed = {number: old for number, old in known.items() if old is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)


@contextlib.contextmanager
def workers(errors: Path) -> Iterator[set[int]]:
    """End the processes that are started inside, and those that these start, if a signal comes.

    Args:
        errors: file to which what they write to standard error is appended: each would tell the
            terminal of its own end.

    Yields:
        the ids of the processes that were ended, once they are.
    """
    before, ended = children({os.getpid()}), set[int]()
    with _errors_of_children_to(errors):
        try:
            yield ended
        except KeyboardInterrupt:
            with uninterrupted():
                ended |= end(children({os.getpid()}) - before)
            raise


def end(processes: Collection[int]) -> set[int]:
    """End processes and all that they have started; which ones those were.

    They are asked to first, and have `GRACE_S` seconds.
    """
    asked = set(processes) | children(processes)
    _signal(processes, signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while alive := _alive(asked | children(asked)):
        asked |= alive
        if time.monotonic() > deadline:
            _signal(alive, signal.SIGKILL)
        time.sleep(POLL_S)
    return asked


def children(of: Collection[int]) -> set[int]:
    """The processes that some processes have started, and those that these have, and so on."""
    parents, found = _parents(), set[int]()
    new = set(of)
    while new:
        new = {process for process, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _alive(processes: Collection[int]) -> set[int]:
    for process in processes:
        # A child that has ended stays in the list until somebody asks for it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
    return set(processes) & set(_parents())


def _signal(processes: Collection[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _parents() -> dict[int, int]:
    """Every process that has not ended, and the one that has started it."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="], stdout=subprocess.PIPE
        )
        rows = [line.split() for line in listed.stdout.decode().splitlines()]
        return {int(row[0]): int(row[1]) for row in rows if not row[2].startswith("Z")}
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            # The name stands in parentheses, and may hold any sign.
            state, parent, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if state not in ("Z", "X"):
                found[int(path.parent.name)] = int(parent)
    return found


@contextlib.contextmanager
def _errors_of_children_to(path: Path) -> Iterator[None]:
    """Let processes that are started inside write their errors to a file; this one's stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    own = os.dup(2)
    try:
        with path.open("ab") as file, os.fdopen(os.dup(own), "w", buffering=1) as errors:
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stderr(errors):
                yield
    finally:
        os.dup2(own, 2)
        os.close(own)
