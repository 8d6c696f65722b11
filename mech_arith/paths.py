"""Where the package finds what it ships, and names of files that several modules know."""

from pathlib import Path

ERROR_FILE = "error.txt"
"""In a cell's directory: the one line that says why it has no result."""

SUMMARY = "summary.json"
"""In a run's directory: written last, so that its presence says that the run is whole."""

_PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The Hydra tree: inside the package in a wheel, beside it in a checkout."""
    shipped = _PACKAGE / "conf"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "conf"


def checkpoints_dir() -> Path:
    """The shipped solvers."""
    return _PACKAGE / "solvers" / "checkpoints"
