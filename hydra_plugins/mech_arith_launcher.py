"""submitit's launchers, with several cells in a job: they share its processes and their models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
    BaseSubmititLauncher,
    LocalLauncher,
    SlurmLauncher,
)
from omegaconf import DictConfig

CELL = "hydra.pack.cell="
"""Behind it stands a cell's number; its overrides follow, up to the next cell."""


def packed(cells: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
    """Some cells' numbers and overrides as one list, which submitit's launcher takes for a job."""
    return [entry for number, own in cells for entry in (f"{CELL}{number}", *own)]


def unpacked(entries: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The cells of a job."""
    cells: list[tuple[int, list[str]]] = []
    for entry in entries:
        if entry.startswith(CELL):
            cells.append((int(entry.removeprefix(CELL)), []))
        else:
            cells[-1][1].append(entry)
    return cells


class _Packing(BaseSubmititLauncher):
    PACKS = True
    """A job is handed over as `packed`."""

    workers: int | str | None = None
    """Processes in which a job runs its cells beside each other; None: one after another, in its
    own process. The sweeper sets it."""

    on_gpus = True
    """Whether the workers share out the job's GPUs. The sweeper sets it."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start jobs, and wait for them. Our sweeper has packed them; another's are of one cell."""
        jobs = [
            own if own and own[0].startswith(CELL) else packed([(initial_job_idx + place, own)])
            for place, own in enumerate(job_overrides)
        ]
        return super().launch(jobs, initial_job_idx)

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Singleton],
    ) -> JobReturn:
        """Run the cells of a job; one that fails stops no other.

        A job that is queued again finds its finished cells done, each by what it left on disk.
        """
        cells, call = unpacked(sweep_overrides), super().__call__

        def run(place: int) -> JobReturn:
            number, own = cells[place]
            return call(own, job_dir_key, number, job_id, singleton_state)

        if self.workers is None:
            ends = [run(place) for place in range(len(cells))]
            return next((end for end in ends if end.status is JobStatus.FAILED), ends[-1])

        def told(place: int) -> str:
            end = run(place)
            return "" if end.status is JobStatus.COMPLETED else repr(end._return_value)

        return self._beside(cells, told)

    def _beside(self, cells: Sequence[tuple[int, list[str]]], run: Any) -> JobReturn:
        """Run the cells in workers; where there cannot be as many as asked, each cell says so."""
        import submitit

        from mech_arith.common.errors import UserError
        from mech_arith.common.runs import workers

        assert self.workers is not None
        job = submitit.JobEnvironment()
        end = JobReturn(status=JobStatus.COMPLETED)
        try:
            devices = workers.visible_devices(os.environ) if self.on_gpus else []
            threads = workers.usable_threads(os.environ)
            shares = workers.shares(self.workers, devices, threads)
        except UserError as error:
            for _, own in cells:
                self._refuse(own, str(error))
            return end
        logs = job.paths.folder / f"{job.job_id}_"
        # submitit's own signal: it makes the job queue itself again, which then ends the workers.
        ended = workers.run_beside(
            len(cells), run, shares, logs=logs, ignored=[type(job)._usr_sig()]
        )
        failed = [f"cell {cells[place][0]}: {why}" for place, why in ended.items() if why]
        if failed:
            end.status, end._return_value = JobStatus.FAILED, RuntimeError("; ".join(failed))
        return end

    def _refuse(self, own: list[str], why: str) -> None:
        """Leave in a cell's directory why it cannot run, unless it is whole."""
        from mech_arith.common.atomic import write_text
        from mech_arith.common.paths import ERROR_FILE, SUMMARY

        assert self.hydra_context is not None
        assert isinstance(self.config, DictConfig)
        setup_globals()  # a job's process knows no ${now:} yet
        sweep = self.hydra_context.config_loader.load_sweep_config(self.config, own).hydra.sweep
        directory = Path(sweep.dir) / sweep.subdir
        if not (directory / SUMMARY).is_file():
            directory.mkdir(parents=True, exist_ok=True)
            write_text(directory / ERROR_FILE, f"{why}\n")


class PackingLocalLauncher(_Packing, LocalLauncher):
    """Processes on this machine. They see the GPUs that this one sees, where no number is given."""

    visible: str | None = None
    """The GPUs of the process that launches, as CUDA_VISIBLE_DEVICES lists them."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start processes, and wait for them."""
        self.visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return super().launch(job_overrides, initial_job_idx)

    def __call__(self, *args: Any) -> JobReturn:
        """Run the cells of a process: submitit hides all GPUs from it, or takes the first ones."""
        n_devices = self.params.get("gpus_per_node")
        if self.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.visible.split(",")[:n_devices])
        elif n_devices is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        return super().__call__(*args)


class PackingSlurmLauncher(_Packing, SlurmLauncher):
    """Jobs of a SLURM cluster."""
