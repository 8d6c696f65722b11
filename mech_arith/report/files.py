"""The files of a report, each written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mech_arith.errors import UserError

TABLES = {
    "effects": "sweep.parquet",
    "correlations": "sweep_correlations.parquet",
    "evidence": "sweep_evidence.parquet",
}
"""Tables of the cells -> the file with those of all."""

PAGE = "report.html"


COMPARISON = ("comparison.parquet", "comparison.csv", "comparison.html")
"""Of two runs side by side: the table of differences twice, and the page."""


@contextlib.contextmanager
def outputs(directory: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Temporary paths of files in a directory, renamed at the end, in this order.

    Raises:
        UserError: they cannot be written.
    """
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
