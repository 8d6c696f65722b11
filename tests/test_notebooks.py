"""The notebooks of docs/ run, and say and show what is stored in them."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

NUMBER = r"-?\d+\.\d+"

FOLLOWS = 0.06
"""By how much a number may differ: another processor rounds otherwise, and a problem may tip."""


def module_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook: Any) -> list[dict[str, Any]]:
    return [
        output
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if output.get("name") != "stderr"
    ]


def text_of(output: dict[str, Any]) -> str:
    return "".join(output["data"]["text/plain"])


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_with_a_figure_and_nothing_of_a_machine(path: Path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    stored = outputs(notebook)
    assert {output["output_type"] for output in stored} <= {"execute_result", "display_data"}
    assert sum("image/png" in output["data"] for output in stored) == 1
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not re.search(r"stderr|/home/|/tmp/|file:|(?<![\w.:/+])/\w+/", text)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_is_stored(path: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MECH_ARITH_STORE", str(tmp_path / "store"))
    stored = outputs(json.loads(path.read_text(encoding="utf-8")))
    found = outputs(module_of(ROOT / "scripts" / "notebooks.py").run(path, tmp_path))
    assert [sorted(one["data"]) for one in found] == [sorted(one["data"]) for one in stored]
    for one, other in zip(found, stored, strict=True):
        new, old = text_of(one), text_of(other)
        words = [re.sub(r"\s+", " ", re.sub(NUMBER, "N", text)) for text in (new, old)]
        assert words[0] == words[1]
        numbers = [[float(n) for n in re.findall(NUMBER, text)] for text in (new, old)]
        assert numbers[0] == pytest.approx(numbers[1], abs=FOLLOWS)


def test_the_documentation_shows_the_stored_outputs():
    made = module_of(ROOT / "docs" / "hooks.py").notebook_pages()
    page = made["notebooks/from-model-to-figure.md"]
    assert page.startswith(
        "# From a model to a figure\n\n[Download the notebook](from-model-to-fig"
    )
    assert "![Output of the cell above](from-model-to-figure-1.png)" in page
    assert made["notebooks/from-model-to-figure-1.png"].startswith(b"\x89PNG")
    assert "slope_random" in page.partition("```text\n")[2]
