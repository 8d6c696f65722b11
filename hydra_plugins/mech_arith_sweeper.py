"""Hydra's way to a sweep of cells. Hydra looks for its plugins in this folder and nowhere else.

Every start of the program imports this file: what is heavy is imported where it is used.
"""

import copy
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from mech_arith.common.errors import UserError
from mech_arith.common.registry import without_additions
from mech_arith.experiment.overrides import quoted

if TYPE_CHECKING:
    from mech_arith.common.runs.packs import Pack
    from mech_arith.common.runs.sweeps import PlannedCell, SweepPlan
    from mech_arith.experiment.config import RunConfig
    from mech_arith.experiment.resume import AskedCell

log = logging.getLogger("mech_arith")

LOCAL, SLURM = "local", "slurm"
"""Where submitit runs jobs."""


class CellSweeper(BasicSweeper):
    """The product of all choices, without those cells that an earlier launch has finished.

    Keys in `together` move as one axis: their first choices make one cell, their second another.
    `pack` cells of one model share a process, where the launcher starts processes, or are shared
    out among its `workers`. With `dry_run` cells are priced and not run; nothing is written then.

    A cell that fails or is killed stops neither the others nor the sweep's end: what has become of
    each is read from its directory.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        resume: bool = False,
        together: Sequence[str] = (),
        pack: int | str | None = None,
        workers: int | str | None = None,
        dry_run: object = False,
        rate: object = None,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self.resume = resume
        self.together = tuple(together)
        self.pack = pack
        self.workers = workers
        self.dry_run = dry_run
        self.rate = rate

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the cells. Nothing is returned: their directories say all."""
        assert self.config is not None
        directory = Path(self.config.hydra.sweep.dir)
        try:
            self._sweep(directory, arguments)
        except UserError as error:
            sys.exit(_said(f"error: {error}"))
        except HydraException:  # some are OSErrors too
            raise
        except OSError as error:
            sys.exit(
                _said(f"error: expected to write in {directory}, got {error}; make room there")
            )
        return []

    def _sweep(self, directory: Path, arguments: list[str]) -> None:
        from mech_arith.common.errors import UserError
        from mech_arith.common.runs.directories import check_writable
        from mech_arith.common.runs.records import claimed
        from mech_arith.common.runs.sweeps import SWEEP_LOCK, begin_plan
        from mech_arith.experiment.flags import dry_run_of, rate_of
        from mech_arith.experiment.names import check_one_meaning

        assert self.config is not None
        # Before the directory is made: what is mistyped leaves nothing.
        self._check_pack()
        dry_run = dry_run_of(self.dry_run)
        rate = rate_of(self.rate)
        lists = self._lists(arguments)
        composed = self._composed(lists)
        settings = [
            _settings(o, config, is_dry=dry_run is not None)
            for o, config in zip(lists, composed, strict=True)
        ]
        self._share_out([one for one in settings if not isinstance(one, UserError)])
        if dry_run is not None:
            sys.exit(self._priced(directory, lists, composed, settings, rate, dry_run))
        refused = [why for why in settings if isinstance(why, UserError)]
        if len(refused) == len(settings):  # nothing would run
            raise refused[0]
        check_one_meaning(one for one in settings if not isinstance(one, UserError))
        asked = [_asked(o, composed[n], n, settings[n]) for n, o in enumerate(lists)]
        check_writable(directory)
        busy = (
            f"expected no other launch at work in {directory}, found one; wait for its end, or "
            "choose another hydra.sweep.dir"
        )
        with claimed(directory / SWEEP_LOCK, patience_s=0.0, busy=busy):
            cells, to_run = self._planned(directory, asked)
            plan = self._plan(arguments, cells)
            if not self.resume and not begin_plan(directory, plan):
                # Two launches at the same moment, and the other one has been here in between; or
                # on two nodes, which both hold the lock.
                raise UserError(busy)
            OmegaConf.save(self.config, directory / "multirun.yaml")
            # A cell goes where it was planned to go, whatever the process says that runs it.
            own = {
                n: [*lists[n], f"hydra.sweep.subdir={quoted(cells[n].directory)}"] for n in to_run
            }
            self._spare_composing({n: composed[n] for n in to_run}, own)
            packs = self._packs({n: asked[n] for n in to_run})
            self._launch(directory, plan, packs, own)

    def _priced(
        self,
        directory: Path,
        lists: Sequence[list[str]],
        composed: Sequence[DictConfig],
        settings: "Sequence[RunConfig | UserError]",
        rate: float | None,
        how: str,
    ) -> int:
        """Print what all cells cost; the exit code."""
        from mech_arith.common.runs.packs import pack_cells, pack_size
        from mech_arith.common.runs.sweeps import own_overrides
        from mech_arith.experiment.flags import JSON
        from mech_arith.experiment.names import check_one_meaning
        from mech_arith.experiment.pricing.dry_run import model_of, price_of_sweep, print_price

        accepted = [one for one in settings if not isinstance(one, UserError)]
        check_one_meaning(accepted)
        self._share_out(accepted)
        to_run = list(range(len(lists)))
        if self.resume:
            from mech_arith.experiment.resume import decide

            asked = [_asked(o, composed[n], n, settings[n]) for n, o in enumerate(lists)]
            to_run = [n for n, decision in enumerate(decide(directory, asked)) if decision.run]
        n_starts = min(1, len(to_run))
        if not isinstance(self.launcher, BasicLauncher):
            models = {n: model_of(settings[n]) for n in to_run}
            size = 1
            if self.pack is not None:
                n_cells = max(1, len(to_run))
                size = pack_size(self.pack, n_cells=n_cells, at_a_time=self._side_by_side)
            n_starts = len(pack_cells(to_run, models, size))
        names = own_overrides([tuple(filter_overrides(overrides)) for overrides in lists])
        as_program = how == JSON
        price = price_of_sweep(
            list(zip(names, settings, strict=True)),
            rate=rate,
            done=set(range(len(lists))) - set(to_run),
            n_starts=n_starts,
            is_quiet=as_program,
        )
        return print_price(price, as_program=as_program)

    @property
    def _side_by_side(self) -> int:
        """Jobs that are at work at a time."""
        params = getattr(self.launcher, "params", {})
        return self._at_a_time or params.get("array_parallelism") or 1

    @property
    def _executor(self) -> str | None:
        """Where submitit runs the launcher's jobs; None for another launcher.

        Not by its class: Hydra executes the plugins' files anew when it looks for them, so that a
        class that is imported here may be another one than the launcher's.
        """
        return getattr(self.launcher, "_EXECUTOR", None)

    def _lists(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every cell.

        Raises:
            UserError: an override of an experiment that Hydra's grammar cannot read, a sweep over
                nothing, or keys that cannot move together.
        """
        from mech_arith.experiment.overrides import as_typed, check_grammar

        assert self.hydra_context is not None
        texts = [*map(as_typed, self._parse_config()), *arguments]
        check_grammar(texts)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides(texts)
        # What the command line says of a key wins over what an experiment says.
        last = {override.key_or_group: override for override in parsed}
        axes = {key: override for key, override in last.items() if override.is_discrete_sweep()}
        for override in axes.values():
            _check_choices(override)
        # Layers by number have become a list of them.
        by_number = "layers.list" in axes and "layers" not in axes
        keys = ["layers.list" if by_number and key == "layers" else key for key in self.together]
        together = _choices_together(axes, keys)
        alone = [override for override in parsed if override.key_or_group not in together]
        cells = self.split_arguments(alone, None)[0]
        if not together:
            return cells
        rows = list(zip(*together.values(), strict=True))
        return [[*cell, *row] for cell in cells for row in rows]

    def _composed(self, lists: Sequence[list[str]]) -> list[DictConfig]:
        """The configs of all cells; an error in one ends the sweep before it begins."""
        from mech_arith.experiment.composing import Composing

        assert self.hydra_context is not None
        assert self.config is not None
        loader: Any = self.hydra_context.config_loader
        composing = Composing(loader, self.config)
        return [composing.of(overrides) for overrides in lists]

    def _spare_composing(
        self, composed: Mapping[int, DictConfig], own: Mapping[int, list[str]]
    ) -> None:
        """Let the launcher that runs cells in this process have the configs that there are."""
        if not isinstance(self.launcher, BasicLauncher):
            return
        context = self.launcher.hydra_context
        assert context is not None
        known = {tuple(own[number]): config for number, config in composed.items()}
        loader: Any = _Composed(context.config_loader, known)
        self.launcher.hydra_context = HydraContext(loader, context.callbacks)

    def _plan(self, arguments: list[str], cells: "list[PlannedCell]") -> "SweepPlan":
        from mech_arith.common.runs.sweeps import SweepPlan, config_flags

        assert self.config is not None
        hydra = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        assert isinstance(hydra, list)
        return SweepPlan(tuple(arguments), tuple(hydra), tuple(cells), config_flags(sys.argv[1:]))

    def _planned(
        self, directory: Path, asked: "list[AskedCell]"
    ) -> "tuple[list[PlannedCell], list[int]]":
        """All cells of the sweep, and the numbers of those that are to be run now."""
        from mech_arith.common.runs.sweeps import PlannedCell, own_overrides
        from mech_arith.experiment.job import tidy
        from mech_arith.experiment.resume import decide, set_aside

        if not self.resume:
            _check_distinct([cell.name for cell in asked])
            cells = [
                PlannedCell(cell.name, cell.overrides, cell.identity and cell.identity.digest)
                for cell in asked
            ]
            return cells, list(range(len(cells)))
        decisions = decide(directory, asked)
        own = own_overrides([cell.overrides for cell in asked])
        to_run = [number for number, decision in enumerate(decisions) if decision.run]
        for decision in decisions:
            if decision.is_done:
                tidy(directory / decision.cell.directory)
        for number in to_run:
            decision = decisions[number]
            if decision.supersedes:
                set_aside(directory, decision)
            log.info("cell %s (%s): %s", decision.cell.directory, own[number], decision.why)
        log.info("%d of %d cells are to be run", len(to_run), len(decisions))
        return [decision.cell for decision in decisions], to_run

    def _check_pack(self) -> None:
        """Raise a UserError if cells are to be packed in a way that there is not."""
        from mech_arith.common.runs.packs import pack_size
        from mech_arith.common.runs.workers import check_workers

        if self.pack is not None:
            pack_size(self.pack, n_cells=1, at_a_time=1)
            if not (isinstance(self.launcher, BasicLauncher) or hasattr(self.launcher, "PACKS")):
                raise UserError(
                    "expected a launcher that packs with sweep.pack, got "
                    f"{type(self.launcher).__name__}; build yours on hydra/launcher=local or slurm"
                )
        if self.workers is not None:
            check_workers(self.workers, self.pack)
            if not hasattr(self.launcher, "PACKS"):
                raise UserError(
                    "expected hydra/launcher=local or slurm with sweep.workers, got "
                    f"{type(self.launcher).__name__}; add one of the two"
                )

    def _share_out(self, settings: "Sequence[RunConfig]") -> None:
        """Tell the launcher how many workers a job has, and whether they share out its GPUs.

        Raises:
            UserError: there are more of them than GPUs, so far as is known before a job runs.
        """
        from mech_arith.common.runs.workers import check_devices, visible_devices

        if self.workers is None:
            return
        params = getattr(self.launcher, "params", {})
        on_gpus = any(one.device.value != "cpu" for one in settings)
        vars(self.launcher).update(workers=self.workers, on_gpus=on_gpus)
        n_devices = _gpus_of_job(params) if on_gpus else 0
        if n_devices is None and self._executor == LOCAL:
            n_devices = len(visible_devices(os.environ)[: params.get("gpus_per_node")])
        if n_devices is not None:
            check_devices(self.workers, n_devices)

    def _packs(self, asked: "Mapping[int, AskedCell]") -> "list[Pack]":
        """The cells to be run, those together that share a process."""
        from mech_arith.common.runs.packs import pack_cells, pack_size

        if self.pack is None:
            return [(number,) for number in asked]
        size = pack_size(self.pack, n_cells=len(asked), at_a_time=self._side_by_side)
        return pack_cells(list(asked), {n: cell.network for n, cell in asked.items()}, size)

    def _launch(
        self,
        directory: Path,
        plan: "SweepPlan",
        packs: "Sequence[Pack]",
        own: Mapping[int, list[str]],
    ) -> None:
        """Launch packs a batch at a time, and wait for all of them whatever becomes of some.

        What a pack that was killed has left behind is launched again without the cell it died in.
        """
        from mech_arith.common.runs.packs import Trace, left_behind
        from mech_arith.common.runs.sweeps import Launch, submitted_jobs, with_jobs, write_plan

        write_plan(directory, plan)
        waiting = list(self._batches(packs))
        while waiting:
            batch = waiting.pop(0)
            numbers = [number for pack in batch for number in pack]
            places = {number: directory / plan.cells[number].directory for number in numbers}
            traces = {number: Trace.of(place) for number, place in places.items()}
            before = submitted_jobs(directory)
            if self._executor == SLURM:
                # Before the launch: one that is killed in it does not come to say its jobs.
                plan = replace(plan, launch=Launch(tuple(batch), tuple(sorted(before))))
                write_plan(directory, plan)
            with self._workers(directory, [plan.cells[number].directory for number in numbers]):
                error = self._launch_batch(directory, [_job(pack, own) for pack in batch], before)
            plan = with_jobs(_with_error(plan, numbers, error), submitted_jobs(directory))
            write_plan(directory, plan)
            ended = {number: Trace.of(place) for number, place in places.items()}
            again = [
                left
                for pack in batch
                if (left := left_behind(pack, traces, ended)) and self._may_go_on(plan, left)
            ]
            for left in again:
                log.warning("%d cells of a pack were not come to; launching them again", len(left))
            waiting[:0] = self._batches(again)

    def _may_go_on(self, plan: "SweepPlan", left: "Pack") -> bool:
        """Whether cells are to be launched again: not where their SLURM job was cancelled, or may
        have been.
        """
        from mech_arith.common.runs.slurm import job_states

        job = plan.cells[left[0]].job
        if self._executor != SLURM or job is None:
            return self._executor == LOCAL
        state = job_states([job]).get(job)
        return state is not None and not state.is_alive and "CANCELLED" not in state.states

    @contextmanager
    def _workers(self, directory: Path, cells: Sequence[str]) -> Iterator[None]:
        """If a signal ends this program, end the processes that the launcher has started here.

        What SLURM has in its queue goes on.
        """
        from mech_arith.common.interrupts import signal_of, workers
        from mech_arith.common.runs.records import mark_interrupted

        if self._executor != LOCAL:
            yield
            return
        ended: set[int] = set()
        try:
            with workers(directory / ".submitit" / "errors.log") as ended:
                yield
        except KeyboardInterrupt as stop:
            for cell in cells:
                mark_interrupted(directory / cell, signal_of(stop).name, processes=ended)
            raise

    def _launch_batch(
        self, directory: Path, batch: list[list[tuple[int, list[str]]]], before: set[str]
    ) -> str:
        """Launch jobs, each of some cells, together and wait for them; why none could be, if so."""
        from mech_arith.common.runs.sweeps import submitted_jobs

        assert self.launcher is not None
        from hydra_plugins.mech_arith_launcher import packed

        packs = hasattr(self.launcher, "PACKS")
        jobs_of = [packed(cells) if packs else cells[0][1] for cells in batch]
        try:
            for result in self.launcher.launch(jobs_of, batch[0][0][0]):
                _ = result.return_value  # raises what the job has raised
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            jobs = submitted_jobs(directory) - before
            log.error("a job did not end well: %s", said)
            if not jobs:
                return said
            # Of the first job that did not end well; the others may still be running.
            self._wait_for(directory, jobs)
        return ""

    def _wait_for(self, directory: Path, jobs: set[str]) -> None:
        """Wait for jobs that the launcher has left behind."""
        if self._executor == SLURM:
            _wait_for_slurm(directory, jobs)
        elif self._executor == LOCAL:
            _wait_for_children(jobs)

    @property
    def _at_a_time(self) -> int | None:
        """Jobs that are launched together; None for all. The workers of one fill this machine."""
        alone = self.workers is not None and self._executor == LOCAL
        return 1 if alone else self.max_batch_size

    def _batches(self, packs: "Sequence[Pack]") -> "Iterator[list[Pack]]":
        """What is launched together.

        The launcher that runs cell after cell in this process is given one at a time: an error of
        one then stops no other, and each is shown by its own number.
        """
        if isinstance(self.launcher, BasicLauncher):
            yield from ([(number,)] for pack in packs for number in pack)
            return
        size = self._at_a_time or max(1, len(packs))
        for start in range(0, len(packs), size):
            yield list(packs[start : start + size])


class _Composed:
    """Hydra's loader of configs, which has composed some cells but for their directories."""

    def __init__(self, loader: Any, known: dict[tuple[str, ...], DictConfig]) -> None:
        self._loader = loader
        self._known = known
        """By the overrides of the cell, of which the last one names its directory."""

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """A cell's config: each that is known is given once, for a run changes it."""
        config = self._known.pop(tuple(sweep_overrides), None)
        if config is None:
            return self._loader.load_sweep_config(master_config, sweep_overrides)
        *_, directory = OverridesParser.create().parse_overrides(sweep_overrides)
        with open_dict(config):
            config.hydra.sweep.subdir = directory.value()
            config.hydra.overrides.hydra.append(sweep_overrides[-1])
        return config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _gpus_of_job(params: Mapping[str, Any]) -> int | None:
    """How many GPUs a SLURM job asks for, by its launcher's fields; None if they do not tell."""
    if "array_parallelism" not in params:
        return None
    other = [params.get("gpus_per_task"), params.get("gres"), params.get("additional_parameters")]
    number = params.get("gpus_per_node")
    if number is None:
        return None if any("gpu" in str(one) for one in other) or other[0] else 0
    return number if isinstance(number, int) else None


def _job(pack: "Pack", own: Mapping[int, list[str]]) -> list[tuple[int, list[str]]]:
    """The cells of a pack, by number, with their overrides."""
    return [(number, own[number]) for number in pack]


@without_additions()
def _settings(overrides: list[str], config: DictConfig, *, is_dry: bool) -> "RunConfig | UserError":
    """A cell's checked config, or why it is refused; a price looks its names up itself."""
    # Checking renames what has no name of its own, and what is launched is what was composed.
    config = copy.deepcopy(config)
    from mech_arith.experiment.names import look_up
    from mech_arith.experiment.typed import checked

    try:
        settings = checked(config, filter_overrides(overrides))
        if not is_dry:
            look_up(settings)
    except UserError as error:
        return error
    return settings


def _asked(
    overrides: list[str], config: DictConfig, number: int, settings: "RunConfig | UserError"
) -> "AskedCell":
    """A cell by its identity and the directory that it would have in a new sweep."""
    from mech_arith.experiment.identity import identify
    from mech_arith.experiment.job import DISABLED, wandb_place
    from mech_arith.experiment.resume import AskedCell

    own = tuple(filter_overrides(overrides))
    config.hydra.job.num = number
    config.hydra.job.id = str(number)
    name = str(config.hydra.sweep.subdir)
    if isinstance(settings, UserError):
        return AskedCell(own, None, name)
    try:
        tracked = wandb_place(settings).mode != DISABLED
        return AskedCell(own, identify(settings), name, is_tracked=tracked)
    except UserError:
        return AskedCell(own, None, name)


def _check_choices(override: Override) -> None:
    """Raise a UserError if a sweep has nothing to choose from."""
    if not list(override.sweep_string_iterator()):
        raise UserError(
            f"expected at least one choice, got none by {override.input_line}; change it (python "
            "-m mech_arith --help lists the options of each group)"
        )


def _choices_together(axes: Mapping[str, Override], keys: Sequence[str]) -> dict[str, list[str]]:
    """Of each key that moves together with others its choices, as overrides of single cells.

    Raises:
        UserError: a key that is not swept, or choices that differ in number.
    """
    alone = [key for key in keys if key not in axes]
    if alone:
        raise UserError(
            f"expected keys that are swept in sweep.together, got {alone[0]!r}, which is not; give "
            f"it choices, as in {alone[0]}=A,B, or leave it out"
        )
    choices = {
        key: [f"{axes[key].get_key_element()}={one}" for one in axes[key].sweep_string_iterator()]
        for key in keys
    }
    numbers = {key: len(some) for key, some in choices.items()}
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{count} of {key}" for key, count in numbers.items())
        raise UserError(
            f"expected as many choices of each key in sweep.together, got {said}; give as many of "
            "each"
        )
    return choices


def _said(text: str) -> int:
    """An error's one line, and the exit code that goes with it."""
    sys.stderr.write(f"{text}\n")
    return 1


def _check_distinct(names: Sequence[str]) -> None:

    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"expected a directory of its own for every cell, got {twice[0]!r} twice; change "
            "hydra.sweep.subdir"
        )


def _with_error(plan: "SweepPlan", numbers: Sequence[int], error: str) -> "SweepPlan":
    """The plan with why some cells could not be launched; nothing if they were."""
    cells = list(plan.cells)
    for number in numbers:
        cells[number] = replace(cells[number], launch_error=error)
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
