"""Converted models in the store: made by one process at a time, whole or not at all."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mech_arith.common.errors import UserError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(target: Path, what: str) -> Iterator[None]:
    """Hold other processes off a directory of the store, and clear what killed ones have left.

    Raises:
        UserError: the store cannot be written.
    """
    lock = FileLock(target.parent / f".{target.name}.lock", fallback_to_soft=False)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("waiting for another process that %s", what)
            lock.acquire()
    try:
        for leftover in target.parent.glob(f".{target.name[:100]}.*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
        yield
    finally:
        lock.release()


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
