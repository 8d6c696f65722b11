"""The files of a report, each written whole or not at all."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mech_arith.common.atomic import atomic
from mech_arith.common.errors import UserError

TABLES = {
    "effects": "sweep.parquet",
    "correlations": "sweep_correlations.parquet",
    "evidence": "sweep_evidence.parquet",
    "hypotheses": "sweep_hypotheses.parquet",
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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic(*(directory / name for name in names)) as paths:
            for path in paths:
                path.touch()
            yield dict(zip(names, paths, strict=True))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"expected a directory for the report that can be written, got {str(directory)!r} "
            f"({reason}); choose another with --out"
        ) from error
