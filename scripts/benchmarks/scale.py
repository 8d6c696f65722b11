"""What thousands of cells of a large model take: arithmetic, with its formulas.

    python scripts/benchmarks/scale.py                 # Llama 3.1 70B, 10,000 cells
    python scripts/benchmarks/scale.py --layers 32 --width 4096 --heads 32 --feed-forward 14336

Nothing is run. What the formulas start from was measured on small cells by `footprint.py`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

CELL_FILES, CELL_MB = 51, 4.9
"""In a cell's directory, with figures and W&B: `footprint.py`."""
WANDB_FILES, WANDB_MB, WANDB_REQUESTS, WANDB_CREATIONS = 21, 3.4, 22, 2
"""Of these files and megabytes, W&B's; requests that send a cell, and those that make a run."""
JOB_FILES, JOB_KB = 4, 81.0
"""Of submitit, per job; each worker has a log beside them."""
STORE_FILES_OF_CELL = 8
"""Entries and locks besides two of each site."""
AUTO_ELEMENTS = 2**25
"""Numbers in the residual stream of one batch on a GPU: `engine/batching.py`."""
ENTRY_KB = 1.9
"""Header, digests and small tensors of an entry."""


@dataclass(frozen=True)
class Network:
    """The sizes of a Llama, as its config.json has them."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int

    @property
    def kv_width(self) -> int:
        """Width of all keys of one layer."""
        return self.width // self.heads * self.kv_heads

    @property
    def block(self) -> int:
        """Weights of a layer: as many multiply-adds per position."""
        attention = 2 * self.width**2 + 2 * self.width * self.kv_width
        return attention + 3 * self.width * self.feed_forward

    @property
    def head(self) -> int:
        """Weights of the unembedding."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All of them."""
        return self.layers * self.block + 2 * self.head


@dataclass(frozen=True)
class Sweep:
    """What is asked of the network."""

    cells: int
    problems: int
    sites: int
    components: int
    values: int
    edits: int
    rate: float
    """Multiply-adds per second of one GPU."""
    gpu_gb: float
    pack: int


def entry_kb(width: int, *, components: int, values: int) -> float:
    """Kilobytes of a site's components in the store: mean and directions in float64, a shuffled
    direction for each value in float32.

    Args:
        width: of all positions of the site together.
        components: that are kept.
        values: whose relation to them is traced.
    """
    return width * (8 * (components + 1) + 4 * values) / 1e3 + ENTRY_KB


Row = tuple[str, str, str]
"""What, by which formula, how much."""


def memory(net: Network, sweep: Sweep) -> Iterator[Row]:
    """Of the model, and of one batch at one position."""
    rows = AUTO_ELEMENTS // net.width
    weights = 2e-9 * net.weights
    stream = 2e-9 * rows * (net.width + 3 * net.feed_forward)
    logits = 6e-9 * rows * net.vocabulary
    keys = 4 * net.layers * net.kv_width
    yield "weights", "2 bytes x parameters, bfloat16", f"{weights:.0f} GB"
    yield "rows of a batch", f"2^25 / width {net.width}, one position", f"{rows}"
    yield "activations", "2 bytes x rows x (width + 3 x feed-forward)", f"{stream:.1f} GB"
    yield "logits", "6 bytes x rows x vocabulary", f"{logits:.1f} GB"
    yield "keys and values", "4 bytes x layers x their width, per token", f"{keys / 1e6:.2f} MB"
    text = 1e-9 * keys * (300 + 100 * 30)
    yield "the same", "prefix of 300 tokens, 100 problems of 30 tokens", f"{text:.1f} GB"
    total = weights + stream + logits + text
    gpus = ceil(total / (0.9 * sweep.gpu_gb))
    yield "GPUs for a model", f"the sum {total:.0f} GB / (.9 x {sweep.gpu_gb:g} GB)", f"{gpus}"


def time(net: Network, sweep: Sweep) -> Iterator[Row]:
    """Of the passes of a cell and of all, on one GPU at the rate that is assumed."""
    edit = net.block * (net.layers - 1) / 2 + net.head
    edits = edit * sweep.edits
    clean = 1.0 * sweep.problems * 30 * (net.layers * net.block)
    seconds = (edits + clean) / sweep.rate
    hours = sweep.cells * seconds / 3600
    yield "an edit", "block x (layers - 1) / 2 + head, last position", f"{edit / 1e9:.1f} G"
    yield "edits of a cell", f"{sweep.edits} x an edit", f"{edits / 1e12:.0f} T"
    yield "clean passes", f"{sweep.problems} problems x 30 tokens", f"{clean / 1e12:.0f} T"
    yield "a cell", f"sum / {sweep.rate / 1e12:g} T per second", f"{seconds:.0f} s"
    yield "all cells", f"{sweep.cells} x a cell, on one GPU", f"{hours:.0f} hours"


def disk(net: Network, sweep: Sweep) -> Iterator[Row]:
    """Bytes and files of all cells and of the store, where no two cells share a tracing."""
    site = entry_kb(net.width, components=sweep.components, values=sweep.values)
    site += sweep.problems / 2 * sweep.components * 8 / 1e3 + ENTRY_KB
    n_fit = sweep.problems // 2
    work = 8e-9 * sweep.sites * min(n_fit, net.width) * net.width
    store = sweep.cells * sweep.sites * site
    jobs = ceil(sweep.cells / sweep.pack)
    yield (
        "cells",
        f"{CELL_MB} MB, {CELL_FILES} files each",
        (f"{sweep.cells * CELL_MB / 1e3:.0f} GB, {sweep.cells * CELL_FILES:,} files"),
    )
    mb, files = CELL_MB - WANDB_MB, CELL_FILES - WANDB_FILES
    small = f"{sweep.cells * mb / 1e3:.0f} GB, {sweep.cells * files:,} files"
    yield "without W&B", f"{mb:.1f} MB, {files} files each", small
    yield (
        "store, a site",
        "width x (8 (components + 1) + 4 values) + 8 x problems / 2 x components",
        (f"{site:.0f} KB, 2 files"),
    )
    yield (
        "store",
        f"{sweep.sites} sites x {sweep.cells} cells",
        (f"{store / 1e6:.0f} GB, {sweep.cells * (2 * sweep.sites + STORE_FILES_OF_CELL):,} files"),
    )
    yield (
        "work in progress",
        "8 bytes x sites x problems / 2 x width, per cell at work",
        (f"{work:.1f} GB"),
    )
    yield (
        "jobs",
        f"{sweep.cells} / {sweep.pack} cells, {JOB_FILES} files each",
        (f"{jobs}: {jobs * JOB_KB / 1e3:.0f} MB, {jobs * JOB_FILES:,} files"),
    )


def tracking(sweep: Sweep) -> Iterator[Row]:
    """Requests to W&B."""
    total = sweep.cells * WANDB_REQUESTS
    yield "requests", f"{WANDB_REQUESTS} x {sweep.cells} cells", f"{total:,}"
    made = sweep.cells * WANDB_CREATIONS / 80
    yield "time by run creation", f"{WANDB_CREATIONS} x cells / 80 per second", f"{made:.0f} s"
    ten = total / 10 / 3600
    yield "time at ten requests per second", "requests / 10", f"{ten:.1f} hours"


def main() -> None:
    """Print a table for each part."""
    net, sweep = _arguments()
    parts = {
        "Memory": memory(net, sweep),
        "Time: multiply-adds": time(net, sweep),
        "Disk": disk(net, sweep),
        "W&B": tracking(sweep),
    }
    lines = [f"{net.weights / 1e9:.1f} billion parameters"]
    for title, rows in parts.items():
        lines += ["", f"| {title} | by | |", "|---|---|---|"]
        lines += [f"| {what} | {formula} | {amount} |" for what, formula, amount in rows]
    sys.stdout.write("\n".join(lines) + "\n")


def _arguments() -> tuple[Network, Sweep]:
    parser = argparse.ArgumentParser(description="Arithmetic of large sweeps; nothing is run.")
    llama = {"layers": 80, "width": 8192, "heads": 64, "kv-heads": 8}
    llama |= {"feed-forward": 28672, "vocabulary": 128256}
    asked = {"cells": 10_000, "problems": 1000, "sites": 80, "components": 10, "values": 5}
    asked |= {"edits": 42_000, "pack": 32}
    for name, number in (llama | asked).items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"by default {number}")
    parser.add_argument("--rate", type=float, default=2e14, help="multiply-adds per second")
    parser.add_argument("--gpu-gb", type=float, default=80.0, help="memory of a GPU")
    given = vars(parser.parse_args())
    net = Network(*(given[name.replace("-", "_")] for name in llama))
    sizes = {name: given[name.replace("-", "_")] for name in asked}
    return net, Sweep(**sizes, rate=given["rate"], gpu_gb=given["gpu_gb"])


if __name__ == "__main__":
    main()
