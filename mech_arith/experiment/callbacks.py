"""What Hydra calls at the beginning and at the end of runs and sweeps."""

import copy
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mech_arith.common.errors import UserError
from mech_arith.common.interrupts import signal_of, uninterrupted
from mech_arith.common.registry import without_additions
from mech_arith.common.runs.records import RECORD
from mech_arith.common.runs.sweeps import (
    PLAN,
    RUNNING,
    STATES,
    WHOLE,
    CellState,
    PlannedCell,
    cell_states,
    config_flags,
    counted,
    states_of,
    write_states,
)
from mech_arith.experiment.overrides import quoted

log = logging.getLogger("mech_arith")

without_result: list[Path] = []
"""Directories of the last sweep's cells that have no result; they decide the exit code."""

unended: list[Path] = []
"""Directories of sweeps whose end has not been reported. Hydra passes over errors of callbacks:
without this a sweep whose end fails would pass for a good one."""


again: list[str] = []
"""The command that goes on with this process's single run, once one has been asked for."""


class SweepOverview(Callback):
    """Refuses a directory that must not be written; ends a sweep with its tables and report."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the config and at the directory before Hydra writes into it."""
        directory = Path(config.hydra.run.dir)
        _check_names(config)
        again[:] = _command(config, directory)
        if (directory / PLAN).exists():
            _refuse(
                f"expected a directory without a sweep, got {directory}, which has one; choose "
                "another hydra.run.dir"
            )
        _check_writable(directory)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the directory before Hydra writes into it."""
        without_result.clear()
        unended[:] = [Path(config.hydra.sweep.dir)]
        _check_sweeper(config)
        _check_folder_of_jobs(config)
        if OmegaConf.select(config, "hydra.sweeper.resume"):
            return
        from mech_arith.common.runs.directories import find_runs

        directory = Path(config.hydra.sweep.dir)
        # The sweeper makes the directory, once it has composed all cells.
        if (directory / RECORD).exists():
            _refuse(
                f"expected a directory of a sweep, got {directory}, in which a single run stands; "
                "choose another hydra.sweep.dir"
            )
        if directory.is_dir() and ((directory / PLAN).exists() or find_runs(directory)):
            resume = shlex.quote(f"sweep.resume={directory}")
            _refuse(
                f"expected a directory without results, got {directory}, which has some; go on "
                f"with them by {resume}, or choose another hydra.sweep.dir"
            )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say what has become of every cell, in the order of the cells, and compare them."""
        directory = Path(config.hydra.sweep.dir)
        try:
            self._end(directory)
        except OSError as error:
            log.error(
                "expected to read and write in %s, got %s; make room there, then: %s",
                directory,
                error,
                _resume(directory),
            )

    def _end(self, directory: Path) -> None:
        from mech_arith.reports.terminal import print_cells, print_states

        states = _states(directory)
        _write_states(directory, states)
        whole = [state.directory for state in states if state.status in WHOLE]
        without_result.extend(s.directory for s in states if s.status not in WHOLE)
        print_cells(whole)
        print_states(states)
        _report(directory)
        sys.stdout.write(f"results: {directory}\n")
        if without_result and (directory / PLAN).exists():
            sys.stdout.write(f"go on: {_resume(directory)}\n")
        unended.clear()


def end_early(stop: KeyboardInterrupt) -> int:
    """Say in one line that a signal has ended the program, and how to go on; the exit code.

    Of a sweep it is written down what has become of each cell.
    """
    number = signal_of(stop)
    said, go_on = f"interrupted by {number.name}", shlex.join(again)
    with uninterrupted():
        for directory in unended:
            if (directory / PLAN).exists():
                states = cell_states(directory)
                _write_states(directory, states)
                said, go_on = f"{said}: {counted(states)}", _resume(directory)
                if any(state.status == RUNNING for state in states):
                    said = f"{said}; what runs or is queued goes on (see squeue, scancel)"
        sys.stderr.write(f"{said}; go on: {go_on}\n" if go_on else f"{said}\n")
    return 128 + number


def _write_states(directory: Path, states: Sequence[CellState]) -> None:
    """Write the sweep's end down; on a full disk it is told all the same."""
    try:
        write_states(directory, states)
    except OSError as error:
        log.error("expected to write %s, got %s; make room there", directory / STATES, error)


def _resume(directory: Path) -> str:
    return f"python -m mech_arith -m {shlex.quote(f'sweep.resume={directory}')}"


def _command(config: DictConfig, directory: Path) -> list[str]:
    """The command that goes on with a single run: the same in the same directory."""
    given = OmegaConf.to_container(config.hydra.overrides)
    assert isinstance(given, dict)
    kept = [o for o in given["hydra"] if o.partition("=")[0] not in ("hydra.run.dir", "hydra.mode")]
    place = f"hydra.run.dir={quoted(str(directory))}"
    flags = config_flags(sys.argv[1:])
    return ["python", "-m", "mech_arith", *flags, *kept, *given["task"], place]


def _states(directory: Path) -> list[CellState]:
    """Of all planned cells; without a plan (another sweeper has run), of all that have begun."""
    if (directory / PLAN).exists():
        return cell_states(directory)
    jobs = [path for path in directory.iterdir() if (path / ".hydra").is_dir()]
    jobs.sort(key=lambda path: (len(path.name), path.name))
    return states_of(directory, [PlannedCell(path.name, ()) for path in jobs])


def _report(directory: Path) -> None:
    """The tables and the page that compare the cells. What fails here is a warning."""
    from mech_arith.reports.page import write_report

    try:
        sys.stdout.write(f"report: {write_report(directory)}\n")
    except Exception as error:
        log.warning(
            "the report could not be written, the results are there all the same: %r", error
        )


@without_additions()
def _check_names(config: DictConfig) -> None:
    """End the program with one line if the cell can be refused by its names and numbers alone."""
    from mech_arith.experiment.names import look_up
    from mech_arith.experiment.typed import checked

    given = OmegaConf.to_container(config.hydra.overrides.task)
    assert isinstance(given, list)
    try:
        look_up(checked(copy.deepcopy(config), [str(override) for override in given]))
    except UserError as error:
        _refuse(str(error))


def _check_sweeper(config: DictConfig) -> None:
    """End the program with one line if another's sweeper cannot do what is asked."""
    from mech_arith.experiment.refusals import refusal
    from mech_arith.experiment.searching import fit_sweeper

    try:
        fit_sweeper(config)
    except UserError as error:
        _refuse(str(error))
    except HydraException as error:
        _refuse(refusal(error))


def _check_folder_of_jobs(config: DictConfig) -> None:
    """End the program with one line if a job's files would go elsewhere than their folder says.

    submitit and SLURM read %j and the like in every part of a path.
    """
    folder = OmegaConf.select(config, "hydra.launcher.submitit_folder")
    if folder is None:
        return
    rest = str(folder).removesuffix("%j")
    if "%" in rest:
        _refuse(
            f"expected a directory without '%' for jobs of their own, got {rest!r}, in which SLURM "
            "reads it as a field such as %j; choose another hydra.sweep.dir"
        )


def _check_writable(directory: Path) -> None:
    """End the program with one line if nothing can be written there."""
    from mech_arith.common.runs.directories import check_writable

    try:
        check_writable(directory)
    except UserError as error:
        _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    """End the program with one line. SystemExit, because Hydra passes over other exceptions of
    callbacks.
    """
    sys.stderr.write(f"error: {why}\n")
    sys.exit(1)
