"""What a cell writes down about itself while it is at work: who it is, and every attempt at it."""

import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mech_arith.common.atomic import read_bytes, write_text
from mech_arith.common.errors import UserError

RECORD = "cell.json"
"""In a cell's directory, from its first moment on."""

LOCK = ".running.lock"
"""In a cell's directory; locked while a process is at work there. The kernel frees it at the
process's end, however that comes."""

PARTS = "parts"
"""In a cell's directory: what it has finished, until it is whole."""

FORMAT = 1

PATIENCE_S = 60.0
"""How long a cell waits for another process to leave its directory: a requeued job may start before
the file system has noticed that the node of the first one is gone."""


@dataclass(frozen=True)
class Attempt:
    """One process that worked, or works, at a cell."""

    started: str
    """UTC, ISO 8601."""
    host: str
    pid: int
    slurm_job: str | None = None
    """As `sacct` names it: 12, or 12_3 in an array."""
    interrupted: str | None = None
    """The signal that has ended it, where it came to say so."""


@dataclass(frozen=True)
class CellRecord:
    """A cell by its identity, and how it came to be."""

    identity: str
    """SHA-256 of `determines`."""
    determines: dict[str, Any]
    """All that determines the cell's numbers; see `identity.identify`."""
    overrides: tuple[str, ...]
    """Of the command line."""
    attempts: tuple[Attempt, ...] = ()
    tracked: str | None = None
    """The W&B mode in which the finished cell has been logged; None if it has not yet been."""
    cell: dict[str, Any] = field(default_factory=dict)
    """The fields that name it, as in its summary: a cell that is killed keeps its name."""
    format: int = field(default=FORMAT, kw_only=True)


def read_record(directory: Path) -> CellRecord | None:
    """The record in a cell's directory; None if there is none, or none that can be read."""
    try:
        known = json.loads(read_bytes(directory / RECORD))
        if known["format"] != FORMAT:
            return None
        attempts = tuple(Attempt(**attempt) for attempt in known.pop("attempts"))
        return CellRecord(**known | {"attempts": attempts, "overrides": tuple(known["overrides"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(directory: Path, record: CellRecord) -> None:
    """Write the record whole or not at all."""
    write_text(directory / RECORD, json.dumps(asdict(record), indent=2) + "\n")


def begin(
    directory: Path,
    identity: str,
    determines: dict[str, Any],
    overrides: Sequence[str],
    cell: Mapping[str, Any] | None = None,
) -> CellRecord:
    """Record that this process begins to work at a cell, after all attempts before it."""
    known = read_record(directory)
    attempts = known.attempts if known is not None and known.identity == identity else ()
    this = Attempt(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        pid=os.getpid(),
        slurm_job=_slurm_job(),
    )
    record = CellRecord(
        identity, determines, tuple(overrides), (*attempts, this), cell=dict(cell or {})
    )
    write_record(directory, record)
    return record


def mark_tracked(directory: Path, record: CellRecord, mode: str) -> None:
    """Record that the finished cell has been logged to W&B."""
    write_record(directory, replace(record, tracked=mode))


def mark_interrupted(directory: Path, signal_name: str, *, processes: Collection[int]) -> None:
    """Record that a signal has ended the last attempt at a cell, if it was one of these processes'.

    On a full disk there is no record of it.
    """
    record = read_record(directory)
    if record is None or not record.attempts or record.attempts[-1].pid not in processes:
        return
    *earlier, last = record.attempts
    if last.host == socket.gethostname() and last.interrupted is None:
        last = replace(last, interrupted=signal_name)
        with suppress(OSError):
            write_record(directory, replace(record, attempts=(*earlier, last)))


@contextmanager
def claimed(path: Path, *, patience_s: float, busy: str) -> Iterator[None]:
    """Hold a lock file, so that no two processes work at the same thing.

    Where the file system knows no locks, nothing is held; where its locks lie, two processes hold
    it. Whatever is done under it must then be double work, and no more.

    Args:
        path: of the lock file; its directory is made.
        patience_s: seconds to wait for another process.
        busy: what the error says after that.

    Raises:
        UserError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=patience_s, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        with suppress(OSError):  # the kernel frees it when this process ends
            lock.release()


def is_running(directory: Path) -> bool:
    """Whether a process is at work at a cell."""
    if not (directory / LOCK).is_file():
        return False
    lock = FileLock(directory / LOCK, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    with suppress(OSError):
        lock.release()
    return False


def _slurm_job() -> str | None:
    """The job that was queued for this cell alone, and not an allocation that runs many."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
