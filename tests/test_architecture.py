"""The walls of the package: imports point left, and each library stays in its room."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from mech_arith.common.errors import unknown
from mech_arith.engine.run import CODE
from mech_arith.experiment.identity import SHOWING, shows

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mech_arith"

ROOMS = (
    "common",
    "statistics",
    "problems",
    "models",
    "engine",
    "directions",
    "interventions",
    "evidence",
    "reports",
    "experiment",
)
"""The way of the data, from left to right."""

PLACE = {room: place for place, room in enumerate(("__init__", *ROOMS, "__main__"))}

ENTRYPOINTS = {
    "__main__",
    *(f"experiment.{name}" for name in ("api", "callbacks", "job", "searching", "train")),
    *(f"experiment.{name}" for name in ("composing", "overrides", "refusals", "typed")),
}
ALLOWED_IN = {
    "hydra": ENTRYPOINTS,
    "omegaconf": ENTRYPOINTS,
    "submitit": {"__main__"},
    "wandb": {"reports.wandb"},
    "transformers": {"models"},
    "tokenizers": {"models"},
    "huggingface_hub": {"models"},
    "transformer_lens": {"models"},
    "matplotlib": {"reports.figures"},
    "jinja2": {"reports.page", "models.language"},
    "pandas": {"evidence", "reports", "experiment"},
}
"""Library -> the only rooms, packages or modules that may import it. So interventions return
arrays, and evidence makes tables of them."""

FORBIDDEN_LIBRARIES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__"}
FORBIDDEN_ATTRIBUTES = {"torch.load", "torch.save"}
FORBIDDEN_METHODS = {"to_pickle", "read_pickle"}
FORBIDDEN_OPTIONS = {"allow_pickle", "trust_remote_code"}
STATISTICS = {"statistics", "directions", "interventions", "evidence"}
"""Rooms that compute what is reported: in float64, as no default has it."""
FLOAT32_BY_DEFAULT = {f"torch.{name}" for name in ("tensor", "full", "zeros", "ones", "linspace")}
MOST_LINES, MOST_PARAMETERS = 60, 7
"""Of a function; a screen, and what a reader keeps in mind. `self` and `cls` do not count."""
LONGER = {
    "models/language/pretrained.py:_attention": "Hugging Face's signature of an attention function",
    "problems/design.py:draw_splits": "the settings of the section `problems` of a config",
    "mech_arith_sweeper.py:__init__": "Hydra gives it the fields of conf/hydra/sweeper/cells.yaml",
}
"""Functions that exceed them, and why."""
HEAVY = {"torch", "transformers", "transformer_lens", "sklearn", "pandas", "wandb", "matplotlib"}


@dataclass(frozen=True)
class Module:
    """One source file, by its name without the leading `mech_arith.`."""

    name: str
    path: Path

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)

    def is_in(self, places: set[str]) -> bool:
        """Whether it is one of the places, or within one of them."""
        return any(self.name == place or self.name.startswith(f"{place}.") for place in places)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        found.append(Module(".".join(parts), path))
    return found


MODULES = _modules()
NAMES = {module.name for module in MODULES}
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports, wherever it does so, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name, no relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _own_imports(tree: ast.Module) -> set[tuple[str, int]]:
    """The modules of this package among them, by their names in `NAMES`."""
    found = set()
    for name, line in _imported(tree):
        library, _, rest = name.partition(".")
        if library == "mech_arith":
            while rest and rest not in NAMES:  # the tail may be a function or class
                rest = rest.rpartition(".")[0]
            found.add((rest or "__init__", line))
    return found


def _misplaced(module: Module) -> list[str]:
    """Imports of `module` that do not point left."""
    here = PLACE.get(module.room, -1)
    return [
        f"{module.path.name}:{line}: {name} does not stand left of {module.room}"
        for name, line in sorted(_own_imports(module.tree))
        if PLACE.get(name.split(".")[0], here + 1) > here
    ]


def _outside(module: Module) -> list[str]:
    """Imports of libraries that `module` must not know."""
    wrong = []
    for name, line in _imported(module.tree):
        places = ALLOWED_IN.get(name.split(".")[0])
        if places is not None and not module.is_in(places):
            wrong.append(f"{module.path.name}:{line}: imports {name}, only {sorted(places)} may")
    return wrong


def _dangerous(tree: ast.Module) -> list[str]:
    """Code from strings, pickled data, remote code, and annotations that are not executed."""
    wrong = []
    for name, line in _imported(tree):
        if name.split(".")[0] in FORBIDDEN_LIBRARIES:
            wrong.append(f"line {line}: imports {name}")
        if name == "__future__.annotations":
            wrong.append(f"line {line}: {name} defeats the shape checks")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                wrong.append(f"line {node.lineno}: calls {name}")
            case ast.Attribute(attr=method) if (
                method in FORBIDDEN_METHODS or ast.unparse(node) in FORBIDDEN_ATTRIBUTES
            ):
                wrong.append(f"line {node.lineno}: {ast.unparse(node)} pickles")
            case ast.keyword(arg=option) if option in FORBIDDEN_OPTIONS:
                wrong.append(f"line {node.value.lineno}: sets {option}")
    return wrong


def _untyped(tree: ast.Module) -> list[str]:
    """Tensors that would be float32, unlike the numbers that they are compared with."""
    return [
        f"line {node.lineno}: {ast.unparse(node)} says no dtype"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in FLOAT32_BY_DEFAULT
        and "dtype" not in {keyword.arg for keyword in node.keywords}
    ]


def _too_long(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Functions of more lines or parameters than a reader likes, and how many they have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines, of = node.end_lineno - node.lineno + 1, node.args
            names = [one.arg for one in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if lines > MOST_LINES or count > MOST_PARAMETERS:
                yield node.name, f"{lines} lines, {count} parameters"


def test_functions_fit_a_screen() -> None:
    roots = (PACKAGE, ROOT / "hydra_plugins", ROOT / "scripts")
    found = {
        f"{path.relative_to(root).as_posix()}:{name}": size
        for root in roots
        for path in sorted(root.rglob("*.py"))
        for name, size in _too_long(_parsed(path))
    }
    assert set(found) == set(LONGER), found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a, b, c, d, e, f, *, g): ...", False),
        ("def f(a, b, c, d, e, f, *, g, h): ...", True),
        ("class A:\n    def f(self, a, b, c, d, e, f, *, g, **others): ...", False),
        ("def f():\n" + 59 * "    pass\n", False),
        ("def f():\n" + 60 * "    pass\n", True),
    ],
)
def test_a_long_function_is_seen(source: str, found: bool) -> None:
    assert bool(list(_too_long(ast.parse(source)))) == found


def test_the_rooms_are_there_and_nothing_else() -> None:
    assert {module.room for module in MODULES} == set(PLACE)


def test_no_numbers_come_from_what_only_shows() -> None:
    """What `identity.SHOWING` names is left out of a cell's identity."""
    modules = {module.name: module for module in MODULES}
    seen: set[str] = set()
    left = [f"experiment.{name}" for name in ("cell", "plan", "load_model", "config")]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += [imported for imported, _ in _own_imports(modules[name].tree)]
    files = {name: modules[name].path.relative_to(PACKAGE).as_posix() for name in seen}
    shown = {name for name, file in files.items() if shows(file)}
    assert shown == {"common.progress", "reports.papers"}


def test_what_only_shows_is_there() -> None:
    every = {module.path.relative_to(PACKAGE).as_posix() for module in MODULES}
    for place in SHOWING:
        assert any(shows(file) and file.startswith(place) for file in every), place


@each_module
def test_imports_point_left(module: Module) -> None:
    assert not _misplaced(module)


def test_the_store_sees_a_change_of_every_module_that_answers() -> None:
    """What the engine imports of its own room and the models' counts for a stored baseline."""
    counted = {module.__name__.removeprefix("mech_arith.") for module in CODE}
    modules = {module.name: module for module in MODULES}
    found, left = set(), ["engine.run"]
    while left:
        name = left.pop()
        if name not in found and modules[name].room in {"engine", "models"}:
            found.add(name)
            left += [imported for imported, _ in _own_imports(modules[name].tree)]
    assert {"engine.passes", "engine.reading", "models.attention"} <= found
    assert all(modules[name].is_in(counted) for name in found), (found, counted)


def test_no_circles() -> None:
    graph = {
        module.name: {name for name, _ in _own_imports(module.tree)} - {module.name}
        for module in MODULES
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@each_module
def test_libraries_stay_in_their_rooms(module: Module) -> None:
    assert not _outside(module)


@each_module
def test_no_eval_no_pickle_no_deferred_annotations(module: Module) -> None:
    assert not _dangerous(module.tree)


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if module.is_in(STATISTICS)],
    ids=lambda module: module.name,
)
def test_tensors_of_statistics_say_their_dtype(module: Module) -> None:
    assert not _untyped(module.tree)


def test_a_tensor_without_dtype_is_seen() -> None:
    assert _untyped(ast.parse("x = torch.tensor([drop])"))
    assert not _untyped(ast.parse("x = torch.tensor([drop], dtype=torch.float64)"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from __future__ import annotations", "defeats the shape checks"),
        ("import pickle", "imports pickle"),
        ("def f():\n    from joblib import dump", "imports joblib.dump"),
        ("eval('1')", "calls eval"),
        ("torch.load('x')", "torch.load pickles"),
        ("table.to_pickle('x')", "table.to_pickle pickles"),
        ("np.load('x', allow_pickle=True)", "sets allow_pickle"),
    ],
)
def test_the_guard_sees_what_it_guards_against(source: str, said: str) -> None:
    assert said in " ".join(_dangerous(ast.parse(source)))


def test_the_guard_lets_a_model_switch_to_evaluation() -> None:
    assert not _dangerous(ast.parse("model.eval()"))


@pytest.mark.parametrize(
    ("name", "source", "left", "allowed"),
    [
        ("directions.tracing", "from mech_arith.engine import sites", True, True),
        ("engine.passes", "from mech_arith import directions", False, True),
        ("directions", "def f():\n    import mech_arith.evidence.results", False, True),
        ("directions", "from hydra import compose", True, False),
        ("interventions.run", "import pandas as pd", True, False),
        ("models.language.pretrained", "from transformers import AutoModel", True, True),
        ("models.base", "import omegaconf", True, False),
        ("experiment.train", "import omegaconf", True, True),
    ],
)
def test_the_walls_stand(
    name: str,
    source: str,
    left: bool,
    allowed: bool,
    tmp_path: Path,
) -> None:
    path = tmp_path / "planted.py"
    path.write_text(source)
    module = Module(name, path)
    assert (not _misplaced(module), not _outside(module)) == (left, allowed)


def test_annotations_are_executed() -> None:
    """Else every shape in the package would be a comment; see `addopts` in pyproject.toml."""
    with pytest.raises(TypeCheckError):
        unknown(3, "x", ["y"])  # pyright: ignore[reportArgumentType]


def test_the_entrypoint_imports_nothing_heavy() -> None:
    """`--help` and `--cfg job` answer at once because the heavy libraries come later."""
    code = "import sys, mech_arith.__main__; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(found.stdout.split())
