"""What drawing until p is decided saves: one cell, with fixed and with sequential draws.

    python scripts/benchmarks/sequential_cells.py [--most 99 --stop-after 10] [OVERRIDE ...]

Both have the same most directions of each kind, one thread, and no store. Prints the directions
that were drawn, the p-values, and seconds of CPU of the whole cell, tracing and tables included;
the model is loaded before. Another cell is asked for by its overrides. Minutes on one core.
"""

import argparse
import time

import pandas as pd
import torch
from arguments import count
from rich.console import Console
from rich.table import Table

from mech_arith import compose

KINDS = {"control": "random", "span": "span", "valueless": "valueless"}
"""Arms -> their names in the config."""


def main() -> None:
    """Run the cells, and print what each has drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--most", type=count, default=99, help="directions of each kind")
    parser.add_argument("--stop-after", type=count, default=10)
    parser.add_argument("--without-fixed", action="store_true", help="sequential draws alone")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    most = [f"intervention.controls.{kind}={asked.most}" for kind in KINDS.values()]
    designs = {"sequential": [f"intervention.controls.stop_after={asked.stop_after}"]}
    designs |= {} if asked.without_fixed else {"fixed": []}
    for design, more in designs.items():
        seconds, found = run([*asked.overrides, *most, *more])
        table = Table(title=f"{design}: {seconds:.0f} s of CPU", title_justify="left")
        for column in ("directions", "targets", "median", "mean", "all drawn", "p <= .05", "least"):
            table.add_column(column, justify="right")
        for row in rows(found, asked.most):
            table.add_row(*row)
        Console(width=120).print(table)


def run(overrides: list[str]) -> tuple[float, dict[str, pd.DataFrame]]:
    """Seconds of CPU of a cell whose model is loaded, and its tables."""
    cell = compose("store.enabled=false", "threads=1", *overrides)
    cell.session.model.encode(cell.prepared.report)
    before = time.process_time()
    found = cell.run()
    return time.process_time() - before, found


def rows(found: dict[str, pd.DataFrame], most: int) -> list[list[str]]:
    """By kind of directions how many the targets took."""
    contrasts: pd.DataFrame = found["contrasts"]
    lines = []
    for arm, kind in KINDS.items():
        of_kind = contrasts.loc[contrasts["arm"] == arm]
        n_draws = of_kind["n_draws"]
        lines.append(
            [
                kind,
                str(len(of_kind)),
                f"{n_draws.median():g}",
                f"{n_draws.mean():.0f}",
                str(int((n_draws == most).sum())),
                str(int((of_kind["p"] <= 0.05).sum())),
                f"{of_kind['p'].min():.3f}",
            ]
        )
    return lines


if __name__ == "__main__":
    main()
