"""README and docs/ are the front door: what they say to type works, and what they show is there.

Every block of code on a page is run, in the order of the page, in a directory of the page's own:

- `bash`: each command. One that is marked with its time (`# 3 minutes`) is only composed; the
  others of this package run on fewer problems.
- `error`, behind a command: what the command says, word for word.
- `python` and `yaml` with a title: a file of the reader's, which later commands find. Other Python
  runs, too; a page's blocks share their names.
"""

import importlib.util
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mech_arith import __version__
from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.columns import CELL, TABLES
from mech_arith.experiment.api import compose
from mech_arith.experiment.overrides import as_typed
from mech_arith.reports.page.__main__ import main as report
from tests.lms import tiny_lm
from tests.running import SMALL, exit_code
from tests.thinned import thinned

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(set(DOCS.glob("*.md")) - {DOCS / "extending.md"})]
"""The page of extending shows files, which have tests of their own."""

MADE = ("columns.md", "extending.md", "notebooks/from-model-to-figure.md")
"""Pages that are not there before the documentation is built."""

OUR_OWN = ("python -m mech_arith", "mech-arith")
TIME = re.compile(r"#.*\b(second|minute|hour)s?\b")
ELSEWHERE = re.compile(r"DATE/TIME|hydra/launcher=|model=trained|save_model=DIR|--compare")
"""What needs files or a cluster of the reader's own: such a command is composed, or marked."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    file: str
    """The reader's file that it shows; '' for none."""
    text: str

    @property
    def commands(self) -> list[str]:
        whole = self.text.replace("\\\n", " ")
        return [line for line in whole.splitlines() if line.strip() and line[0] != "#"]


def blocks(page: Path) -> list[Block]:
    fence = r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```'
    found = re.findall(fence, page.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(*parts) for parts in found]


def expected_errors(page: Path) -> dict[str, str]:
    """Command -> the error that the page shows below it."""
    pairs = itertools.pairwise(blocks(page))
    return {
        before.commands[-1]: after.text
        for before, after in pairs
        if before.language == "bash" and after.language == "error"
    }


def inline_commands(page: Path) -> list[str]:
    """Those in the text and in tables, with what the line says of their time as a comment."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [
        f"{command}  # {line.replace(command, '')}"
        for line in text.splitlines()
        for command in re.findall(r"`((?:python|make|mech-arith|pip)\b [^`]*)`", line)
    ]


def arguments_of(command: str) -> list[str]:
    """What the command line gives to the entrypoint."""
    words = shlex.split(command, comments=True)
    return words[1:] if words[0] == "mech-arith" else words[3:]


def is_entrypoint(command: str) -> bool:
    return bool(re.match(r"(python -m mech_arith|mech-arith)(\s|$)", command))


def is_report(command: str) -> bool:
    return command == "python -m mech_arith.reports.page outputs"


def cells_of(arguments: list[str]) -> Iterator[list[str]]:
    """The overrides of as few cells of a sweep as have every choice once; of numbers the ends."""
    axes: list[list[str]] = []
    for argument in arguments:
        override = OverridesParser.create().parse_override(as_typed(argument))
        if override.is_sweep_override():
            key = argument.partition("=")[0]
            choices = [f"{key}={choice}" for choice in override.sweep_string_iterator()]
            axes.append([choices[0], choices[-1]] if override.is_range_sweep() else choices)
        else:
            axes.append([argument])
    n_cells = max(map(len, axes), default=1)
    return ([choices[cell % len(choices)] for choices in axes] for cell in range(n_cells))


def overrides_of(arguments: list[str], page_dir: Path) -> list[str]:
    """Those that a config is composed of, with a model in the place of the reader's own."""
    model = page_dir / "DIR"
    ours = [a for a in arguments if "=" in a and not a.startswith(("hydra", "sweep.", "--"))]
    return [a.replace("model.path=DIR", f"model.path={model}") for a in ours]


def every_command() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        wrong = expected_errors(page)
        for block in blocks(page):
            if block.language == "bash":
                found += [(page.name, c) for c in block.commands if c not in wrong]
    return sorted(set(found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_are_there(page, tmp_path):
    for command in inline_commands(page):
        if is_entrypoint(command) and not re.search(r"-sc|resume|model=trained|plugins=", command):
            for cell in cells_of(overrides_of(arguments_of(command), tmp_path)):
                compose(*cell)
        elif not is_entrypoint(command):
            check_target(command)


def test_the_version_is_the_same_wherever_it_is_named():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, *earlier = re.findall(r"^## (\S+)", changes, re.M)
    assert __version__ == (earlier[0] if newest == "Unreleased" else newest)


def test_readme_is_short():
    assert README.count("\n") <= 150
    assert len(README.split()) <= 1100


@pytest.mark.parametrize(("page", "command"), thinned(every_command(), 24))
def test_each_command_is_ours_to_run_or_marked_with_its_time(page, command, tmp_path):
    if not is_entrypoint(command):
        assert is_report(command) or TIME.search(command), f"{page}: mark {command!r} with its time"
        check_target(command)
        return
    arguments = arguments_of(command)
    if {"--help", "--version", "--cfg", "-sc"} & set(arguments) or "--config-dir" in arguments:
        return  # run as it stands, below
    if any(part in command for part in ("sweep.resume", "model=trained", "smollm2")):
        assert TIME.search(command), f"{page}: mark {command!r} with its time"
        return
    for cell in cells_of(overrides_of(arguments, tmp_path)):
        compose(*cell)


def check_target(command: str) -> None:
    """Targets and scripts that are named are there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    if found := re.match(r"make ([a-z-]+)", command):
        assert re.search(rf"^{found[1]}:", makefile, re.M), command
    for script in re.findall(r"\bscripts/\S+\.py", command):
        assert (ROOT / script).is_file(), command
    for module in re.findall(r"python -m (mech_arith[\w.]*)", command):
        assert importlib.util.find_spec(module) is not None, command


class Reader:
    """Somebody who types what a page says, line by line, in a directory of their own."""

    def __init__(self, page: Path, directory: Path, monkeypatch, capsys) -> None:
        self.page, self.directory = page, directory
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.runs = 0
        self.wrong = expected_errors(page)

    def read(self) -> None:
        self.monkeypatch.chdir(self.directory)
        if "model.path=DIR" in self.page.read_text(encoding="utf-8"):
            tiny_lm("llama", self.directory / "DIR", tokenizer="chat")
        for block, shown in itertools.pairwise([*blocks(self.page), Block("text", "", "")]):
            if block.file:
                path = self.directory / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(compile(block.text, self.page.name, "exec"), self.names)
            elif block.language == "bash":
                for command in block.commands:
                    self.type(command, shown.text)
        for command in inline_commands(self.page):
            if is_entrypoint(command) and "=" in command.partition("#")[0]:
                self.type(command, "")

    def type(self, command: str, shown: str) -> None:
        self.capsys.readouterr()
        if command in self.wrong:
            assert self.run(arguments_of(command)) == 1, command
            assert self.capsys.readouterr().err == self.wrong[command], command
        elif TIME.search(command) or ELSEWHERE.search(command):
            return
        elif is_report(command):
            self.monkeypatch.setattr(sys, "argv", ["report", str(self.directory / "outputs")])
            report()
        elif is_entrypoint(command):
            arguments = arguments_of(command)
            flags = {"--help", "--version", "--cfg"} & set(arguments)
            assert self.run(arguments, *(() if flags else small(arguments))) == 0, command
            if "--cfg" in flags:
                assert self.capsys.readouterr().out.strip() == shown.strip(), command

    def run(self, arguments: list[str], *smaller: str) -> int:
        self.runs += 1
        sweep = "-m" in arguments
        where = f"hydra.{'sweep' if sweep else 'run'}.dir={self.directory}/outputs/{self.runs}"
        own = any(a.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for a in arguments)
        places = (f"store.path={self.directory}/store", *([] if own else [where]))
        argv = ["mech_arith", *arguments, *(places if smaller else ()), *smaller]
        self.monkeypatch.setattr(sys, "argv", argv)
        code = exit_code()
        if smaller and code == 0:
            assert find_runs(self.directory / "outputs"), arguments
        return code


def small(arguments: list[str]) -> list[str]:
    """Overrides by which a command takes seconds; its own choices stand."""
    given = {a.partition("=")[0].lstrip("+") for a in arguments if "intervention.st" in a}
    fewer = [o for o in SMALL if o.partition("=")[0] not in given and o != "wandb=disabled"]
    if "intervention=none" in arguments:
        fewer = [o for o in fewer if "strengths" not in o]
    extra = ["wandb.mode=disabled", "locality.n_problems=4", *fewer]
    if any(a.startswith("+experiment=paper") for a in arguments):
        extra += ["layers.step=3", "tracing.position_map=false", "intervention.sources=1"]
    return extra


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_to_type_works(page, tmp_path, monkeypatch, capsys):
    reader = Reader(page, tmp_path, monkeypatch, capsys)
    reader.read()
    if page.name == "README.md":
        swept = next((tmp_path / "outputs").glob("*/sweep_evidence.parquet")).parent
        found: Any = reader.names["found"]
        assert found(str(swept)).index.names == ["model", "expression", "value"]


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            made = link.removeprefix("docs/") in MADE or link.startswith("api/")
            assert made or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_sweep_of_the_quickstart_is_the_one_that_the_pages_count():
    quickstart = (ROOT / "conf" / "experiment" / "quickstart.yaml").read_text(encoding="utf-8")
    params, together = (
        yaml.safe_load(quickstart)["hydra"]["sweeper"][k] for k in ("params", "together")
    )
    counts = {key: len(options.split(",")) for key, options in params.items()}
    assert {counts[key] for key in together} == {2}
    assert counts["model"] * counts["template"] == 4
    assert set(counts) == {"model", *together}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_column_is_in_the_dictionary(hooks):
    page = hooks.columns_page()
    for table, columns in TABLES.items():
        section = page.partition(f"## {table}.parquet")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `(\S+)` \| (.+?) \|", section, re.M)
        assert [name for name, _ in rows] == [column.name for column in columns]
    assert page.count("\n| `") == len(CELL) + sum(map(len, TABLES.values()))


def test_every_module_of_the_api_is_there(hooks):
    modules = re.findall(r"^::: (\S+)$", "\n".join(hooks.api_pages().values()), re.M)
    assert "mech_arith.experiment.api" in modules
    assert [m for m in modules if importlib.util.find_spec(m) is None] == []
