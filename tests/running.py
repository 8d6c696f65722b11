"""The entrypoint, run in the tests' own process."""

import logging
import sys
from pathlib import Path

import pytest

from mech_arith import __main__ as entry

SMALL = (
    "problems.n=60",
    "tracing.n_components=4",
    "intervention.n_problems=10",
    "intervention.strengths=[0,1,2]",
    "intervention.controls.random=2",
    "intervention.controls.span=1",
    "inference.resamples=100",
    "inference.permutations=100",
    "wandb=disabled",
)
"""Overrides that make a cell take a second."""


def main(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *overrides: str, sweep: bool = False
) -> int:
    """Run the entrypoint as the shell would, into `tmp_path / "run"`; the exit code."""
    where = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    places = (f"{where}={tmp_path}/run", f"store.path={tmp_path}/store")
    arguments = ["mech_arith", *(["-m"] if sweep else []), *places, *overrides]
    monkeypatch.setattr(sys, "argv", arguments)
    before = logging.root.handlers[:]
    try:
        return exit_code()
    finally:
        # Hydra sets the root logger up anew: one test's log must not end in another's file.
        for handler in logging.root.handlers:
            if handler not in before:
                handler.close()
        logging.root.handlers[:] = before


def exit_code() -> int:
    """Run the entrypoint with the arguments that `sys.argv` holds."""
    try:
        entry.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
