"""Python files of the user's own: imported by path, they register what is then found by name."""

import hashlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType

from mech_arith.common import registry
from mech_arith.common.errors import UserError

WHAT = "a tracing method, an edit, a kind of model, a column or a figure"

_digests: dict[Path, str] = {}
"""SHA-256 of files, as they were when this process read them first."""

_refused: dict[str, str] = {}
"""Digest -> why the file of that content could not be imported."""


def load_plugins(given: Sequence[str], folders: Iterable[Path] = ()) -> list[Path]:
    """Import files, each once in a process, however many cells name it.

    A file that is edited while a long sweep runs does not pass for what the sweep runs: it is read
    once. What has been registered stays for the later cells of the process.

    Args:
        given: paths, relative to the current directory or to one of the folders.
        folders: the user's own folders of options.

    Returns:
        The absolute paths.

    Raises:
        UserError: a file is missing or no Python file, cannot be imported, or registers nothing.
    """
    paths = [_find(text, list(folders)) for text in given]
    for path in paths:
        _load(path)
    return paths


def plugin_digests(paths: Iterable[str | Path]) -> list[str]:
    """SHA-256 of the contents of files that have been loaded, in whatever order they are named."""
    return sorted({_digests[Path(path)] for path in paths})


def _find(text: str, folders: list[Path]) -> Path:
    path = Path(text).expanduser()
    tried = [(folder / path).resolve() for folder in (Path.cwd(), *folders)]
    found = next((one for one in tried if one.exists()), None)
    if found is None:
        places = ", ".join(dict.fromkeys(str(one.parent) for one in tried))
        raise UserError(
            f"expected a Python file at {text} (see plugins), found none in {places}; give its path"
        )
    if found.suffix != ".py" or not found.is_file():
        raise UserError(
            f"expected a Python file, NAME.py, in plugins, got {text}; give the path of one"
        )
    return found


def _load(path: Path) -> None:
    if path in _digests:
        content, digest = None, _digests[path]
    else:
        content = _read(path)
        digest = _digests[path] = hashlib.sha256(content).hexdigest()
    if digest in _refused:
        raise UserError(_refused[digest])
    # By its content: a module's name is part of the keys of what its code computes.
    name = f"plugin_{digest[:16]}"
    if name in sys.modules:
        return
    try:
        assert content is not None
        _import(name, path, content)
    except UserError as error:
        _refused[digest] = str(error)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"expected a file that can be read at {path} (see plugins), got {error.strerror}; "
            "change its permissions"
        ) from None


class _Loader(SourceFileLoader):
    """Runs the content that was read, and leaves no compiled files beside the user's."""

    content: bytes

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.content, self.path, "exec", dont_inherit=True)


def _import(name: str, path: Path, content: bytes) -> None:
    loader = _Loader(name, str(path))
    loader.content = content
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = module_from_spec(spec)
    before = len(registry.registered)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(
            f"expected Python in {error.filename or path}, got a syntax error in line "
            f"{error.lineno}: {error.msg}; mend it"
        ) from None
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            "expected a plugin that can be imported, got an error in "
            f"{_where(error, path)}: {said}; mend it"
        ) from None
    if len(registry.registered) == before:
        raise UserError(
            f"expected {path} to register {WHAT}, got a plugin that registers nothing; decorate "
            "what it adds, or leave it out of plugins"
        )


def _where(error: BaseException, path: Path) -> str:
    """The file, and its last line that an error has come through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)
