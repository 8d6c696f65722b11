"""Where the package finds what it ships."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The Hydra tree: inside the package in a wheel, beside it in a checkout."""
    shipped = _PACKAGE / "conf"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "conf"


def checkpoints_dir() -> Path:
    """The shipped solvers."""
    return _PACKAGE / "solvers" / "checkpoints"
