"""Where the package finds what it ships, and names of files that several modules know."""

import os
from pathlib import Path

import platformdirs

ERROR_FILE = "error.txt"
"""In a cell's directory: the one line that says why it has no result."""

SUMMARY = "summary.json"
"""In a run's directory: written last, so that its presence says that the run is whole."""

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The Hydra tree: inside the package in a wheel, beside it in a checkout."""
    shipped = _PACKAGE / "conf"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "conf"


def checkpoints_dir() -> Path:
    """The shipped models."""
    return _PACKAGE / "models" / "arithmetic" / "checkpoints"


def store_dir() -> Path:
    """The artifact store: `MECH_ARITH_STORE`, or the user's cache directory."""
    own = os.environ.get("MECH_ARITH_STORE")
    return Path(own).expanduser() if own else platformdirs.user_cache_path("mech_arith")
