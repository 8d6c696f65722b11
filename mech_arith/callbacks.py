"""What Hydra calls at the beginning and at the end of runs and sweeps."""

import copy
import logging
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mech_arith.errors import UserError
from mech_arith.paths import SUMMARY
from mech_arith.sweeps import (
    PLAN,
    WHOLE,
    CellState,
    PlannedCell,
    cell_states,
    states_of,
    write_states,
)

log = logging.getLogger("mech_arith")

without_result: list[Path] = []
"""Directories of the last sweep's cells that have no result; they decide the exit code."""

unended: list[Path] = []
"""Directories of sweeps of which the end has not been told. Hydra passes over errors of callbacks:
without this a sweep whose end fails would pass for a good one."""


class SweepOverview(Callback):
    """Refuses a directory that must not be written; ends a sweep with its tables and report."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the config and at the directory before Hydra writes into it."""
        directory = Path(config.hydra.run.dir)
        _check_names(config)
        taken = (directory / SUMMARY).exists() and not _is_same_cell(config, directory)
        _check_fresh(directory, taken=taken, hint="choose another hydra.run.dir, or move them away")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the directory before Hydra writes into it."""
        without_result.clear()
        unended[:] = [Path(config.hydra.sweep.dir)]
        if OmegaConf.select(config, "hydra.sweeper.resume"):
            return
        from mech_arith.results import find_runs

        directory = Path(config.hydra.sweep.dir)
        taken = directory.is_dir() and ((directory / PLAN).exists() or bool(find_runs(directory)))
        resume = shlex.quote(f"sweep.resume={directory}")
        hint = f"go on with them by {resume}, or choose another hydra.sweep.dir"
        # The sweeper makes the directory, once it has composed all cells.
        _check_fresh(directory, taken=taken, hint=hint, make=False)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say what has become of every cell, in the order of the cells, and compare them."""
        from mech_arith.overview import print_overview, print_states

        directory = Path(config.hydra.sweep.dir)
        states = _states(directory)
        write_states(directory, states)
        whole = [state.directory for state in states if state.status in WHOLE]
        without_result.extend(s.directory for s in states if s.status not in WHOLE)
        print_overview(whole)
        print_states(states)
        _report(directory)
        sys.stdout.write(f"results: {directory}\n")
        if without_result and (directory / PLAN).exists():
            resume = shlex.quote(f"sweep.resume={directory}")
            sys.stdout.write(f"go on: python -m mech_arith -m {resume}\n")
        unended.clear()


def _is_same_cell(config: DictConfig, directory: Path) -> bool:
    """Whether the results in a directory are those that this very cell would have."""
    from mech_arith.config import checked
    from mech_arith.identity import identify
    from mech_arith.records import read_record

    record = read_record(directory)
    try:
        identity = identify(checked(copy.deepcopy(config), _overrides(config)))
    except UserError:
        return False
    return record is not None and record.identity == identity.digest


def _states(directory: Path) -> list[CellState]:
    """Of all planned cells; without a plan (another sweeper has run), of all that have begun."""
    if (directory / PLAN).exists():
        return cell_states(directory)
    jobs = [path for path in directory.iterdir() if (path / ".hydra").is_dir()]
    jobs.sort(key=lambda path: (len(path.name), path.name))
    return states_of(directory, [PlannedCell(path.name, ()) for path in jobs])


def _report(directory: Path) -> None:
    """The tables and the page that compare the cells. What fails here is a warning."""
    from mech_arith.report import write_report

    try:
        sys.stdout.write(f"report: {write_report(directory)}\n")
    except Exception as error:
        log.warning(
            "the report could not be written, the results are there all the same: %r", error
        )


def _check_names(config: DictConfig) -> None:
    """End the program with one line if the cell can be refused by its names and numbers alone."""
    from mech_arith.config import checked
    from mech_arith.names import look_up

    try:
        look_up(checked(copy.deepcopy(config), _overrides(config)))
    except UserError as error:
        _refuse(error)


def _overrides(config: DictConfig) -> list[str]:
    overrides = OmegaConf.to_container(config.hydra.overrides.task)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]


def _refuse(error: UserError) -> NoReturn:
    """SystemExit, because Hydra passes over other exceptions of callbacks."""
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)


def _check_fresh(directory: Path, *, taken: bool, hint: str, make: bool = True) -> None:
    """End the program with one line if results stand there already, or none can be written."""
    try:
        if taken:
            raise UserError(
                f"expected a directory without results, got {directory}, which has some; {hint}"
            )
        if make:
            from mech_arith.results import check_writable

            check_writable(directory)
    except UserError as error:
        _refuse(error)
