"""What Hydra calls at the beginning and at the end of runs and sweeps."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mech_arith.errors import UserError
from mech_arith.paths import SUMMARY

without_result: list[Path] = []
"""Directories of the last sweep's cells that have no result; they decide the exit code."""


class SweepOverview(Callback):
    """Refuses a directory that must not be written; prints the table of a sweep's cells."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the directory before Hydra writes into it."""
        directory = Path(config.hydra.run.dir)
        _check_fresh(directory, taken=(directory / SUMMARY).exists())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the directory before Hydra writes into it."""
        without_result.clear()
        from mech_arith.results import find_runs

        directory = Path(config.hydra.sweep.dir)
        _check_fresh(directory, taken=directory.is_dir() and bool(find_runs(directory)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read back every job's directory, in the order of the jobs."""
        from mech_arith.overview import print_overview
        from mech_arith.results import find_runs

        directory = Path(config.hydra.sweep.dir)
        jobs = [path for path in directory.iterdir() if (path / ".hydra").is_dir()]
        jobs.sort(key=lambda path: (len(path.name), path.name))
        whole = set(find_runs(directory))
        without_result.extend(path for path in jobs if path not in whole)
        print_overview(jobs)
        sys.stdout.write(f"results: {directory}\n")


def _check_fresh(directory: Path, *, taken: bool) -> None:
    """End the program with one line if results stand there already, or none can be written.

    SystemExit, because Hydra passes over other exceptions of callbacks.
    """
    from mech_arith.results import check_writable

    try:
        if taken:
            raise UserError(
                f"expected a directory without results, got {directory}, which has some; choose "
                "another hydra.run.dir or hydra.sweep.dir, or move them away"
            )
        check_writable(directory)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
