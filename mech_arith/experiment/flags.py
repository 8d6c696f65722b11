"""The command line's flags, which are Hydra's. They may stand anywhere among the overrides."""

import math
from collections.abc import Sequence
from pathlib import Path

from mech_arith.common.errors import UserError, nearest
from mech_arith.common.runs.sweeps import CONFIG_FLAGS

JSON = "json"
"""Of sweep.dry_run: prices for programs."""

MULTIRUN = ("-m", "--multirun")
SHOW_ALONE = ("--cfg", "-c", "--info", "-i")
"""They show how one cell is composed, and run nothing."""

SWITCHES = (
    *MULTIRUN,
    *("--help", "-h", "--hydra-help", "--version"),
    *("--resolve", "--run", "-r", "--shell-completion", "-sc"),
)
TAKE_A_VALUE = (*CONFIG_FLAGS, "--cfg", "-c", "--package", "-p", "--experimental-rerun")
MAY_TAKE_A_VALUE = ("--info", "-i")

ALL_FLAGS = (*SWITCHES, *TAKE_A_VALUE, *MAY_TAKE_A_VALUE)


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags, each with its value behind it, and the overrides.

    Raises:
        UserError: an unknown flag, or a flag without the value that it takes.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, equals, _ = argument.partition("=")
        if name not in ALL_FLAGS:
            raise UserError(f"unknown flag {name!r}; {nearest(name, ALL_FLAGS)}")
        flags.append(argument)
        if equals or name in SWITCHES:
            continue
        if rest and _may_be_value(rest[0], optional=name in MAY_TAKE_A_VALUE):
            flags.append(rest.pop(0))
        elif name in TAKE_A_VALUE:
            raise UserError(f"expected a value after {name}, got none; write {name}=VALUE")
    return flags, overrides


def _may_be_value(text: str, *, optional: bool) -> bool:
    """Whether an argument is the value of the flag before it, and no flag or override."""
    return not text.startswith("-") and not (optional and "=" in text)


def own_folders(flags: Sequence[str]) -> list[Path]:
    """The user's own folders of options, by --config-dir."""
    names = ("--config-dir", "-cd")
    given = [
        after if flag in names else flag.partition("=")[2]
        for flag, after in zip(flags, [*flags, ""][1:], strict=True)
        if flag.partition("=")[0] in names
    ]
    return [Path(folder) for folder in given]


def dry_run_of(asked: object) -> str | None:
    """What `sweep.dry_run` says: 'true' or 'json'; None for a real run.

    Raises:
        UserError: it says something else than true, false or json.
    """
    if asked is False:  # and not 0, which looks like a slip
        return None
    if asked is True or asked == JSON:
        return JSON if asked == JSON else "true"
    raise UserError(
        f"expected sweep.dry_run=true, false or {JSON}, got {asked!r}; choose one of them"
    )


def rate_of(asked: object) -> float | None:
    """What `sweep.rate` says, in multiply-adds per second; None to measure it.

    Raises:
        UserError: it is no number above 0.
    """
    if asked is None:
        return None
    is_number = isinstance(asked, int | float) and not isinstance(asked, bool)
    if not (is_number and 0 < asked < math.inf):  # type: ignore[operator]
        raise UserError(
            f"expected sweep.rate as multiply-adds per second above 0, got {asked!r}; write for "
            "example sweep.rate=2e13, or leave it out to have it measured here"
        )
    return float(asked)  # type: ignore[arg-type]
