"""The files of a report, each written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mech_arith.errors import UserError

TABLES = {
    "effects": "sweep.parquet",
    "correlations": "sweep_correlations.parquet",
    "evidence": "sweep_evidence.parquet",
}
"""Tables of the cells -> the file with those of all."""

PAGE = "report.html"


@contextlib.contextmanager
def outputs(directory: Path) -> Iterator[dict[str, Path]]:
    """Temporary paths of the report's files, renamed at the end, the page last.

    Raises:
        UserError: they cannot be written.
    """
    names = (*TABLES.values(), PAGE)
    paths = {name: directory / f".{name}.{os.getpid()}.tmp" for name in names}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            path.write_bytes(b"")
        yield paths
        for name, path in paths.items():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, directory / name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"expected a directory for the report that can be written, got {str(directory)!r} "
            f"({reason}); choose another with --out"
        ) from error
    finally:
        for path in paths.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
