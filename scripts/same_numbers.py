"""Do the numbers stay the same when code is moved? Ten small cells, saved before and after.

    python scripts/same_numbers.py save before         # in a checkout of the old code
    python scripts/same_numbers.py save after          # in one of the new code
    python scripts/same_numbers.py compare before after

The cells cover both shipped models and SmolLM2, every edit, edits folded into weights, the locality
test, the untrained twin and the decorrelated design. Each runs in a process of its own, with one
thread and without the store, so that two checkouts on one machine do the same arithmetic. Columns
that were renamed are compared under their new names. Six minutes on one core.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.evidence.columns import TABLES, earlier_names, in_todays_words, table_name

TOLERANCE = 1e-12
"""Largest difference, absolute or relative, of two numbers that count as the same."""

SMALL = (
    "problems.n=160",
    "intervention.n_problems=24",
    "intervention.controls={random:3,span:3,valueless:3}",
)
ONE_DIGIT = (
    "model=smollm2_135m",
    "prompt=chat",
    "prompt.shots=1",
    "problems.n=60",
    "problems.operands={min:0,max:9}",
    "template=sum_of_two",
    "tracing=pca_last",
    "tracing.n_components=4",
    "intervention.n_problems=12",
    "intervention.controls={random:2,span:2,valueless:2}",
)
CELLS = {
    "encoder_scale": ("model=arith_encoder", "layers=[1,2]", "intervention.centre=false", *SMALL),
    "decoder_interchange": ("intervention=interchange", "layers=[1,3]", *SMALL),
    "encoder_shift_weights": (
        "model=arith_encoder",
        "intervention=shift",
        "tracing=pca_last",
        "tracing.point=mlp_out",
        "intervention.via=weights",
        "layers=[2]",
        *SMALL,
    ),
    "decoder_ablate_weights": (
        "intervention=ablate",
        "tracing=pca_last",
        "tracing.point=attn_out",
        "intervention.via=weights",
        "layers=[2]",
        *SMALL,
    ),
    "encoder_ablate_locality": (
        "model=arith_encoder",
        "template=sum_then_difference",
        "intervention=ablate",
        "layers=[2]",
        "locality={enabled:true,n_problems:12,coordinate_points:6,value_points:4}",
        *SMALL,
    ),
    "decoder_set": (
        "intervention=set",
        "intervention.components=[0,1]",
        "tracing.positions=b-c",
        "layers=[2]",
        *SMALL,
    ),
    "encoder_decorrelated": (
        "model=arith_encoder",
        "intervention=interchange",
        "problems.design=decorrelated",
        "problems.decorrelate=b-c",
        "tracing.untrained_twins=1",
        "layers=[3]",
        *SMALL,
    ),
    "decoder_each_z": (
        "template=left_subtraction",
        "tracing=pca_each",
        "tracing.point=z",
        "intervention=none",
        "layers=[0,2]",
        *SMALL,
    ),
    "smollm2_scale": ("layers=[14]", *ONE_DIGIT),
    "smollm2_interchange": ("intervention=interchange", "layers=[28]", *ONE_DIGIT),
}
"""Name of a cell -> its overrides."""

GONE = {"agreement_p", "pass_rate"}
"""Columns that nothing read; `baseline_accuracy` says the same as `pass_rate`."""

CHANGING = {
    "identity",
    "seconds",
    "tables",
    "warnings",
    "missing",
    "store",
    "versions",
    "git_commit",
    "git_dirty",
    "weights_seconds",
}
"""Columns and headline numbers that say when or by which code something was made."""


def save(directory: Path) -> None:
    """Run every cell into a directory of its name; one that is there already is kept."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    for name, overrides in CELLS.items():
        if (directory / name / "summary.json").is_file():
            continue
        always = (f"hydra.run.dir={directory / name}", "threads=1", "wandb=disabled")
        command = [sys.executable, "-m", "mech_arith", *overrides, *always, "store.enabled=false"]
        print(name, flush=True)
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def compare(before: Path, after: Path) -> int:
    """Print the largest difference of every table; returns how many tables differ."""
    n_different = 0
    for name in CELLS:
        for table, problem, largest in differences(before / name, after / name):
            bad = problem or largest > TOLERANCE
            n_different += bool(bad)
            print(f"{'DIFFERS' if bad else 'same   '} {name:24} {table:16} {largest:.1e} {problem}")
    print(f"{n_different} tables differ")
    return n_different


def differences(before: Path, after: Path) -> Iterator[tuple[str, str, float]]:
    """For every table of a cell: its name, what cannot be compared, and the largest difference."""
    found = [
        {table_name(path.stem): path for path in run.glob("*.parquet")} for run in (before, after)
    ]
    for name in sorted(found[0].keys() | found[1].keys()):
        paths = [of_run[name] for of_run in found if name in of_run]
        if len(paths) < len(found):
            yield name, "only in one of the two", 0.0
            continue
        yield name, *table_difference(*(pd.read_parquet(path) for path in paths), name)
    summaries = [
        in_todays_words(json.loads((run / "summary.json").read_text())) for run in (before, after)
    ]
    yield "summary.json", *entry_difference(*map(dict, summaries))


def table_difference(before: pd.DataFrame, after: pd.DataFrame, name: str) -> tuple[str, float]:
    """What cannot be compared of two tables, and the largest difference of what can."""
    before = before.rename(columns=renamed(name))
    lost = sorted(set(before) - set(after) - CHANGING - GONE)
    if lost or len(before) != len(after):
        return f"{len(before)} and {len(after)} rows; lost columns {lost}", 0.0
    found = [
        entry_difference(before[column].tolist(), after[column].tolist())
        for column in before
        if column not in CHANGING | GONE
    ]
    problems = [problem for problem, _ in found if problem]
    return "; ".join(problems[:3]), max((largest for _, largest in found), default=0.0)


def renamed(table: str) -> dict[str, str]:
    """Earlier name of a column -> its name today, as this checkout says."""
    return earlier_names(TABLES[table])


def entry_difference(before: Any, after: Any) -> tuple[str, float]:
    """The same of two entries: numbers, texts, lists or mappings."""
    if isinstance(before, np.ndarray):
        before = before.tolist()
    if isinstance(after, np.ndarray):
        after = after.tolist()
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in before if key not in CHANGING | GONE]
        lost = [key for key in keys if key not in after]
        if lost:
            return f"lost entries {lost[:3]}", 0.0
        return _largest(entry_difference(before[key], after[key]) for key in keys)
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        if len(before) != len(after):
            return f"{len(before)} and {len(after)} entries", 0.0
        return _largest(entry_difference(*pair) for pair in zip(before, after, strict=True))
    if isinstance(before, int | float) and isinstance(after, int | float):
        if before == after or (before != before and after != after):
            return "", 0.0
        if isclose(before, after, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return "", abs(before - after) / max(1.0, abs(before))
        return f"{before!r} and {after!r}", abs(before - after)
    missing = [pd.api.types.is_scalar(entry) and pd.isna(entry) for entry in (before, after)]
    same = all(missing) or (not any(missing) and before == after)
    return ("" if same else f"{before!r} and {after!r}"), 0.0


def _largest(found: Iterator[tuple[str, float]]) -> tuple[str, float]:
    every = list(found)
    problem = next((problem for problem, _ in every if problem), "")
    return problem, max((largest for _, largest in every), default=0.0)


def main() -> None:
    """Save or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("save", help="run the cells").add_argument("directory", type=Path)
    comparing = actions.add_parser("compare", help="compare two directories of cells")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.action == "save":
        save(asked.directory)
    else:
        sys.exit(1 if compare(asked.before, asked.after) else 0)


if __name__ == "__main__":
    main()
