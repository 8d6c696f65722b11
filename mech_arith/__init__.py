"""Trace and manipulate intermediate values in Transformers that do arithmetic.

    from mech_arith import compose, find_runs, load_run, read_objective, read_sweep

gives what `mech_arith.experiment.api` has. It is imported when one of these names is first asked
for, so `import mech_arith` and the command line's `--help` do not wait for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "1.0.0"

__all__ = ["compose", "find_runs", "load_run", "read_objective", "read_sweep"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A name of the API, on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("mech_arith.experiment.api"), name)
