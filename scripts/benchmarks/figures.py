"""How long the figures of a cell take to draw, on one thread.

    OMP_NUM_THREADS=1 python scripts/benchmarks/figures.py [RUN_DIRECTORY] [--cells 5]

Draws the figures of a finished run, or of a made-up cell of 4 layers and 5 values, several times in
one process, as a sweep does. The first cell also pays for what a process does once.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from arguments import count
from synthetic import save_sweep

from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.results import load_run
from mech_arith.reports.figures import cell_figures, save_figures

BAR = 0.5
"""Seconds of CPU."""


def main() -> None:
    """Draw, and print seconds of CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, nargs="?", help="directory of a finished run")
    parser.add_argument("--cells", type=count, default=5, help="times that its figures are drawn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.run
        if directory is None:
            save_sweep(Path(temporary), 1)
            (directory,) = find_runs(Path(temporary))
        tables = load_run(directory).tables
        times, figures = [], {}
        for _ in range(arguments.cells):
            started = time.process_time()
            figures = cell_figures(tables, title="benchmark")
            save_figures(figures, Path(temporary) / "figures")
            times.append(time.process_time() - started)
    print(f"{len(figures)} figures: {', '.join(figures)}")
    print(f"first cell {times[0]:.2f} s of CPU, then {statistics.median(times[1:] or times):.2f} s")
    print(f"the bar is {BAR:g} s of a small cell, on a machine that is not busy")


if __name__ == "__main__":
    main()
