"""The table of tested architectures, and the script that makes it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tested", ROOT / "scripts" / "tested_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows_of(name: str) -> list[str]:
    page = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
    table = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
    return [line for line in table.splitlines() if line.startswith("| `")]


def documented() -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows_of("tested")]


def test_the_page_has_every_architecture(script):
    assert [row[0] for row in documented()] == [f"`{name}`" for name in script.ARCHITECTURES]


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "bloom", "mamba"])
def test_the_page_says_what_the_script_finds(script, name):
    (said,) = (row for row in documented() if row[0] == f"`{name}`")
    found = script.row(name)
    # The size of a difference hangs on the machine.
    assert [*found[:2], *found[3:]] == [*said[:2], *said[3:]]
    assert bool(found[2]) == bool(said[2])


def test_the_page_says_how_tokenizers_split_numbers(script):
    """Of those that are here: without any fetched model there is nothing to compare."""
    said = {row.split("`")[1]: row for row in rows_of("tokenizers")}
    assert set(script.fetched()) <= set(said)
    for name, directory in script.fetched().items():
        found = script.table(script.TOKENIZER_HEAD, [script.tokenizer_row(name, directory)])
        assert found.splitlines()[-1] == said[name]
