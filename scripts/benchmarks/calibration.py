"""Is the tool right when it says how sure it is? Cases whose truth is known.

    python scripts/benchmarks/calibration.py [--plants 100 --subspaces 20 --nulls 200 --cases 2000]
            [--seed 0] [--only planted,subspaces,null,coverage,ties,stopping,slopes,das,rivals,
            grokking]
            [--json FILE]

planted: Transformers whose weights are set by hand (`mech_arith.models.planted`). Tracing must find
what they write, first where it is written, and an interchange tell what is read from what is not.
subspaces: values that such models keep in 1 to 8 dimensions, or on a helix, which the direction
methods that can must find. null: random networks, in which there is nothing to find. coverage:
intervals of drawn numbers whose true mean or R is known. ties: p-values where drops are rare, so
that many directions cost the same. stopping: p-values and means where directions are drawn until p
is decided. slopes: answers that are destroyed, which follow nothing. das:
trained rotations, in planted models, and beside their control task in half as many random networks.
rivals: models that compute by one of two hypotheses (the tree, and from the left or digit by digit)
and write the steps of the other as well: the right one must win, step by step and with all of its
steps set together, and in random networks none. grokking: the shipped model of modular addition, in
which the methods must find the frequencies that its embedding has; with 3 draws of problems. Prints
one table, and exits with 1 if a bar is missed. A quarter of an hour and more on one core, for
--threads 1.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from alignments import das_rows
from arguments import count, new_file, seed
from bars import Row, print_rows, save_rows
from covering import coverage_rows
from grokking import grokking_rows
from nulls import null_rows
from recovery import planted_rows
from rivals import rival_rows
from simulated import slope_rows, tie_rows
from stopping import stopping_rows
from subspaces import subspace_rows
from together import together_rows

PARTS = (
    *("planted", "subspaces", "null", "coverage", "ties"),
    *("stopping", "slopes", "das", "rivals", "grokking"),
)


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--plants", type=count, default=100)
    parser.add_argument("--subspaces", type=count, default=20, help="of each rank")
    parser.add_argument("--nulls", type=count, default=200)
    parser.add_argument("--cases", type=count, default=2000)
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--threads", type=count, help="of torch")
    parser.add_argument("--only", type=_parts, default=PARTS, help=f"of {','.join(PARTS)}")
    parser.add_argument("--json", type=new_file, help="write the table here too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    def seeds(n: int) -> range:
        return range(arguments.seed * 100_000, arguments.seed * 100_000 + n)

    parts: dict[str, Callable[[], list[Row]]] = {
        "planted": lambda: planted_rows(seeds(arguments.plants)),
        "subspaces": lambda: subspace_rows(seeds(arguments.subspaces)),
        "null": lambda: null_rows(seeds(arguments.nulls)),
        "coverage": lambda: coverage_rows(arguments.cases, seed=arguments.seed),
        "ties": lambda: tie_rows(arguments.cases, seed=arguments.seed),
        "stopping": lambda: stopping_rows(arguments.cases, seed=arguments.seed),
        "slopes": lambda: slope_rows(arguments.cases, seed=arguments.seed),
        "das": lambda: das_rows(seeds(arguments.plants), seeds(max(1, arguments.nulls // 2))),
        "rivals": lambda: [
            *rival_rows(seeds(arguments.plants), seeds(max(1, arguments.nulls // 10))),
            *together_rows(seeds(arguments.plants), seeds(max(1, arguments.nulls // 10))),
        ],
        "grokking": lambda: grokking_rows(seeds(3)),
    }
    rows: list[Row] = []
    for name in arguments.only:
        started = time.monotonic()
        rows += parts[name]()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print_rows(rows)
    if arguments.json:
        save_rows(rows, arguments.json)
    return 0 if all(row.met for row in rows) else 1


def _parts(text: str) -> list[str]:
    """Names of parts, separated by commas."""
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(PARTS)}, got {name!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
