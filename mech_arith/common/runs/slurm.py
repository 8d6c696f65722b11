"""What SLURM's accounting says of jobs."""

import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

FIELDS = ("JobID", "State", "Start", "MaxRSS", "ReqMem")
"""What accounting is asked for."""

OUT_OF_MEMORY = "OUT_OF_MEMORY"

ENDED = {
    OUT_OF_MEMORY: "killed for memory: it went beyond its limit; raise hydra.launcher.mem_gb",
    "TIMEOUT": "killed at its time limit; raise hydra.launcher.timeout_min or max_num_timeout",
    "CANCELLED": "cancelled (scancel)",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "preempted and not requeued",
    "DEADLINE": "killed at its deadline",
    "BOOT_FAIL": "its node did not boot",
    "FAILED": "its process died",
    "COMPLETED": "its process ended without a result",
}
"""State of a job that will not go on -> what to tell the user."""

ALIVE = {"PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "CONFIGURING", "COMPLETING"}

ANSWER_S = 30.0
"""How long accounting may take to answer, in seconds."""


@dataclass(frozen=True)
class JobState:
    """One job's last known state."""

    job: str
    states: frozenset[str]
    """Of the job and of its steps, as sacct names them."""
    memory: str | None = None
    """What it used, where that is more than it asked for: '262572K of 204800K'."""
    began: bool = True

    @property
    def is_alive(self) -> bool:
        """Whether it runs or waits to run."""
        return bool(self.states & ALIVE)

    def __str__(self) -> str:
        if self.memory is not None:
            reason = f"{ENDED[OUT_OF_MEMORY]} (it used {self.memory})"
        else:
            known = next((state for state in ENDED if state in self.states), None)
            reason = ENDED[known] if known else ", ".join(sorted(self.states)).lower()
        return f"SLURM job {self.job}: {reason}"


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """The states of jobs (12, or 12_3 in an array); those that SLURM knows nothing of are left
    out, and all of them where there is none.
    """
    wanted = sorted(set(jobs))
    if not wanted:
        return {}
    options = ["--noheader", "--parsable2", "--units=K", f"--format={','.join(FIELDS)}"]
    accounted = _parsed(_answer(["sacct", *options, "--jobs", ",".join(wanted)]))
    known = {job: state for job, state in accounted.items() if job in wanted}
    return known | _queued(wanted)


def _queued(wanted: Collection[str]) -> dict[str, JobState]:
    """Those jobs that stand in the queue or run.

    Accounting knows nothing of an array's tasks that still wait.
    """
    answer = _answer(["squeue", "--me", "--array", "--noheader", "--format=%i|%T"])
    rows = (line.strip().partition("|") for line in answer.splitlines())
    return {
        job: JobState(job, frozenset({state}), began=state != "PENDING")
        for job, _, state in rows
        if job in wanted
    }


def _answer(command: list[str]) -> str:
    """What a program of SLURM says; nothing if it is not there or fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _parsed(answer: str) -> dict[str, JobState]:
    """Jobs by their names, from the rows of jobs and of their steps."""
    rows: dict[str, list[dict[str, str]]] = {}
    for line in answer.splitlines():
        row: dict[str, str] = dict(zip(FIELDS, line.split("|"), strict=False))
        # 12_3.batch is a step of 12_3.
        rows.setdefault(row["JobID"].partition(".")[0], []).append(row)
    return {job: _state(job, of_job) for job, of_job in rows.items()}


def _state(job: str, rows: list[dict[str, str]]) -> JobState:
    # "CANCELLED by 0" says who did it.
    states = frozenset(row.get("State", "").split(" ")[0] for row in rows)
    used = max((_kilobytes(row.get("MaxRSS", "")) for row in rows), default=0.0)
    asked = max((_kilobytes(row.get("ReqMem", "")) for row in rows), default=0.0)
    # Where SLURM has no control groups it kills by polling, and calls the job merely FAILED.
    beyond = 0 < asked < used and not states & {"COMPLETED", *ALIVE}
    began = any(row.get("Start", "") not in ("", "None", "Unknown") for row in rows)
    memory = f"{used:.0f}K of {asked:.0f}K" if beyond else None
    return JobState(job, states, memory, began)


def _kilobytes(size: str) -> float:
    """'262572K' as a number; 0 where there is none."""
    digits = size.rstrip("KMGTcn")
    return float(digits) if digits.replace(".", "", 1).isdigit() else 0.0
