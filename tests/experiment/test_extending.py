"""The examples of docs/extending, each run from outside the package."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.results import load_run
from mech_arith.reports.page import write_report
from tests.running import SMALL

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "extending"
PLUGINS = ("tiny_regressor", "clip", "explained", "right_by_size")
LONGEST = 72
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


@pytest.fixture(scope="module")
def cell(tmp_path_factory) -> Path:
    """A model, an edit, a column and a figure of one's own, in one run."""
    place = tmp_path_factory.mktemp("cell")
    plugins = f"plugins=[{','.join(f'../{name}.py' for name in PLUGINS)}]"
    choice = ["model=tiny_regressor", "intervention=clip", "intervention.strengths=[0.5,4]"]
    run(place, plugins, *choice, "hydra.run.dir=run")
    return place / "run"


def test_a_model_is_traced(cell):
    correlations = load_run(cell).tables["correlations"]
    assert set(correlations["model"]) == {"tiny_regressor"}
    assert correlations["r"].abs().max() > 0.9


def test_an_edit_is_made_beside_its_controls(cell):
    effects = load_run(cell).tables["effects"]
    assert set(effects["edit"]) == {"clip"}
    assert set(effects["strength_unit"]) == {"sd, at most"}
    target = effects[effects["arm"] == "target"]
    tight, wide = (target.loc[target["strength"] == s, "accuracy_drop"] for s in (0.5, 4.0))
    assert tight.max() > 0.1
    assert (wide == 0).all()  # no coordinate lies so far out
    assert set(effects["arm"]) >= {"target", "control", "span", "other", "shuffled"}


def test_a_figure_is_on_disk_and_on_the_page(cell):
    assert (cell / "figures" / "right_by_size.png").stat().st_size > 1000
    assert write_report(cell.parent).is_file()


def test_the_command_says_where_its_options_are(cell):
    command = load_run(cell).summary["command"]
    assert command.startswith(f"python -m mech_arith --config-dir={EXAMPLES / 'conf'} ")
    assert all(f"../{name}.py" in command for name in PLUGINS)


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


def test_a_direction_method_is_one_file_and_one_yaml(tmp_path):
    options = ["tracing=random_projection", "tracing.options.seed=3", "intervention=none"]
    given = ["plugins=[../tiny_regressor.py,../random_projection.py]", "model=tiny_regressor"]
    run(tmp_path, *given, *options, "hydra.run.dir=run")
    assert load_run(tmp_path / "run").summary["cell"]["tracing"] == "random_projection"


def test_a_column_of_evidence_is_in_the_table(cell):
    evidence = load_run(cell).tables["evidence"]
    assert evidence["explained"].tolist() == pytest.approx((evidence["r"] ** 2).tolist())


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
