"""Time this engine against its peers on the same sweeps, in one process, and compare all logits.

    pip install -e '.[bench]'
    python scripts/benchmarks/peers.py --workload A,B,C,D,E,F --threads 2

F is a cell as a user runs it, beside forward hooks alone (see `cells`). E are the steps of a
rotation that is trained, beside pyvene's (see `trained`). In A, B, C and D an edit is one change of
one problem's residual stream; its result is the logits at the last position. D interchanges what
problems have within subspaces; the sources' activations are there before the clock starts. Peers
run as many of the edits as fit into their time, sites taking turns; the engine runs all. Peers that
are not installed are left out. Tools take turns in every round, so that the machine's noise hits
all alike.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median

import bound
import cells
import ours
import torch
import trained
from agreement import TOLERANCE, Agreement, Compared
from contenders import PEERS, Peer, Unavailable
from rich.console import Console
from rich.table import Table
from workloads import Workload, language_model, shipped_decoder

from mech_arith.common.errors import UserError, unknown

OURS = "mech_arith"
NAMES = ("A", "B", "C", "D", "E", "F")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BOUND_SECONDS = 2.0
"""How long the machine's rate is measured in every round."""


@dataclass
class Timing:
    """One tool's speed on one workload."""

    tool: str
    counts: bool
    """Whether the engine's ratio to the fastest peer heeds it."""
    edits_per_second: list[float]
    """One number per round."""
    edits_timed: int = 0
    compared: Compared = field(default_factory=Compared)
    """Its logits with the engine's, over all edits that it ran."""
    unavailable: str = ""
    """Why it cannot run the workload; empty where it can."""

    @property
    def median(self) -> float:
        """Edits per second."""
        return median(self.edits_per_second)

    @property
    def spread(self) -> float:
        """Largest minus smallest, over the median."""
        return (max(self.edits_per_second) - min(self.edits_per_second)) / self.median


@dataclass
class Result:
    """What was measured on one workload."""

    workload: str
    title: str
    edits: int
    bar: float
    share_bar: float | None
    bound_edits_per_second: float
    multiply_adds_per_edit: list[int]
    """Of each site."""
    ours: Timing
    peers: list[Timing]

    @property
    def share(self) -> float:
        """The engine's speed over the bound's."""
        return self.ours.median / self.bound_edits_per_second

    @property
    def ratio(self) -> float:
        """The engine's speed over that of the fastest peer that counts."""
        speeds = [peer.median for peer in self.peers if peer.counts and not peer.unavailable]
        return self.ours.median / max(speeds)

    @property
    def agrees(self) -> bool:
        """Whether every logit that was compared agrees."""
        return all(peer.compared.largest_difference <= TOLERANCE for peer in self.peers)


@torch.inference_mode()
def benchmark(
    workload: Workload, *, rounds: int, seconds: float, clock: bound.Clock = time.perf_counter
) -> Result:
    """Run the engine and all peers in turns.

    Args:
        workload: the sweep.
        rounds: how often each tool has its turn.
        seconds: how long each peer is timed, all rounds together.
        clock: that times all.
    """
    agreement = Agreement(workload)
    ours.logits(workload, agreement.fill)
    agreement.check_filled()
    engine = Timing(OURS, counts=False, edits_per_second=[])
    timings, runners = [], []
    for kind in PEERS:
        timing = Timing(kind.name, kind.counts, [])
        timings.append(timing)
        try:
            peer = kind(workload)
        except Unavailable as reason:
            timing.unavailable = str(reason)
            continue
        peer.logits(workload.sites[0], 0)
        runners.append((peer, timing, cycle(workload.passes)))
    rates = bound.rates_of(workload, ours.stacked)
    bounds = []
    edits = workload.n * sum(map(len, workload.sites))
    for _ in range(rounds):
        bounds.append(
            bound.bound_seconds(workload, rates.measure(seconds=BOUND_SECONDS, clock=clock))
        )
        start = clock()
        ours.logits(workload, _discard)
        engine.edits_per_second.append(edits / (clock() - start))
        engine.edits_timed += edits
        for peer, timing, passes in runners:
            _turn(peer, timing, passes, agreement, seconds=seconds / rounds, clock=clock)
    return Result(
        workload.name,
        workload.title,
        edits,
        workload.bar,
        workload.share_bar,
        edits / median(bounds),
        [bound.work_of_edit(workload, site).total for site in workload.sites],
        engine,
        timings,
    )


def _turn(
    peer: Peer,
    timing: Timing,
    passes: Iterator[tuple[int, int]],
    agreement: Agreement,
    *,
    seconds: float,
    clock: bound.Clock,
) -> None:
    """One peer's turn: at least one edit, and more until its time is used up."""
    spent, done = 0.0, 0
    while spent < seconds:
        site, edit = next(passes)
        start = clock()
        logits = peer.logits(peer.workload.sites[site], edit)
        spent += clock() - start
        done += len(logits)
        agreement.compare(timing.compared, site, edit, logits)
    timing.edits_per_second.append(done / spent)
    timing.edits_timed += done


def _discard(*_: object) -> None:
    """Take logits and do nothing with them."""


def table(result: Result) -> Table:
    """The result as a table; peers in brackets do not count."""
    shown = Table(title=f"{result.workload}: {result.title}, {result.edits:,} edits")
    shown.add_column("tool")
    for name in ("edits/s", "spread", "timed", "engine faster", "logits differ", "same top"):
        shown.add_column(name, justify="right")
    for timing in (result.ours, *result.peers):
        if timing.unavailable:
            shown.add_row(timing.tool, "n/a")
            continue
        cells = [f"{timing.median:,.1f}", f"{timing.spread:.0%}", f"{timing.edits_timed:,}"]
        if timing is not result.ours:
            cells += [
                f"{result.ours.median / timing.median:,.1f} x",
                f"{timing.compared.largest_difference:.1e}",
                f"{timing.compared.same_top_token:.2%}",
            ]
        shown.add_row(timing.tool, *cells)
    return shown


def verdict(result: Result) -> list[str]:
    """Each bar, and whether it is met; and who could not run, and why."""
    lines = [f"{peer.tool}: n/a, {peer.unavailable}" for peer in result.peers if peer.unavailable]
    lines += [
        f"{_met(result.ratio >= result.bar)}: {result.ratio:.1f} times the fastest peer "
        f"(asked for: {result.bar:g})"
    ]
    share = (
        f"{result.share:.2f} of the bound, which is {result.bound_edits_per_second:,.0f} edits/s"
    )
    if result.share_bar is None:
        lines.append(share)
    else:
        met = _met(result.share >= result.share_bar)
        lines.append(f"{met}: {share} (asked for: {result.share_bar:g})")
    compared = sum(peer.compared.logits for peer in result.peers)
    lines.append(
        f"{_met(result.agrees)}: {compared:,} logits of peers compared with the engine's "
        f"(asked for: all within {TOLERANCE:g})"
    )
    return lines


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


def machine() -> dict[str, str | int]:
    """What was measured on, and with what."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    tools = ("torch", "transformers", "transformer-lens", "pyvene", "nnsight")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        **{tool: _version(tool) for tool in tools},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"


def load(name: str) -> Workload | cells.Cell | trained.Training:
    """A workload by its letter, ready to be run.

    Raises:
        UserError: there is none of that name, or its model has not been fetched.
    """
    from mech_arith.models.language.packaged import PACKAGED

    if name not in NAMES:
        raise unknown("workload", name, NAMES)
    if name == "C":
        return shipped_decoder()
    model = PACKAGED["smollm2_135m"]
    if not model.directory.is_dir():
        raise UserError(
            f"expected SmolLM2-135M in {model.directory}, found nothing; run `{model.command}`"
        )
    if name == "E":
        return trained.prepare_training(model.directory)
    return cells.prepare_cell() if name == "F" else language_model(name, model.directory)


def main() -> None:
    """Measure, print, and fail where logits disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--workload", default=",".join(NAMES), help="which, by comma (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each tool (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="to time each peer for, in all (%(default)s)"
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: of this process alone, on a machine that others use; with --threads 1",
    )
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    chosen = parser.parse_args()
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()))
    results = []
    try:
        # Workload F is asked for a share of what A reaches.
        share_of_a = None
        for name in sorted(chosen.workload.split(",")):
            how = {
                "rounds": chosen.rounds,
                "seconds": chosen.seconds,
                "clock": CLOCKS[chosen.clock],
            }
            loaded = load(name)
            if isinstance(loaded, trained.Training):
                result = trained.benchmark(loaded, rounds=chosen.rounds, clock=how["clock"])
                said = [trained.table(result), *trained.verdict(result)]
            elif isinstance(loaded, cells.Cell):
                result = cells.benchmark(loaded, **how)
                said = [cells.table(result), *cells.verdict(result, share_of_a=share_of_a)]
            else:
                result = benchmark(loaded, **how)
                share_of_a = result.share if name == "A" else share_of_a
                said = [table(result), *verdict(result)]
            console.print(*said, sep="\n")
            results.append(result)
    except UserError as error:
        sys.exit(str(error))
    if chosen.json is not None:
        measured = {"machine": machine(), "results": [asdict(result) for result in results]}
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n")
    if not all(result.agrees for result in results):
        sys.exit("expected all tools to agree; see the tables")


if __name__ == "__main__":
    main()
