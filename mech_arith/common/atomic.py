"""Files that are written whole or not at all: under a temporary name first, then renamed.

The temporary name stands in the same directory, so renaming is atomic. It starts with a dot and
ends in `.tmp`; only a kill leaves such a file behind. `tempfile` is no help here: its files can be
read by their owner alone, and stores are shared.

Nothing here relies on a lock. On a network file system, where two nodes may both believe that they
hold one, the worst that happens is that both do the same work.
"""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LONGEST = 100
"""Characters of a file's name that its temporary name repeats; file systems allow 255."""

ABANDONED_S = 24 * 3600.0
"""A temporary file that is older, in seconds, was left by a writer that was killed."""

NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
"""What a file system says that has no hard links."""


@contextlib.contextmanager
def atomic(*targets: Path, before: Callable[[], object] | None = None) -> Iterator[list[Path]]:
    """Yield a temporary path for each target; at the end flush and rename them, in their order.

    After an error in the block nothing is renamed, and the targets are as they were. A target may
    be a directory, which is then new or empty.

    Args:
        targets: what is written.
        before: called when all files are on the disk and none is renamed yet.

    Raises:
        OSError: a file was not written, or cannot be flushed or renamed.
    """
    with temporary(*targets) as paths:
        yield paths
        for path in paths:
            flush(path)
        if before is not None:
            before()
        for path, target in zip(paths, targets, strict=True):
            _rename(path, target)


@contextlib.contextmanager
def temporary(*targets: Path) -> Iterator[list[Path]]:
    """Yield a temporary path beside each target; what is there at the end is removed."""
    paths = [
        target.with_name(f".{target.name[:LONGEST]}.{secrets.token_hex(8)}.tmp")
        for target in targets
    ]
    try:
        yield paths
    finally:
        for path in paths:
            # An error on the way in must not be hidden by one from tidying up.
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _rename(path: Path, target: Path) -> None:
    """Rename a file. A server that is asked twice, as its first answer was lost, says that it is
    not there: by then it stands where it should.
    """
    inode = path.stat().st_ino
    try:
        os.replace(path, target)
    except FileNotFoundError:
        if not target.exists() or target.stat().st_ino != inode:
            raise


def sweep_abandoned(directory: Path) -> None:
    """Remove what writers left in a directory that were killed long ago."""
    for path in directory.glob(".*.tmp"):
        # Another process may be sweeping too.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def flush(path: Path) -> None:
    """Wait until a file, or every file in a directory, is on the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() or file == path:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as [new]:
        new.write_bytes(content)


def write_new(path: Path, content: bytes) -> bool:
    """Write a file whole, unless there is one: it is never taken from those who read it.

    Returns:
        Whether it was written. Of several processes that try, also on several nodes and without any
        lock, one is told so; where the file system has no hard links, all may be.
    """
    with temporary(path) as [new]:
        new.write_bytes(content)
        flush(new)
        try:
            os.link(new, path)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.is_file():
                # A server that is asked twice says so of the very file that it has just linked.
                return path.stat().st_ino == new.stat().st_ino
            if not isinstance(error, FileExistsError) and error.errno not in NO_LINKS:
                raise
            _rename(new, path)
    return True


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Not mapped into memory: a process that touches a mapped page of a file which another node has
    removed is killed (SIGBUS).

    Raises:
        FileNotFoundError: there is none, or it is gone again and again while it is being read.
        OSError: it cannot be read.
    """
    for _ in range(3):
        try:
            return path.read_bytes()
        except OSError as error:
            # Another node has replaced it since it was opened: the name leads to the new one.
            if error.errno != errno.ESTALE:
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
