"""submitit's launchers, with several cells in a job: they share its process, and so their model."""

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
    BaseSubmititLauncher,
    LocalLauncher,
    SlurmLauncher,
)

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

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Singleton],
    ) -> JobReturn:
        """Run the cells of a job one after another; one that fails stops none behind it.

        A job that is queued again finds its finished cells done, each by what it left on disk.
        """
        run = super().__call__  # not by the class's name: Hydra executes this file several times
        ends: list[Any] = [
            run(own, job_dir_key, number, job_id, singleton_state)
            for number, own in unpacked(sweep_overrides)
        ]
        return next((end for end in ends if end.status is JobStatus.FAILED), ends[-1])


class PackingLocalLauncher(_Packing, LocalLauncher):
    """Processes on this machine."""


class PackingSlurmLauncher(_Packing, SlurmLauncher):
    """Jobs of a SLURM cluster."""
