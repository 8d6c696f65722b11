"""The examples of docs/extending, each run from outside the package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import safe_open

from mech_arith import compose
from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.results import load_run
from mech_arith.reports.figures.__main__ import main as draw_again
from mech_arith.reports.page import write_report
from tests.running import SMALL

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "extending"
LONGEST = 59
"""Lines of an example: it is read as documentation."""


def run(place: Path, *arguments: str) -> None:
    """A shell line in an empty directory, with the examples' folder of options."""
    shell(place, f"--config-dir={EXAMPLES / 'conf'}", *arguments[:1], *SMALL, *arguments[1:])


def shell(place: Path, *line: str) -> None:
    """A shell line in a directory."""
    done = subprocess.run(
        [sys.executable, "-m", "mech_arith", *line, f"store.path={place}/store"],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


ALL = ("tiny_regressor", "clip", "right_by_size", "explained")
PLUGINS = f"plugins=[{','.join(f'../{name}.py' for name in ALL)}]"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two runs with one store: all that a file may add, and then another direction method."""
    place = tmp_path_factory.mktemp("cells")
    choice = ["intervention=clip", "intervention.strengths=[0.5,4]", "wandb=offline"]
    run(place, PLUGINS, "model=tiny_regressor", *choice, "hydra.run.dir=run")
    plugins = "plugins=[../tiny_regressor.py,../random_projection.py]"
    choice = ["tracing=random_projection", "tracing.options.seed=3", "intervention=none"]
    run(place, plugins, "model=tiny_regressor", *choice, "hydra.run.dir=projected")
    return place


@pytest.fixture
def cell(place) -> Path:
    """A model, an edit, a figure and a column of one's own, in one run."""
    return place / "run"


@pytest.mark.slow
def test_a_model_is_traced(cell):
    correlations = load_run(cell).tables["correlations"]
    assert set(correlations["model"]) == {"tiny_regressor"}
    assert correlations["r"].abs().max() > 0.9


@pytest.mark.slow
def test_an_edit_is_made_beside_its_controls(cell):
    effects = load_run(cell).tables["effects"]
    assert set(effects["edit"]) == {"clip"}
    assert set(effects["strength_unit"]) == {"sd, at most"}
    target = effects[effects["arm"] == "target"]
    tight, wide = (target.loc[target["strength"] == s, "accuracy_drop"] for s in (0.5, 4.0))
    assert tight.max() > 0.1
    assert (wide == 0).all()  # no coordinate lies so far out
    assert set(effects["arm"]) >= {"target", "control", "span", "other", "shuffled"}


@pytest.mark.slow
def test_a_figure_and_a_column_are_on_disk_and_on_the_page(cell, monkeypatch):
    assert (cell / "figures" / "right_by_size.png").stat().st_size > 1000
    evidence = load_run(cell).tables["evidence"]
    assert evidence["explained"].tolist() == pytest.approx((evidence["r"] ** 2).tolist())
    packed: list[Any] = []
    monkeypatch.setattr(
        "mech_arith.reports.page.page._packed_json",
        lambda data: packed.append(json.loads(json.dumps(data))) or "",
    )
    write_report(cell)
    data = next(each for each in packed if isinstance(each, dict))
    assert "R squared" in [column["title"] for column in data["columns"]]
    text = json.dumps(packed)
    assert "figures/right_by_size.png" in text
    assert '"explained"' in text


@pytest.mark.slow
def test_a_figure_of_a_finished_run_is_drawn_again(cell, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["figures", str(cell), "--format", "svg"])
    draw_again()
    assert (cell / "figures" / "right_by_size.svg").is_file()


@pytest.mark.slow
def test_a_figure_and_a_column_are_in_wandb(cell):
    files = sorted(path.as_posix() for path in (cell / "wandb").rglob("media/**/*.*"))
    assert any("right_by_size" in path for path in files)
    (table,) = (path for path in files if "/evidence_" in path and path.endswith(".json"))
    assert "explained" in json.loads(Path(table).read_text())["columns"]


@pytest.mark.slow
def test_a_column_is_in_the_dictionary():
    line = [sys.executable, "-m", "mech_arith.evidence.columns", str(EXAMPLES / "explained.py")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "| `explained` | number |  | Share of the value's variance that" in done.stdout


@pytest.mark.slow
def test_a_direction_method_has_entries_of_its_own(place):
    """The store of both runs has the components of each, and the projected run has its own."""
    runs = [load_run(place / name) for name in ("run", "projected")]
    assert [one.summary["cell"]["tracing"] for one in runs] == ["pca", "random_projection"]
    r = [one.tables["correlations"]["r"].abs().tolist() for one in runs]
    assert r[0] != r[1]
    keys = [
        json.loads(safe_open(path, framework="pt").metadata()["identity"])["key"]
        for path in (place / "store" / "components").rglob("*.safetensors")
    ]
    found = {(key["method"], str(key["options"])) for key in keys}
    assert found == {("pca", "{}"), ("random_projection", "{'seed': 3}")}


@pytest.mark.slow
def test_a_hypothesis_competes(tmp_path):
    given = ["plugins=[../round_first.py]", "hypothesis=round_first", "layers=2", "wandb=disabled"]
    run(tmp_path, *given, "intervention=interchange", "tracing.positions=last", "hydra.run.dir=run")
    result = load_run(tmp_path / "run")
    assert {"rounded", "rest"} <= set(result.tables["evidence"]["value"])
    assert "round_first or tree" in result.summary["hypotheses"]
    assert result.summary["cell"]["hypothesis"] == "round_first"


def test_a_hypothesis_computes_the_answer_by_its_steps():
    plugin = f"plugins=[{EXAMPLES / 'round_first.py'}]"
    asked = ("hypothesis.rule=round_first", "hypothesis.name=mine", "problems.n=60")
    problems = compose(plugin, *asked).problems()
    a, b, c = (problems.operands[name] for name in "abc")
    assert (problems.values["rounded"] == a // 10 * 10 - b // 10 * 10 + c // 10 * 10).all()
    assert (problems.values["rounded"] + problems.values["rest"] == problems.answers).all()


@pytest.mark.slow
def test_the_command_says_where_its_options_are(cell):
    command = load_run(cell).summary["command"]
    assert command.startswith(f"python -m mech_arith --config-dir={EXAMPLES / 'conf'} ")
    assert PLUGINS in command


@pytest.mark.slow
def test_a_run_is_shown_where_its_plugins_are_gone(cell):
    """Nothing of them is imported by what reads results."""
    code = (
        "import sys; from pathlib import Path; from mech_arith.reports.page import write_report;"
        "write_report(Path(sys.argv[1])); print([m for m in sys.modules if m[:7] == 'plugin_'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(cell.parent)], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_every_worker_of_a_sweep_imports_them(tmp_path):
    given = ["plugins=[../tiny_regressor.py,../clip.py]", "model=tiny_regressor"]
    sweep = ["-m", "hydra/launcher=local", "hydra.sweep.dir=sweep", "intervention=clip,shift"]
    run(tmp_path, *sweep, *given)
    assert find_runs(tmp_path / "sweep") == [tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"]
    (tmp_path / "sweep" / "1" / "summary.json").unlink()
    shell(tmp_path, "-m", "sweep.resume=sweep", "hydra/launcher=basic")
    assert len(find_runs(tmp_path / "sweep")) == 2
    tables = [pd.read_parquet(tmp_path / "sweep" / n / "effects.parquet") for n in "01"]
    assert [set(table["edit"]) for table in tables] == [{"clip"}, {"shift"}]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_shown_whole(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert text.strip() in (EXAMPLES.parent / "extending.md").read_text(encoding="utf-8")
