"""A sweep of W&B: wandb's own agent starts a cell by the file that docs/wandb.md shows."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.objective import read_objective
from mech_arith.evidence.results import load_run
from mech_arith.experiment.api import compose
from tests.running import SMALL
from tests.test_docs import DOCS, blocks
from tests.waiting import PATIENCE_S
from tests.wandb_runs import of_type, records, summary_of


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    (shown,) = (block for block in blocks(DOCS / "wandb.md") if block.file == "search.yaml")
    return yaml.safe_load(shown.text)


def test_every_choice_of_the_file_is_an_override(sweep):
    fixed = [word for word in sweep["command"] if "=" in word]
    for key, asked in sweep["parameters"].items():
        for value in asked["values"]:
            compose(*fixed, f"{key}={value}", "problems.n=60")


@pytest.mark.slow
def test_the_agents_cell_logs_the_metric_of_the_sweep(sweep, tmp_path: Path, monkeypatch):
    from wandb.wandb_agent import Agent

    monkeypatch.chdir(tmp_path)
    here = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "swept",
        "WANDB_DIR": str(tmp_path),
        "WANDB_RUN_ID": "",  # the agent sets these two, and does not take them back
        "WANDB_SWEEP_PARAM_PATH": "",
        "MECH_ARITH_STORE": str(tmp_path / "store"),
    }
    for name, text in here.items():
        monkeypatch.setenv(name, text)
    choices = {key: asked["values"][-1] for key, asked in sweep["parameters"].items()}
    smaller = dict(one.split("=") for one in SMALL if not one.startswith("wandb"))
    agent = Agent(api=None, queue=None, sweep_id="swept")
    agent._sweep_command = list(sweep["command"])
    given = {key: {"value": value} for key, value in (smaller | choices).items()}
    asked = {"type": "run", "run_id": "theirs", "program": sweep["program"], "args": given}
    answer = agent._process_command(asked)
    assert "exception" not in answer, answer
    assert agent._run_processes["theirs"]._popen.wait(PATIENCE_S) == 0

    (cell,) = find_runs(tmp_path / "outputs")
    (folder,) = cell.glob("wandb/offline-run-*")
    found = records(folder)
    assert of_type(found, "run")[0]["sweep_id"] == "swept"
    number = read_objective(load_run(cell).tables["evidence"], "excess_drop/b-c")
    assert number is not None
    assert summary_of(found)[sweep["metric"]["name"]] == pytest.approx(number)
    for row in of_type(found, "history"):  # a curve of the name would be searched over its points
        assert sweep["metric"]["name"] not in json.dumps(row)
