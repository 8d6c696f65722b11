"""The saved workspace names what runs really log."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from wandb_workspaces.workspaces import internal

from tests.running import SMALL, main
from tests.waiting import PATIENCE_S
from tests.wandb_runs import KEY, of_type, records, summary_of
from tests.wandb_server import Fault, wandb_server

pytestmark = pytest.mark.slow

ASKED = (
    "hypothesis=left_to_right",
    "layers.start=1",
    "layers.stop=3",
    "intervention=interchange",
    "intervention.sources=1",
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "wandb_workspace.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wandb_workspace", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*arguments: str, url: str = "http://127.0.0.1:9") -> tuple[int, str, str]:
    """Exit code, output, and what was said of errors; by default nobody listens."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--entity", "me", "--project", "arithmetic", *arguments],
        env=os.environ | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_real_cell_logs_what_the_workspace_shows(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What the workspace shows of other edits is shown of this one too.
    overrides = [one for one in SMALL if one != "wandb=disabled"]
    assert main(monkeypatch, tmp_path, *overrides, *ASKED) == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    found = records(folder)
    history = [record["item"] for record in of_type(found, "history")]
    logged = {name.partition(".")[0] for row in history for name in row}
    summary = {name.partition(".")[0] for name in summary_of(found)}
    cell: dict[str, Any] = {}
    for record in of_type(found, "config"):
        cell |= record["update"].get("cell", {})

    workspace = script.workspace("me", "arithmetic", name="cells")
    curves = 0
    for section in workspace.sections:
        for panel in section.panels:
            kind = type(panel).__name__
            if kind == "LinePlot":
                shown = [name for name in logged if re.search(panel.metric_regex, name)]
                assert shown, panel.metric_regex
                # Every point that the panel shows has a place on its x axis.
                rows = [row for row in history if set(shown) & set(row)]
                assert all(panel.x in row for row in rows)
                curves += 1
            elif kind == "ScatterPlot":
                assert {panel.x.name, panel.y.name} <= summary
            else:
                assert panel.table_name in summary
    assert curves == 10
    runs = workspace.runset_settings
    assert {group.name.removeprefix("cell.") for group in runs.groupby} <= set(cell)
    for column in runs.pinned_columns:
        kind, _, name = column.partition(":")
        known = {"config": {f"cell.value.{field}" for field in cell}, "summary": summary}
        assert name in known.get(kind, {"displayName"}), column


def test_it_is_built_and_valid_without_a_server() -> None:
    code, output, errors = call("--json")
    assert (code, errors) == (0, "")
    spec = internal.WorkspaceViewspec.model_validate_json(output)
    names = [section.name for section in spec.section.panel_bank_config.sections]
    assert names == [
        "Accuracy drop",
        "Best |R|",
        "Answers that follow a value",
        "Which algorithm the interventions support",
        "Control against target",
        "Tables of all runs",
    ]
    assert [key.name for key in spec.section.run_sets[0].grouping] == [
        "cell.value.model",
        "cell.value.template",
    ]
    code, output, _ = call("--dry-run")
    assert code == 0
    assert len(output.splitlines()) == 6


def test_it_is_saved_on_a_server() -> None:
    with wandb_server() as server:
        code, output, errors = call("--name", "compared", url=server.url)
    assert code == 0, errors
    (view,) = server.views
    assert (view["entityName"], view["projectName"]) == ("me", "arithmetic")
    assert (view["displayName"], view["type"]) == ("compared", "project-view")
    assert json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert output.splitlines()[-1].startswith(f"{server.url}/me/arithmetic?nw=")


def test_no_server_is_one_line() -> None:
    code, _, errors = call()
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("expected a W&B server, got no answer from http://127.0.0.1:9 (")


def test_bad_input_is_one_line() -> None:
    for option in ("--entity", "--project"):
        code, _, errors = call("--dry-run", option, "")
        assert code == 2
        assert errors.endswith(f"argument {option}: expected a name, got an empty one\n")
    code, _, errors = call(url="localhost:8080")
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("expected a W&B server, got no URL in WANDB_BASE_URL: 'localhost:8080'")


def test_a_refusal_is_one_line() -> None:
    with wandb_server(Fault(status=403)) as server:
        code, _, errors = call(url=server.url)
    assert code == 1
    assert "expected to save a workspace of me/arithmetic, got " in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_without_the_library_it_says_how_to_get_it(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"pip install 'mech_arith\[workspace\]'"):
        script.workspace("me", "arithmetic", name="cells")
