"""Sweeps on a real SLURM, for the tests: started by the shell's command, watched from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.running import SMALL
from tests.waiting import PATIENCE_S, wait

ON_SLURM = (
    "hydra.launcher.timeout_min=60",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.cpus_per_task=2",  # so that four jobs run at a time on a testbed
    "threads=1",
)

SHORT = (*SMALL, "tracing.position_map=false", "layers=late")
"""A cell of ten seconds, most of them spent on imports."""

LONG = (
    "problems.n=400",
    "tracing.n_components=8",
    "tracing.position_map=false",
    "intervention.n_problems=120",
    "intervention.strengths=[-4,-3,-2,-1,0,1,2,3,4]",
    "intervention.controls.random=1",
    "intervention.controls.span=0",
    "intervention.controls.other=false",
    "intervention.controls.shuffled=false",
    "wandb=disabled",
)
"""A cell that spends ten seconds or more on edits, so that it can be hit in its work."""

STARTED: "list[Sweep]" = []
"""All sweeps of this process."""


def has_testbed() -> bool:
    """Whether SLURM_CONF names a testbed: on a real cluster, these tests have nothing to do."""
    path = Path(os.environ.get("SLURM_CONF", "/nonexistent"))
    return path.is_file() and "ClusterName=testbed" in path.read_text(encoding="utf-8")


@dataclass
class Sweep:
    """A command line with `-m`, in a process of its own. Its jobs have a name of their own."""

    directory: Path
    name: str
    process: subprocess.Popen[str] = field(init=False)
    output: str = field(init=False, default="")

    def start(self, *arguments: str) -> "Sweep":
        """Begin; where its directory is not given in words, below the folder it stands in."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mech_arith", "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory.parent,
            env=os.environ | {"OMP_NUM_THREADS": "1", "WATCHED": str(self.directory.parent)},
        )
        STARTED.append(self)
        return self

    def end(self) -> "Sweep":
        """Wait for its end."""
        self.output = self.process.communicate(timeout=PATIENCE_S)[0]
        return self

    @property
    def exit_code(self) -> int | None:
        return self.process.returncode

    def cell(self, number: int = 0) -> Path:
        return self.directory / str(number)

    def record(self, number: int = 0) -> dict[str, Any]:
        """What a cell says of itself while it is at work; nothing before that."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.cell(number) / "cell.json").read_text(encoding="utf-8"))
        return {}

    def summary(self, number: int = 0) -> dict[str, Any]:
        return json.loads((self.cell(number) / "summary.json").read_text(encoding="utf-8"))

    def states(self) -> dict[str, tuple[str, str]]:
        """Cell -> what has become of it, and why, as its end has written it down."""
        known = json.loads((self.directory / "cells.json").read_text(encoding="utf-8"))
        return {cell["directory"]: (cell["status"], cell["note"]) for cell in known["cells"]}

    def jobs(self, *options: str, fields: str = "JobID,State") -> list[tuple[str, ...]]:
        """What accounting says of its jobs, without their steps, once all of them have ended.

        A job has written its result a moment before it ends.
        """
        alive = {"PENDING", "RUNNING", "REQUEUED", "COMPLETING"}
        wait(lambda: not alive & set(self._accounted("State").split()))
        answer = self._accounted(fields, *options)
        return [tuple(line.split("|")) for line in answer.splitlines()]

    def job(self, number: int = 0) -> str:
        """The SLURM job that works, or has last worked, at a cell."""
        return self.record(number)["attempts"][-1]["slurm_job"]

    def wait_for_edits(self, number: int = 0) -> None:
        """Until a cell has put some of its edits on disk, of which more are to come."""
        self.wait(lambda: any(self.cell(number).glob("parts/edits/*/*.safetensors")))

    def wait(self, condition: Callable[[], Any]) -> None:
        wait(condition, unless=lambda: self.process.poll() is not None)

    def _accounted(self, fields: str, *options: str) -> str:
        return slurm("sacct", "-X", "-n", "-P", f"--name={self.name}", "-o", fields, *options)


def end_all() -> None:
    """End whatever still runs of all sweeps that were started."""
    for sweep in STARTED:
        if sweep.process.poll() is None:
            sweep.process.kill()
            slurm("scancel", f"--name={sweep.name}")


def slurm(*command: str) -> str:
    """What a client of SLURM answers."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout.strip()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, and notices signals afterwards; if there is one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    wait(lambda: _status(pid).get("State", "T").startswith("T"))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def is_signalled(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process has been sent a signal; or was woken, so that it has noticed."""
    status = _status(pid)
    if not status.get("State", "").startswith("T"):
        return True
    pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return bool(pending >> (number - 1) & 1)


def _status(pid: int) -> dict[str, str]:
    """What the kernel says of a process; nothing if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
