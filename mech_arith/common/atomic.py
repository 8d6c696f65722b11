"""Files that are written whole or not at all: under a temporary name first, then renamed.

The temporary name stands in the same directory, so renaming is atomic. It starts with a dot and
ends in `.tmp`; only a kill leaves such a file behind. `tempfile` is no help here: its files can be
read by their owner alone, and stores are shared.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

LONGEST = 100
"""Characters of a file's name that its temporary name repeats; file systems allow 255."""


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
            os.replace(path, target)


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
