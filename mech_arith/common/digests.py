"""Digests of tensors, of plain data and of source code: what addresses are made of."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor


def tensor_digest(*tensors: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of tensors, in their order: for keys."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        # Flat first: what has no dimension cannot be viewed as bytes.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def json_digest(value: object) -> str:
    """SHA-256 of plain JSON data in its one canonical form: for keys."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON in its one form: fields sorted, no blanks, floats by their shortest exact text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def code_digest(modules: Iterable[ModuleType]) -> str:
    """SHA-256 over the source files of modules, in whatever order; comments count too.

    A package counts with every module in it. What a module imports does not count: name it too.
    A module is read once, at the first call, so that a file edited while a long sweep runs does not
    pass for what the sweep runs; a module that is imported anew is read anew.

    Raises:
        ValueError: a module has no source file.
    """
    sources = {module.__name__: _source_digest(module) for module in modules}
    return json_digest(sources)


_sources: dict[str, tuple[object, str]] = {}
"""Module's name -> what stands for this import of it, and its digest."""


def _source_digest(module: ModuleType) -> str:
    imported, digest = _sources.get(module.__name__, (None, ""))
    if imported is None or imported is not module.__spec__:
        digest = json_digest(
            {name: hashlib.sha256(content).hexdigest() for name, content in _source(module)}
        )
        _sources[module.__name__] = (module.__spec__, digest)
    return digest


def _source(module: ModuleType) -> Iterator[tuple[str, bytes]]:
    """Name and content of a module's file, or of all files of a package."""
    origin = getattr(module, "__file__", None)
    if not origin or not origin.endswith(".py"):
        raise ValueError(
            f"expected a module with a source file, got {module.__name__!r} ({origin}); "
            "name the modules whose code determines the result"
        )
    file = Path(origin)
    root = file.parent
    for path in sorted(root.rglob("*.py")) if hasattr(module, "__path__") else [file]:
        yield path.relative_to(root).as_posix(), path.read_bytes()
