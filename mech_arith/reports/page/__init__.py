"""One report per sweep: the tables of all cells put together, and a page that works offline."""

from collections.abc import Sequence
from pathlib import Path


def write_report(directory: Path, runs: Sequence[Path] | None = None) -> Path:
    """Write the report of a sweep into its directory; each file whole or not at all.

    Args:
        directory: gets `sweep.parquet`, `sweep_correlations.parquet`, `sweep_evidence.parquet` and
            `report.html`.
        runs: directories of runs or of sweeps to report on; `directory` itself by default.

    Returns:
        The path of the page.

    Raises:
        UserError: there is nothing to report on, or `directory` cannot be written.
    """
    from mech_arith.reports.page.build import build

    return build(directory, [directory] if runs is None else runs).page
