"""Converted models in the store: made by one process at a time, whole or not at all."""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mech_arith.common.errors import UserError

log = logging.getLogger(__name__)

STILL_S = 3600.0
"""A conversion that has written nothing for so many seconds was killed."""


@contextlib.contextmanager
def alone(target: Path, what: str) -> Iterator[None]:
    """Hold other processes off a directory of the store, and clear what killed ones have left.

    Where the file system's locks do not work, or lie, two processes may make the same directory.

    Raises:
        UserError: the store cannot be written.
    """
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.parent / f".{target.name}.lock", fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("waiting for another process that %s", what)
            lock.acquire()
    except OSError as error:
        log.info("no lock for %s (%s); going without", target, error.strerror or error)
    try:
        for leftover in target.parent.glob(f".{target.name[:100]}.*"):
            if leftover.is_dir() and time.time() - _written_s(leftover) > STILL_S:
                shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # the kernel frees it when this process ends
            lock.release()


def _written_s(directory: Path) -> float:
    """When something was last written below a directory, in seconds as `time.time`."""
    times = [directory.stat().st_mtime]
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # it is gone since
            times.append(path.stat().st_mtime)
    return max(times)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Whatever keeps the store from being written, in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"expected to write a converted model in {directory}, got "
            f"{error.strerror or error}; free the disk, or set MECH_ARITH_STORE=DIR to another"
        ) from None
