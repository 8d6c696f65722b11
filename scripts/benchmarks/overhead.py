"""What a sweep's cells cost besides their own passes: seconds of CPU per cell, by part.

    python scripts/benchmarks/overhead.py arith_decoder    # 20 cells, minutes
    python scripts/benchmarks/overhead.py smollm2_135m     # 20 cells, half an hour
    python scripts/benchmarks/overhead.py arith_decoder hydra/launcher=local sweep.pack=20

Runs a sweep of small cells with one thread, without W&B and with a store of its own, and asks every
5 ms of CPU time what the program is at, in every process of the sweep. `engine` is what edited and
clean passes take; all other parts are overhead. A sweep of the first cell alone tells what a
process costs by itself. To compare with another checkout, run this same file with
PYTHONPATH=CHECKOUT.
"""

import argparse
import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

EVERY_S = 0.005
"""CPU time between two looks."""

COMMON = (
    "problems.seed=0,1,2,3,4,5,6,7,8,9",
    "intervention=interchange",
    "intervention.n_problems=24",
    "intervention.sources=1",
    "intervention.controls={random:20,span:0,valueless:0,other:false,shuffled:false}",
)
SWEEPS = {
    "arith_decoder": (
        "template=nested_subtraction,sum_then_difference",
        "problems.n=400",
        *COMMON,
    ),
    "smollm2_135m": (
        "model=smollm2_135m",
        "prompt=chat",
        "prompt.shots=1",
        "tracing=pca_last",
        "template=sum_of_two,product_of_two",
        "problems.n=99",
        "problems.operands={min:0,max:9}",
        "layers=[20,28]",
        *COMMON,
    ),
}
"""Name of a sweep of 20 cells -> its overrides."""

FIRST = {
    name: [
        f"{key}={choices.partition(',')[0]}"
        for key, _, choices in (override.partition("=") for override in overrides)
        if key in ("problems.seed", "template")
    ]
    for name, overrides in SWEEPS.items()
}
"""Name of a sweep -> the overrides that leave its first cell."""

PASSES = {"embed", "run_block", "read_out", "full_pass"}
"""Methods of a model that run the network."""

WITHIN = {
    "imports": ("importlib",),
    "figures": ("mech_arith/reports/figures",),
    "hashing": ("mech_arith/common/digests",),
    "loading": ("mech_arith/experiment/load_model",),
    "guard": ("mech_arith/engine/guard",),
}
"""Part -> a file that is on the stack, however deep."""

ROOMS = ("statistics", "directions", "interventions", "evidence", "reports", "problems", "common")
"""Rooms whose own work is a part by itself."""

APART = ("figures", "W&B")
"""Not counted as overhead: they can be left out."""


def part_of(frame: FrameType | None) -> str:
    """What the program is at, by its stack: the innermost room, or a part that holds all below."""
    stack = [(f.f_code.co_filename, f.f_code.co_name) for f in _outwards(frame)]
    if any(function == "_present" and "/mech_arith/" in file for file, function in stack):
        return "W&B" if any("/reports/wandb" in file for file, _ in stack) else "figures"
    for part, names in WITHIN.items():
        if any(name in file for file, _ in stack for name in names):
            return part
    passes = any(function in PASSES and "/mech_arith/models/" in file for file, function in stack)
    rooms = [file.partition("/mech_arith/")[2].partition("/")[0] for file, _ in stack]
    # What a pass asks of the model on its way, as whether activations are finite, is the pass's.
    above = next((room for room in rooms if room not in ("", "models")), "")
    for room, (file, function) in zip(rooms, stack, strict=True):
        if room == "engine" or (room == "models" and (passes or above == "engine")):
            return "engine"
        if room == "reports" and "/wandb" in file:
            return "W&B"
        if room in ROOMS:
            return room
        if room == "models" and function != "<module>":
            return "prompts"
        if "/hydra/" in file or "/omegaconf/" in file:
            return "composing"
    return "rest"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def watch() -> None:
    """From here to the end of this process, write down what its CPU time goes to."""
    spent: Counter[str] = Counter()
    last = 0.0

    def look(_: int, frame: FrameType | None) -> None:
        # Several looks may fall into one long call of compiled code: count what has passed.
        nonlocal last
        now = time.process_time()
        spent[part_of(frame)] += now - last
        last = now

    def end() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        place = Path(os.environ[PARTS]) / f"{os.getpid()}.json"
        place.write_text(json.dumps(spent), encoding="utf-8")

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    atexit.register(end)


PARTS = "OVERHEAD_PARTS"
"""Environment variable: where each process leaves its parts."""

AT_START = f"""
import os, sys
if "{PARTS}" in os.environ:
    sys.path.append({str(Path(__file__).parent)!r})
    import overhead
    sys.path.pop()
    overhead.watch()
"""
"""What Python runs in every process before anything else, where it finds it as `sitecustomize`."""


@dataclass(frozen=True)
class Spent:
    """What a sweep has cost."""

    n_cells: int
    wall: float
    parts: dict[str, float]
    """Seconds of CPU of all its processes."""

    @property
    def overhead(self) -> float:
        """Of all parts but passes, and what can be left out."""
        return sum(s for part, s in self.parts.items() if part not in (*APART, "engine"))


def watched(*arguments: str) -> tuple[Counter[str], float]:
    """Run `mech_arith` with a store of its own; seconds of CPU by part of all its processes, and
    seconds by the clock.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "parts").mkdir()
        (place / "start").mkdir()
        (place / "start" / "sitecustomize.py").write_text(AT_START, encoding="utf-8")
        always = (f"store.path={place / 'store'}", "wandb=disabled", "threads=1")
        roots = [str(place / "start"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            PARTS: str(place / "parts"),
            "PYTHONPATH": os.pathsep.join(filter(None, roots)),
        }
        command = [sys.executable, "-m", "mech_arith", *arguments, *always]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        wall = time.monotonic() - began
        spent: Counter[str] = Counter()
        for path in (place / "parts").iterdir():
            spent.update(json.loads(path.read_text(encoding="utf-8")))
    return spent, wall


def measure(name: str, more: Sequence[str]) -> Spent:
    """Of one sweep."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "sweep"
        spent, wall = watched("-m", *SWEEPS[name], *more, f"hydra.sweep.dir={place}")
        states = json.loads((place / "cells.json").read_text(encoding="utf-8"))
    return Spent(len(states["cells"]), wall, dict(spent))


def table(every: Spent, first: Spent) -> str:
    """The parts, largest first, and what they add up to."""
    n, whole = every.n_cells, sum(every.parts.values())
    lines = [f"{'part':<14}{'s/cell':>8}{'of all':>8}"]
    for part, spent in sorted(every.parts.items(), key=lambda entry: -entry[1]):
        lines.append(f"{part:<14}{spent / n:>8.3f}{spent / whole:>8.1%}")
    apart = sum(every.parts.get(part, 0.0) for part in APART)
    lines.append(
        f"{n} cells, {whole:.1f} s of CPU, {every.wall:.1f} s by the clock; without "
        f"{' and '.join(APART)} the overhead is {every.overhead / n:.2f} s per cell, "
        f"{every.overhead / (whole - apart):.1%} of all"
    )
    further = (every.overhead - first.overhead) / max(1, n - 1)
    lines.append(f"the first cell: {first.overhead:.2f} s; each further one: {further:.2f} s")
    return "\n".join(lines)


def main() -> None:
    """Measure one sweep, and its first cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("overrides", nargs="*", help="more overrides, as sweep.pack=10")
    asked = parser.parse_args()
    first = measure(asked.sweep, [*asked.overrides, *FIRST[asked.sweep]])
    print(table(measure(asked.sweep, asked.overrides), first))


if __name__ == "__main__":
    main()
