"""What a sweep takes on disk: files and bytes per cell, per job and in the store.

    python -m mech_arith -m problems.seed=0,1 hydra.sweep.dir=SWEEP store.path=STORE wandb=offline
    python scripts/benchmarks/footprint.py SWEEP --store STORE --requests

`--requests` sends the first cell to a W&B server of this machine (the tests' own) and counts what
comes there. `docs/scale.md` reckons from these numbers what thousands of cells take.
"""

import argparse
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.runs.directories import finished_runs

ROOT = Path(__file__).resolve().parents[2]

Sizes = dict[str, tuple[int, int]]
"""Kind -> files, bytes."""


def sizes(files: Iterable[tuple[str, Path]]) -> Sizes:
    """Files and bytes of each kind."""
    found: dict[str, list[int]] = defaultdict(list)
    for kind, path in files:
        found[kind].append(path.stat().st_size)
    return {kind: (len(some), sum(some)) for kind, some in sorted(found.items())}


def of_cell(path: Path, cell: Path) -> str:
    """What kind of file one is in a cell's directory."""
    first = path.relative_to(cell).parts[0]
    if path.parent != cell:
        return first
    return "tables" if path.suffix == ".parquet" else "the rest"


def files_in(directory: Path) -> list[Path]:
    """All files below a directory."""
    return [path for path in directory.rglob("*") if path.is_file()]


def told(name: str, of: Sizes, n: int) -> Iterable[str]:
    """Lines: per one of n, files and kilobytes of each kind, and of all."""
    files = sum(count for count, _ in of.values())
    size = sum(total for _, total in of.values())
    for kind, (count, total) in {**of, "all": (files, size)}.items():
        yield f"{name:20} {kind:16} {count / n:8.1f} files {total / n / 1000:10.1f} KB"


def main() -> None:
    """Print what a sweep and its store take."""
    asked = _arguments()
    try:
        cells = finished_runs([asked.sweep])
    except UserError as error:
        sys.exit(str(error))
    of_cells = sizes((of_cell(path, cell), path) for cell in cells for path in files_in(cell))
    lines = [f"{len(cells)} cells", *told("a cell", of_cells, len(cells))]
    jobs = [path for path in (asked.sweep / ".submitit").glob("[0-9]*") if path.is_dir()]
    if jobs:
        of_jobs = sizes((path.suffix, path) for job in jobs for path in files_in(job))
        lines += told("a job", of_jobs, len(jobs))
    if asked.store is not None:
        stages = [path for path in asked.store.iterdir() if path.is_dir()]
        for stage in sorted(stages):
            kinds = ((path.suffix, path) for path in files_in(stage))
            lines += told(f"store: {stage.name}", sizes(kinds), 1)
    if asked.requests:
        lines += [f"W&B: {count} x {kind}" for kind, count in requests(cells[0]).items()]
    print("\n".join(lines))


def requests(cell: Path) -> Counter[str]:
    """The requests by which a cell is sent to W&B, by kind."""
    sys.path.insert(0, str(ROOT))
    from tests.wandb_server import wandb_server

    with wandb_server() as server:
        subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "wandb_sync.py"), "--again", str(cell)],
            env=os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return Counter(re.sub(r"(?<=storage)/.*|/files/\S*/", "", one) for one in server.requests)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Files and bytes of a finished sweep.")
    parser.add_argument("sweep", type=Path, help="its directory")
    parser.add_argument("--requests", action="store_true", help="count those to W&B")
    parser.add_argument("--store", type=Path, help="its store, with nothing else in it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
