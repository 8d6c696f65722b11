"""Two nodes at work at one sweep and one store on a file system whose locks always say yes."""

import fcntl
import hashlib
import multiprocessing
import os
import random
import socket
import sys
import time

import pandas as pd
import pytest
from safetensors import safe_open

from mech_arith.common.atomic import ABANDONED_S
from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.digests import json_digest, tensor_digest
from mech_arith.common.runs.sweeps import PLAN, cell_states
from mech_arith.evidence.results import load_run
from mech_arith.experiment import job
from tests.running import SMALL, exit_code
from tests.waiting import wait

KILLS = 4
HEAVY = [
    "mech_arith.experiment.job",
    "mech_arith.models.arithmetic.loading",
    "transformer_lens.model_bridge",
    __name__,
]
"""Imported once, and not anew by every process."""

CELLS = (
    *SMALL,
    "layers=[3]",
    "problems.n=60,61",
    "tracing.position_map=false",
    "intervention.controls.other=false",
    "intervention.controls.shuffled=false",
    "threads=1",
)


def _node(name, directory, *arguments):
    """Start the program on a node of this name; at its first cell it waits for the other node."""
    fcntl.flock = lambda *_: None
    socket.gethostname = lambda: name
    job._draw = lambda *_: None
    assert Checkpoint.__init__.__kwdefaults__
    Checkpoint.__init__.__kwdefaults__["every_s"] = 0.0
    begin = job.begin

    def begun(cell, *rest):
        record = begin(cell, *rest)
        (directory / f"{name}.begun").touch()
        wait(lambda: len(list(directory.glob("*.begun"))) == 2)
        return record

    job.begin = begun
    sys.argv = ["mech_arith", *arguments]
    sys.exit(exit_code())


@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)

    def started(name, directory, *arguments):
        process = context.Process(target=_node, args=(name, directory, *arguments))
        process.start()
        return process

    return started


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The sweep's tables, and how many seconds it takes."""
    path = tmp_path_factory.mktemp("undisturbed")
    for other in ("a", "b"):
        (path / f"{other}.begun").touch()
    begun = time.monotonic()
    alone = start("a", path, "-m", f"hydra.sweep.dir={path}/sweep", f"store.path={path}/s", *CELLS)
    alone.join()
    assert alone.exitcode == 0
    return [load_run(path / "sweep" / str(n)).tables for n in range(2)], time.monotonic() - begun


@pytest.mark.slow
def test_two_nodes_whose_locks_lie_end_with_the_numbers_of_one(start, undisturbed, tmp_path):
    expected, takes = undisturbed
    sweep, store = tmp_path / "sweep", tmp_path / "store"
    places = (f"hydra.sweep.dir={sweep}", f"store.path={store}")
    nodes = {"a": start("a", tmp_path, "-m", *places, *CELLS)}
    wait((sweep / PLAN).is_file)
    again = ("-m", f"sweep.resume={sweep}")
    nodes["b"] = start("b", tmp_path, *again)
    wait(lambda: len(list(tmp_path.glob("*.begun"))) == 2)  # both are at work at the same cell

    moments = random.Random(0)
    for kill in range(KILLS):
        name = "ab"[kill % 2]
        nodes[name].join(moments.uniform(0, takes / 2))
        nodes[name].kill()
        nodes[name].join()
        nodes[name] = start(name, tmp_path, *again)
    for node in nodes.values():
        node.join()
    last = start("a", tmp_path, *again)
    last.join()
    assert last.exitcode == 0

    assert {state.status for state in cell_states(sweep)} <= {"done", "resumed"}
    for number, tables in enumerate(expected):
        found = load_run(sweep / str(number)).tables
        assert found.keys() == tables.keys()
        for name in tables:
            pd.testing.assert_frame_equal(found[name], tables[name], check_exact=True)
    assert not list(tmp_path.rglob("error.txt"))
    assert not list(tmp_path.rglob("parts"))
    assert _torn(store) == []

    # What a kill in the middle of a write has left is swept when nobody can be at work at it.
    long_ago = time.time() - ABANDONED_S - 60
    for path in tmp_path.rglob(".*.tmp"):
        os.utime(path, (long_ago, long_ago))
    last = start("b", tmp_path, *again)
    last.join()
    assert not list(sweep.glob("[0-9]/.*.tmp"))


def _torn(store):
    """Entries that are not what their names and digests say."""
    wrong, entries = [], list(store.rglob("*.safetensors"))
    assert entries
    for path in entries:
        with safe_open(path, framework="pt") as file:
            digests = {name: tensor_digest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        named = path.stem == hashlib.sha256(metadata["identity"].encode()).hexdigest()
        if not named or metadata["digest"] != json_digest(digests):
            wrong.append(path)
    return wrong
