"""Cells of a job beside each other: worker processes with devices of their own, and one queue."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from threadpoolctl import threadpool_limits

from mech_arith.common.errors import UserError
from mech_arith.common.interrupts import end
from mech_arith.common.runs.packs import AUTO

DEVICES = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"

FORK = multiprocessing.get_context("fork")
"""A worker takes over what the job has read in. The job itself runs no cell, so that it has started
no threads and no GPU."""

Run = Callable[[int], str]
"""Runs a cell, by its place in the queue; returns why it failed, or nothing."""


@dataclass(frozen=True)
class Share:
    """What one worker has for itself."""

    devices: tuple[str, ...]
    """As `DEVICES` lists them: numbers, or names of GPUs and of their MIG instances. None of them
    leaves the variable as it is."""
    threads: int


def check_workers(asked: object, pack: object) -> None:
    """Refuse a number of workers that there is not, or that has too few cells to work at.

    Args:
        asked: a number, or `AUTO`: one for each GPU of a job.
        pack: cells of a job, a number or `AUTO`; None for one.

    Raises:
        UserError: one of the two.
    """
    if asked != AUTO and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
        raise UserError(
            f"expected sweep.workers as a number of processes from 1 on, or {AUTO}, got {asked!r}; "
            "write for example sweep.workers=2"
        )
    if pack is None:
        raise UserError(
            f"expected sweep.pack beside sweep.workers={asked}: the cells of a job, which its "
            "workers share, got none; write for example sweep.pack=8"
        )
    least = asked if isinstance(asked, int) else 2
    if isinstance(pack, int) and pack < least:
        raise UserError(
            f"expected a cell for each worker of a job, got sweep.pack={pack} and "
            f"sweep.workers={asked}; raise sweep.pack, or leave sweep.workers out"
        )


def check_devices(asked: object, n_devices: int) -> None:
    """Refuse more workers than GPUs, where there are any; and one for each where there are none.

    Raises:
        UserError: one of the two.
    """
    if asked == AUTO and n_devices == 0:
        raise UserError(
            f"expected GPUs for sweep.workers={AUTO}, got a job without any; ask for some, as by "
            "hydra.launcher.gpus_per_node=4, or write a number of workers"
        )
    if isinstance(asked, int) and 0 < n_devices < asked:
        raise UserError(
            f"expected at most as many workers as the job has GPUs, got sweep.workers={asked} and "
            f"{n_devices} of them; write sweep.workers={AUTO}, raise hydra.launcher.gpus_per_node, "
            "or let all cells have device=cpu"
        )


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, by the names that CUDA knows them by."""
    listed = environment.get(DEVICES)
    if listed is None:
        # Not in this process: it is to be forked.
        ask = "import torch; print(torch.cuda.device_count())"
        told = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True)
        return [str(number) for number in range(int(told.stdout.strip() or 0))]
    names = [name.strip() for name in listed.split(",")]
    # CUDA sees nothing from the first name on that is no device.
    ends = [at for at, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: min(ends, default=len(names))]


def shares(asked: int | str, devices: Sequence[str], threads: int) -> list[Share]:
    """What each worker has for itself: GPUs in their order, and an equal number of threads.

    Raises:
        UserError: see `check_devices`.
    """
    check_devices(asked, len(devices))
    n, have = len(devices) if isinstance(asked, str) else asked, len(devices)
    own = [tuple(devices[have * at // n : have * (at + 1) // n]) for at in range(n)]
    return [Share(some, max(1, threads // n)) for some in own]


def usable_threads(environment: Mapping[str, str]) -> int:
    """Threads that the job may use."""
    told = environment.get(THREADS, "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1


@dataclass
class _Worker:
    """A process that works, and the cell that it works at."""

    share: Share
    log: Path
    process: BaseProcess
    asks: Connection
    cell: int

    def tell(self, cell: int | None) -> bool:
        """Hand it a cell, or None to end it; False if it has ended by itself."""
        try:
            self.asks.send(cell)
        except OSError:
            return False
        return True


def run_beside(
    n_cells: int, run: Run, shares: Sequence[Share], *, logs: Path, ignored: Collection[int] = ()
) -> dict[int, str]:
    """Run cells in workers, each of which takes the next one when it is done with one.

    A worker that dies fails its cell alone: another one takes its place while cells are waiting.

    Args:
        n_cells: how many.
        run: is called in the workers.
        shares: of each worker.
        logs: where each worker's output goes, with `worker_<n>.log` behind the name.
        ignored: signals that reach the workers too, and concern this process alone.

    Returns:
        Of each cell why it failed; nothing if it did not.
    """
    waiting, ends = deque(range(n_cells)), dict[int, str]()
    workers: list[_Worker] = []

    def start(share: Share, log: Path) -> None:
        process, asks = _started(run, share, log, ignored)
        workers.append(_Worker(share, log, process, asks, waiting.popleft()))
        workers[-1].tell(workers[-1].cell)

    try:
        for number, share in enumerate(shares[:n_cells]):
            start(share, logs.with_name(f"{logs.name}worker_{number}.log"))
        while workers:
            for worker in _with_news(workers):
                told = _told(worker)
                ends[worker.cell] = _death(worker) if told is None else told
                if told is not None and waiting and worker.tell(waiting[0]):
                    worker.cell = waiting.popleft()
                    continue
                worker.tell(None)
                worker.process.join()
                worker.asks.close()
                workers.remove(worker)
                if waiting:
                    start(worker.share, worker.log)
    finally:
        end([worker.process.pid for worker in workers if worker.process.pid])
    return ends


def _with_news(workers: Sequence[_Worker]) -> list[_Worker]:
    """Those that have done with their cells, or ended."""
    ready = set(wait([handle for w in workers for handle in (w.asks, w.process.sentinel)]))
    return [worker for worker in workers if {worker.asks, worker.process.sentinel} & ready]


def _told(worker: _Worker) -> str | None:
    """What a worker says of its cell; None if it ends without a word."""
    try:
        return worker.asks.recv()
    except (EOFError, OSError):
        return None


def _death(worker: _Worker) -> str:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"expected its worker to live on, got its end by {how}; the worker's log: {worker.log}"


def _started(
    run: Run, share: Share, log: Path, ignored: Collection[int]
) -> tuple[BaseProcess, Connection]:
    """A new worker, and the connection by which it is given cells."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_work, args=(ours, theirs, run, share, log, ignored))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ignored)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return process, ours


def _work(
    parents: Connection,
    cells: Connection,
    run: Run,
    share: Share,
    log: Path,
    ignored: Collection[int],
) -> None:
    """Run cells until there are no more."""
    parents.close()
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ[THREADS] = str(share.threads)
    threadpool_limits(share.threads)  # of libraries that the job has loaded already
    if share.devices:
        os.environ[DEVICES] = ",".join(share.devices)
    _write_to(log)
    sys.stdout.write(f"worker {os.getpid()}: {share}\n")
    while (cell := cells.recv()) is not None:
        cells.send(run(cell))


def _end_with_parent() -> None:
    """A job that is killed comes to tell nobody; its cells are launched anew."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _write_to(log: Path) -> None:
    """Let this process, and what it starts, write to a file."""
    file = log.open("a", buffering=1, encoding="utf-8")
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout = sys.stderr = file
