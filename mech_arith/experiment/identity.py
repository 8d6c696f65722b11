"""Who a cell is: the digest of everything that determines its numbers.

Two cells with one identity have the same numbers (to the last bit on one machine, with as many
threads and rows at a time). What a run only does with its numbers, or how fast it gets them, is no
part of it: W&B, the store, batch size, threads, figures. Neither are comments and docstrings.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mech_arith
from mech_arith.common.digests import json_digest
from mech_arith.common.file_digests import file_digest, recalled, verify_file
from mech_arith.common.plugins import plugin_digests, using_plugins
from mech_arith.directions.base import METHODS, find_method
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.load_model import model_commit, model_files

APART = {
    *("wandb", "figures", "claim", "store", "batch_size", "threads", "plugins", "objective"),
}
"""Top-level keys of the config that leave the numbers as they are; of plugins their contents count,
and not where they are."""

WHEREABOUTS = {"model.path", "model.hub", "model.revision", "model.verify"}
"""Where a model is found, and whether its files are read anew. What it is, their digest says."""

SHOWING = (
    "__main__",
    "common/interrupts",
    "common/progress",
    "common/runs",
    "common/streams",
    "evidence/results",
    "experiment/api",
    "experiment/callbacks",
    "experiment/guide",
    "experiment/job",
    "experiment/overrides",
    "experiment/pricing",
    "experiment/refusals",
    "experiment/resume",
    "experiment/searching",
    "experiment/train",
    "reports",
)
"""Rooms and modules that only keep or show what others compute."""

LIBRARIES = ("torch", "transformers", "tokenizers", "transformer-lens", "numpy", "scipy")


@dataclass(frozen=True)
class Identity:
    """A cell's digest, and what it is made of."""

    digest: str
    determines: dict[str, Any]
    """`config` (dotted keys), `weights`, `code`, `plugins`, `versions`, and `files` of a direction
    method that reads some, and `commit` of a model of the hub: plain JSON data."""


def identify(config: RunConfig) -> Identity:
    """The identity of the cell that a checked config describes. No model is loaded.

    Raises:
        UserError: there is no such model; or its files are to be verified, and are not what is
            known of them.
    """
    with using_plugins(config.plugins):
        files = model_files(config)
        if config.model.verify:
            for path in files:
                verify_file(path)
        commit = model_commit(config)
        of_method = _files_of_method(config)
    read = {f"tracing.options.{option}" for option in of_method}
    determines = {
        "config": {name: value for name, value in _flat(asdict(config)) if name not in read},
        "weights": files_digest(files),
        "code": code_digest(),
        "plugins": plugin_digests(config.plugins),
        "versions": {"python": _python(), **{name: version(name) for name in LIBRARIES}},
    }
    if commit is not None:
        determines["commit"] = commit
    if of_method:
        determines["files"] = of_method
    return Identity(json_digest(determines), determines)


def _files_of_method(config: RunConfig) -> dict[str, str]:
    """Option -> digest of the file that it names, of a direction method that reads files.

    Raises:
        UserError: the method refuses a file.
    """
    asked = config.tracing
    if not getattr(METHODS.find(asked.method), "file_options", ()):
        return {}
    method = find_method(asked.method, asked.n_components, asked.options)
    return {option: file_digest(path) for option, path in method.files.items()}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What made a cell another one, in words: 'problems.n 1000 -> 2000, code'."""
    said = []
    for part in ("config", "versions"):
        old, new = before.get(part, {}), now.get(part, {})
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        said += [f"{key} {old.get(key)} -> {new.get(key)}" for key in keys]
    parts = ("commit", "weights", "code", "plugins", "files")
    said += [part for part in parts if (before.get(part) or "") != (now.get(part) or "")]
    return ", ".join(said) or "nothing"


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain entries."""
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if name in APART or name in WHEREABOUTS:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value.name if isinstance(value, Enum) else value


def _python() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def files_digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over names and contents of files, whatever directory they are in.

    A file that is as large and as old as before in this process is not read again.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 over the source of every module that has a part in the numbers.

    Read once, at the first call, so that a file edited while a long sweep runs does not pass for
    what the sweep runs. Parsing takes a second or two: the store keeps what it came to.
    """
    root = Path(mech_arith.__file__).parent
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    sources = {name: (root / name).read_bytes() for name in names if not shows(name)}
    read = {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}
    return recalled(
        "code",
        json_digest([_python(), read]),
        lambda: json_digest(
            {
                name: hashlib.sha256(_bare(source).encode()).hexdigest()
                for name, source in sources.items()
            }
        ),
    )


def shows(name: str) -> bool:
    """Whether a file of the package, as in `reports/table.py`, only keeps or shows numbers."""
    return any(name == f"{place}.py" or name.startswith(f"{place}/") for place in SHOWING)


def _bare(source: bytes) -> str:
    """A module's code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [entry for entry in node.body if not _is_text(entry)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False
