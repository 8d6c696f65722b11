"""The one entrypoint: compose -> validate -> run -> save -> log.

Heavy libraries are imported inside functions, so that `--help` and `--cfg job` answer at once.
"""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mech_arith.common.atomic import write_text
from mech_arith.common.errors import UserError
from mech_arith.common.interrupts import interruptible, raise_if_received, signal_of
from mech_arith.common.paths import ERROR_FILE, conf_dir
from mech_arith.common.runs.records import LOCK, PATIENCE_S, claimed, mark_interrupted
from mech_arith.common.streams import lasting_output, no_room
from mech_arith.experiment import callbacks
from mech_arith.experiment.comparing import METHODS, TAKEN, compares_methods
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.flags import MULTIRUN, SHOW_ALONE, own_folders, split_flags
from mech_arith.experiment.guide import answer
from mech_arith.experiment.overrides import as_typed, check_files, check_grammar, quoted
from mech_arith.experiment.refusals import check_single, one_line_errors

log = logging.getLogger("mech_arith")

NO_ROOM = (
    "expected room on the disk, got {reason!r}; make room and start again: what is finished is kept"
)

OF_SWEEPS = re.compile(r"^sweep\.(together|pack|workers|dry_run|rate)=")
"""The sweeper's own options, by their short names."""

DRY_RUN = re.compile(r"^(\+\+)?hydra\.sweeper\.dry_run=")

_failed: list[Path] = []
"""Directories of this process's cells that ended in an error; they decide the exit code."""


def main() -> None:
    """Run the cells that the command line asks for; exit code 1 if any of them failed.

    A signal that ends it makes 128 and the signal's number of that, as shells do.
    """
    _failed.clear()
    callbacks.again.clear()
    callbacks.without_result.clear()
    callbacks.unended.clear()
    with lasting_output(), interruptible():
        try:
            _main()
        except KeyboardInterrupt as stop:
            sys.exit(callbacks.end_early(stop))


def _main() -> None:
    ConfigStore.instance().store(name="schema", node=RunConfig)
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    try:
        if (text := answer(sys.argv[1:])) is not None:
            sys.stdout.write(f"{text}\n")
            return
        sys.argv[1:] = hydra_arguments(sys.argv[1:])
        with one_line_errors():
            entry(_cell)()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    # Cells may have run in other processes: a sweep is judged by what it left on disk.
    if _failed or callbacks.without_result or callbacks.unended:
        sys.exit(1)


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra is to read it.

    Raises:
        UserError: there is no sweep to resume, an unknown flag, or an override or a config that
            cannot be read.
    """
    resumed = resumed_arguments(arguments)
    # What an earlier launch has recorded is read as what is typed now.
    # Added, where another sweeper has no such key: it is refused in our words then.
    written = [re.sub(OF_SWEEPS, r"++hydra.sweeper.\1=", a) for a in resumed]
    flags, overrides = split_flags(written)
    typed = [as_typed(override) for override in overrides]
    check_grammar(typed)
    for folder in own_folders(flags):
        check_files(folder)
    shown = [flag for flag in flags if flag.partition("=")[0] in SHOW_ALONE]
    swept = [flag for flag in flags if flag in MULTIRUN]
    if shown and swept:
        raise UserError(
            f"expected {swept[0]} or {shown[0]}, got both; leave {swept[0]} out, for "
            f"{shown[0]} shows one cell"
        )
    single = not swept and not shown
    if single and is_dry(typed):
        # A single cell too is priced by the sweeper, before Hydra makes a directory for it.
        check_single(typed)
        flags, typed = [*flags, "-m"], [*typed, "hydra.sweeper.params=null"]
    elif single and (of_sweep := [a for a in resumed if OF_SWEEPS.match(a)]):
        raise UserError(
            f"expected -m beside {of_sweep[0]}, which is about the cells of a sweep, got a single "
            "run; add -m, or leave it out"
        )
    if swept and resumed == list(arguments) and compares_methods(typed, own_folders(flags)):
        sys.stderr.write(f"{TAKEN}\n")
        typed.append(METHODS)
    # argparse takes overrides from one place alone, so all stand behind the flags.
    return [*flags, *typed]


def is_dry(overrides: Sequence[str]) -> bool:
    """Whether cells are to be priced and not run."""
    said = [o.partition("=")[2] for o in overrides if DRY_RUN.match(o)]
    return bool(said) and said[-1].lower() != "false"


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line with `sweep.resume=DIR` written out: what the sweep in DIR was launched
    with, then what is given now, which wins.

    Raises:
        UserError: there is no sweep in DIR.
    """
    asked = [argument for argument in arguments if argument.startswith("sweep.resume=")]
    if not asked:
        return list(arguments)
    from mech_arith.common.runs.sweeps import read_plan

    directory = Path(_unquoted(asked[-1].partition("=")[2])).expanduser()
    plan = read_plan(directory)
    given = [argument for argument in arguments if argument not in (*asked, *MULTIRUN)]
    # What is recorded is left out where it is given anew: Hydra takes one choice of a group.
    anew = {_key(argument) for argument in given} | {"hydra.sweep.dir", "hydra.mode"}
    known = [o for o in (*plan.hydra_overrides, *plan.overrides) if _key(o) not in anew]
    place = ["-m", f"hydra.sweep.dir={quoted(str(directory))}", "++hydra.sweeper.resume=true"]
    return [*plan.flags, *place, *known, *given]


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def _key(override: str) -> str:
    """What an override is about; layers are one choice, by name or by number."""
    key = override.partition("=")[0].lstrip("+~")
    return "layers" if key == "layers.list" else key


def _cell(config: DictConfig) -> "float | list[float] | None":
    """One job. An error ends it and is left in its directory; a sweep's other jobs go on.

    Returns:
        What `objective` asks for; None after an error.
    """
    composed: Any = HydraConfig.instance().cfg
    job = composed.hydra
    directory = Path(job.runtime.output_dir)
    busy = (
        f"expected no other process at work in {directory}, found one; wait for its end, or choose "
        "another hydra.run.dir or hydra.sweep.dir"
    )
    from mech_arith.common.runs.directories import check_writable
    from mech_arith.experiment.job import check_free, write_composed

    try:
        check_writable(directory)
        with claimed(directory / LOCK, patience_s=PATIENCE_S, busy=busy):
            check_free(config, directory, job.overrides.task, alone=job.mode == RunMode.RUN)
            write_composed(directory, config, composed)
            # A worker has other plans for other signals.
            with interruptible([signal.SIGINT]) if _is_worker() else nullcontext():
                return _attempt(config, directory, job)
    except UserError as error:
        # Not to the log: it is that of the cell whose directory this is.
        _failed.append(directory)
        sys.stderr.write(f"error: {error}\n")
    return None


def _attempt(config: DictConfig, directory: Path, job: Any) -> "float | list[float] | None":
    """Run the cell, and leave in its directory why it failed, if it does; see `_cell`."""
    from mech_arith.experiment.job import run

    (directory / ERROR_FILE).unlink(missing_ok=True)
    try:
        try:
            overrides = job.overrides.task
            return run(config, directory, overrides=overrides, sweep=_sweep_name(job))
        finally:
            raise_if_received()
    except KeyboardInterrupt as stop:
        mark_interrupted(directory, signal_of(stop).name, processes={os.getpid()})
        raise
    except UserError as error:
        log.error("%s", error)
        _fail(directory, str(error))
    except Exception as error:
        if reason := no_room(error):
            log.error("%s", text := NO_ROOM.format(reason=reason))
        else:
            log.exception("unexpected error:")
            said = " ".join(str(error).split())
            text = f"{type(error).__name__}: {said}\n\n{traceback.format_exc()}"
        _fail(directory, text)
    return None


def _is_worker() -> bool:
    """Whether submitit has started this process, and has signals handled."""
    return "SUBMITIT_EXECUTOR" in os.environ


def _fail(directory: Path, text: str) -> None:
    """The message in the first line, and behind it what else there is to know."""
    _failed.append(directory)
    # On a full disk the log is all there is.
    with suppress(OSError):
        write_text(directory / ERROR_FILE, f"{text}\n")


def _sweep_name(job: Any) -> str | None:
    """The group under which a sweep's runs are compared; None for a single run."""
    return (
        "/".join(Path(job.sweep.dir).resolve().parts[-2:]) if job.mode == RunMode.MULTIRUN else None
    )


if __name__ == "__main__":
    main()
