"""Python files of the user's own: imported by path, they register what is then found by name."""

import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType

from mech_arith.common import registry
from mech_arith.common.errors import UserError

WHAT = "a tracing method, an edit, a kind of model, a column or a figure"

MODULE = "plugin_"
"""Before a file's digest: the name of its module."""

_digests: dict[Path, str] = {}
"""SHA-256 of files, as they were when this process read them first."""

_additions: dict[str, registry.Additions] = {}
"""Digest -> what the file of that content has registered."""

_refused: dict[str, str] = {}
"""Digest -> why the file of that content could not be imported."""


def load_plugins(given: Sequence[str], folders: Iterable[Path] = ()) -> list[Path]:
    """Import files, each once in a process, and use what they register from here on.

    What other files have registered, for other cells of the process, is not there any more. A file
    that is edited while a long sweep runs does not pass for what the sweep runs: it is read once.

    Args:
        given: paths, relative to the current directory or to one of the folders.
        folders: the user's own folders of options.

    Returns:
        The absolute paths.

    Raises:
        UserError: a file is missing or no Python file, cannot be imported, or registers nothing;
            or two of them register the same name.
    """
    paths = [_find(text, list(folders)) for text in given]
    for path in paths:
        _load(path)
    use_plugins(paths)
    return paths


def use_plugins(paths: Iterable[str | Path]) -> None:
    """Use what files have registered that have been loaded, and nothing else."""
    registry.use(_additions[digest] for digest in dict.fromkeys(map(_digest, paths)))


def plugin_digests(paths: Iterable[str | Path]) -> list[str]:
    """SHA-256 of the contents of files that have been loaded, in whatever order they are named."""
    return sorted({_digest(path) for path in paths})


@contextmanager
def using_plugins(paths: Iterable[str | Path]) -> Iterator[None]:
    """Within it there is what these files have registered that have been loaded."""
    with registry.without_additions():
        use_plugins(paths)
        yield


def plugin_file(module: str) -> Path | None:
    """The file that has been imported as a module of that name; None if that is no plugin."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if module.startswith(MODULE) and file is not None else None


def _digest(path: str | Path) -> str:
    return _digests[Path(path)]


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
    if digest in _additions:
        return
    try:
        assert content is not None
        _additions[digest] = _import(f"{MODULE}{digest[:16]}", path, content)
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


def _import(name: str, path: Path, content: bytes) -> registry.Additions:
    loader = _Loader(name, str(path))
    loader.content = content
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with registry.collecting(name) as added:
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
    if not added:
        raise UserError(
            f"expected {path} to register {WHAT}, got a plugin that registers nothing; decorate "
            "what it adds, or leave it out of plugins"
        )
    return added


def _where(error: BaseException, path: Path) -> str:
    """The file, and its last line that an error has come through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)
