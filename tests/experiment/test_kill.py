"""A cell that is killed at any moment goes on from what it had, to the same numbers."""

import multiprocessing
import random
import sys
import time

import pandas as pd
import pytest

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.runs.records import PARTS, read_record
from mech_arith.evidence.results import load_run
from mech_arith.experiment import job
from tests.running import exit_code
from tests.waiting import wait

KILLS = 20
HEAVY = [
    "mech_arith.experiment.job",
    "mech_arith.models.arithmetic.loading",
    "transformer_lens.model_bridge",
    __name__,
]
"""Imported once, and not anew by every process that is about to be killed."""

CELL = (
    "problems.n=80",
    "tracing.n_components=3",
    "intervention.components=all",
    "intervention.strengths=[-1,0,2]",
    "intervention.controls.random=2",
    "intervention.controls.span=1",
    "inference.resamples=100",
    "inference.permutations=100",
    "locality.enabled=true",
    "locality.n_problems=4",
    "locality.value_points=5",
    "locality.coordinate_points=6",
    "batch_size=64",
    "wandb=disabled",
    "threads=1",
)


SCREENED = (
    "problems.n=60",
    "screen=attribution",
    "screen.keep=3",
    "screen.sample=30",
    "tracing.positions=each",
    "tracing.n_components=3",
    "layers=[1,2,3]",
    "intervention=none",
    "inference.resamples=100",
    "inference.permutations=100",
    "batch_size=8",
    "store.enabled=false",
    "wandb=disabled",
    "threads=1",
)


def _program(*overrides: str) -> None:
    # Drawing would take most of the time, and what is drawn is not compared.
    job._draw = lambda *_: None
    # Every unit of so small a cell is kept, as a longer one's are every second.
    assert Checkpoint.__init__.__kwdefaults__
    Checkpoint.__init__.__kwdefaults__["every_s"] = 0.0
    sys.argv = ["mech_arith", *overrides]
    sys.exit(exit_code())


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    first = context.Process(target=int)  # until here nothing is imported
    first.start()
    first.join()
    return context


def started(processes, *overrides):
    process = processes.Process(target=_program, args=overrides)
    process.start()
    return process


def tables(directory):
    return load_run(directory).tables


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


def units_on_disk(directory):
    """How much an unfinished cell has kept: bytes, as a unit is never taken back."""
    return sum(path.stat().st_size for path in (directory / PARTS).rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["shared", "none"])
def test_a_cell_killed_again_and_again_ends_with_the_same_numbers(processes, tmp_path, store):
    options = [f"store.path={tmp_path}/store"] if store == "shared" else ["store.enabled=false"]
    begun = time.monotonic()
    undisturbed = started(processes, *CELL, *options, f"hydra.run.dir={tmp_path}/undisturbed")
    undisturbed.join()
    takes = time.monotonic() - begun
    assert undisturbed.exitcode == 0
    expected = tables(tmp_path / "undisturbed")
    if store == "shared":
        # The killed ones shall not find there what this one has left.
        options = [f"store.path={tmp_path}/store of the killed"]

    moments = random.Random(0)
    kills = attempt = 0
    while kills < KILLS // 2:
        directory = tmp_path / f"killed {attempt}"
        kept = 0
        while not (directory / "summary.json").is_file():
            process = started(processes, *CELL, *options, f"hydra.run.dir='{directory}'")
            process.join(moments.uniform(0, takes))
            if process.is_alive() and kills < KILLS // 2:
                process.kill()
                kills += 1
            process.join()
            assert process.exitcode in (0, -9)
            # One killed after its summary was at taking the parts away, which nobody needs then.
            is_whole = (directory / "summary.json").is_file()
            if (directory / PARTS).is_dir() and not is_whole:
                assert units_on_disk(directory) >= kept
                kept = units_on_disk(directory)
        process = started(processes, *CELL, *options, f"hydra.run.dir='{directory}'")
        process.join()
        assert_same(tables(directory), expected)
        assert not (directory / PARTS).exists()
        attempt += 1
    assert any(
        len(record.attempts) > 1
        for record in map(read_record, tmp_path.glob("killed *"))
        if record is not None
    )


@pytest.mark.slow
def test_a_screen_that_is_killed_goes_on_to_the_same_numbers(processes, tmp_path):
    """By a real signal, once an exact effect is on disk."""
    whole = started(processes, *SCREENED, f"hydra.run.dir={tmp_path}/whole")
    whole.join()
    assert whole.exitcode == 0
    asked, parts = (*SCREENED, f"hydra.run.dir={tmp_path}/killed"), tmp_path / "killed" / PARTS
    killed = started(processes, *asked)
    wait(lambda: any(parts.glob("edits/*/*.safetensors")), unless=lambda: not killed.is_alive())
    killed.kill()
    killed.join()
    assert killed.exitcode == -9
    assert units_on_disk(tmp_path / "killed")
    again = started(processes, *asked)
    again.join()
    assert again.exitcode == 0
    assert load_run(tmp_path / "killed").summary["units_found"] > 0
    assert_same(tables(tmp_path / "killed"), tables(tmp_path / "whole"))
