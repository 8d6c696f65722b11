"""Made-up runs, by the code that makes them for the report's benchmark."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PATH = Path(__file__).parents[1] / "scripts" / "benchmarks" / "synthetic.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_runs", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_runs"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


_module = _loaded()


save_sweep = _module.save_sweep
"""Save so many made-up cells of several models, templates, edits and seeds."""


def save_cell(directory: Path, **what: Any) -> Path:
    """Save a made-up run; see `SyntheticCell` for what may be said of it."""
    _module.save_cell(directory, _module.SyntheticCell(**what))
    return directory
