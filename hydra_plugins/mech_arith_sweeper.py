"""Hydra's way to a sweep of cells. Hydra looks for its plugins in this folder and nowhere else.

Every start of the program imports this file: what is heavy is imported where it is used.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from mech_arith.resume import AskedCell
    from mech_arith.sweeps import PlannedCell, SweepPlan

log = logging.getLogger("mech_arith")


class CellSweeper(BasicSweeper):
    """The product of all choices, without those cells that an earlier launch has finished.

    A cell that fails or is killed stops neither the others nor the sweep's end: what has become of
    each is read from its directory.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        resume: bool = False,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self.resume = resume

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the cells. Nothing is returned: their directories say all."""
        from mech_arith.errors import UserError

        try:
            self._sweep(arguments)
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(1)
        return []

    def _sweep(self, arguments: list[str]) -> None:
        from mech_arith.records import claimed
        from mech_arith.sweeps import SWEEP_LOCK, SweepPlan, write_plan

        assert self.config is not None
        directory = Path(self.config.hydra.sweep.dir)
        lists = self._lists(arguments)
        busy = (
            f"expected no other launch at work in {directory}, found one; wait for its end, or "
            "choose another hydra.sweep.dir"
        )
        with claimed(directory / SWEEP_LOCK, patience_s=0.0, busy=busy):
            configs = [self._composed(overrides) for overrides in lists]
            to_run, cells = self._planned(directory, lists, configs)
            hydra = OmegaConf.to_container(self.config.hydra.overrides.hydra)
            assert isinstance(hydra, list)
            OmegaConf.save(self.config, directory / "multirun.yaml")
            plan = SweepPlan(tuple(arguments), tuple(hydra), tuple(cells))
            write_plan(directory, plan)
            self._launch(directory, plan, to_run)

    def _lists(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every cell."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        return self.split_arguments(parsed, None)[0]

    def _composed(self, overrides: list[str]) -> DictConfig:
        """The config of one cell; an error in it ends the sweep before it begins."""
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)

    def _planned(
        self, directory: Path, lists: list[list[str]], configs: list[DictConfig]
    ) -> tuple[list[tuple[int, list[str]]], "list[PlannedCell]"]:
        """The cells to launch now, by their numbers and overrides; and all cells of the sweep."""
        from mech_arith.sweeps import PlannedCell

        asked = [tuple(filter_overrides(overrides)) for overrides in lists]
        if not self.resume:
            names = [_subdirectory(config, number) for number, config in enumerate(configs)]
            _check_distinct(names)
            cells = [PlannedCell(name, cell) for name, cell in zip(names, asked, strict=True)]
            return list(enumerate(lists)), cells
        return self._left(directory, lists, asked, configs)

    def _left(
        self,
        directory: Path,
        lists: list[list[str]],
        asked: list[tuple[str, ...]],
        configs: list[DictConfig],
    ) -> tuple[list[tuple[int, list[str]]], "list[PlannedCell]"]:
        """What an earlier launch has left to do, and why."""
        from mech_arith.resume import decide, set_aside
        from mech_arith.sweeps import own_overrides

        cells = [_asked(cell, config) for cell, config in zip(asked, configs, strict=True)]
        decisions = decide(directory, cells)
        own = own_overrides(asked)
        to_run = []
        for number, decision in enumerate(decisions):
            name = decision.cell.directory
            if not decision.run:
                continue
            if decision.supersedes:
                set_aside(directory, decision)
            log.info("cell %s (%s): %s", name, own[number], decision.why)
            # In the quotes of Hydra's grammar, as a name may hold any of its signs.
            to_run.append((number, [*lists[number], f"hydra.sweep.subdir='{name}'"]))
        log.info("%d of %d cells are to be run", len(to_run), len(decisions))
        return to_run, [decision.cell for decision in decisions]

    def _launch(
        self, directory: Path, plan: "SweepPlan", to_run: list[tuple[int, list[str]]]
    ) -> None:
        """Launch cells a batch at a time, and wait for all of them whatever becomes of some."""
        from mech_arith.sweeps import write_plan

        try:
            for batch in self._batches(to_run):
                before = _submitted(directory)
                error = ""
                try:
                    error = self._launch_batch(directory, batch, before)
                finally:
                    jobs = _submitted(directory) - before
                    if not isinstance(self.launcher, SlurmLauncher):
                        jobs = set()
                    plan = _with_jobs(plan, [number for number, _ in batch], jobs, error)
                    write_plan(directory, plan)
        except KeyboardInterrupt:
            log.warning("interrupted; what SLURM has in its queue goes on (see squeue, scancel)")

    def _launch_batch(
        self, directory: Path, batch: list[tuple[int, list[str]]], before: set[str]
    ) -> str:
        """Launch cells together and wait for them; why none could be, if so."""
        assert self.launcher is not None
        try:
            self.launcher.launch([cell for _, cell in batch], batch[0][0])
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            jobs = _submitted(directory) - before
            if not jobs:
                log.error("no job could be launched: %s", said)
                return said
            # Of the first job that did not end well; the others may still be running.
            log.warning("a job did not end well: %s", said)
            self._wait_for(directory, jobs)
        return ""

    def _wait_for(self, directory: Path, jobs: set[str]) -> None:
        """Wait for jobs that the launcher has left behind."""
        if isinstance(self.launcher, SlurmLauncher):
            _wait_for_slurm(directory, jobs)
        elif isinstance(self.launcher, LocalLauncher):
            _wait_for_children(jobs)

    def _batches(
        self, to_run: list[tuple[int, list[str]]]
    ) -> Iterator[list[tuple[int, list[str]]]]:
        """What is launched together.

        Launchers count on from the first cell's number. The one that runs cell after cell shows
        these numbers, so it is given neighbours only.
        """
        size = self.max_batch_size or max(1, len(to_run))
        one_by_one = isinstance(self.launcher, BasicLauncher)
        batch: list[tuple[int, list[str]]] = []
        for entry in to_run:
            gap = bool(batch) and entry[0] != batch[-1][0] + 1
            if len(batch) == size or (one_by_one and gap):
                yield batch
                batch = []
            batch.append(entry)
        if batch:
            yield batch


def _asked(overrides: tuple[str, ...], config: DictConfig) -> "AskedCell":
    from mech_arith.config import WandbMode, checked
    from mech_arith.errors import UserError
    from mech_arith.identity import identify
    from mech_arith.resume import AskedCell

    try:
        settings = checked(config, overrides)
        tracked = settings.wandb.mode is not WandbMode.disabled
        return AskedCell(overrides, identify(settings), tracked)
    except UserError:
        return AskedCell(overrides, None)


def _subdirectory(config: DictConfig, number: int) -> str:
    """Where a new cell goes."""
    config.hydra.job.num = number
    config.hydra.job.id = str(number)
    return str(config.hydra.sweep.subdir)


def _check_distinct(names: Sequence[str]) -> None:
    from mech_arith.errors import UserError

    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"expected a directory of its own for every cell, got {twice[0]!r} twice; change "
            "hydra.sweep.subdir"
        )


def _submitted(directory: Path) -> set[str]:
    """The jobs that submitit has started or queued for a sweep, by their ids."""
    return {path.parent.name for path in (directory / ".submitit").glob("*/*_submitted.pkl")}


def _with_jobs(plan: "SweepPlan", numbers: list[int], jobs: set[str], error: str) -> "SweepPlan":
    """The plan with what is known of the launch of some cells.

    Args:
        plan: before.
        numbers: of the cells, in the order of their launch.
        jobs: of SLURM, queued as one array in that order.
        error: why there are none; empty if there are.
    """
    cells = list(plan.cells)
    for number in numbers:
        cells[number] = replace(cells[number], launch_error=error)
    for job in jobs:
        number = numbers[int(job.partition("_")[2] or 0)]
        cells[number] = replace(cells[number], job=job)
    return replace(plan, cells=tuple(cells))


def _wait_for_slurm(directory: Path, jobs: set[str]) -> None:
    """Wait until none of these jobs is left in the queue."""
    import submitit

    for job in sorted(jobs):
        submitit.SlurmJob(folder=directory / ".submitit" / "%j", job_id=job).wait()


def _wait_for_children(jobs: set[str]) -> None:
    """Wait for the processes that submitit has started here: their ids are those of the jobs."""
    for job in jobs:
        with suppress(ChildProcessError):  # it has ended before
            os.waitpid(int(job), 0)
