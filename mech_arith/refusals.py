"""What Hydra refuses, said in one line."""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import get_type_hints

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from mech_arith.config import RunConfig, quoted
from mech_arith.errors import UserError, nearest
from mech_arith.paths import conf_dir


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What Hydra refuses ends as an error in one line, without its list of all options.

    Raises:
        UserError: Hydra has refused the command line.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra prints its errors and exits; with this it raises
    try:
        yield
    except HydraException as error:
        if before == "1":
            raise
        raise UserError(refusal(error)) from None
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def refusal(error: HydraException) -> str:
    """What Hydra refuses, in one line: what came, and what to do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _unknown_option(text, error.options)
    first, cause = text.partition("\n")[0], error.__cause__
    because = str(cause).partition("\n")[0] if isinstance(cause, OmegaConfBaseException) else ""
    for pattern, said in REFUSALS:
        if found := re.search(pattern, first):
            return said(found[1])
    if because:
        return f"{first or 'the config does not compose'}: {because}; change it"
    return " ".join(text.split())


def _unknown_option(text: str, options: Sequence[str]) -> str:
    found = re.search(r"Could not find '(.+)'", text)
    group, _, name = found[1].rpartition("/") if found else ("", "", text)
    place = conf_dir() / group
    where = place if place.is_dir() else "python -m mech_arith --help"
    return f"unknown {group} {name!r}; {nearest(name, options)} (see {where})"


def _unknown_key(key: str) -> str:
    known = list(_keys(RunConfig))
    last = key.rpartition(".")[2]
    near = get_close_matches(key, known, n=3) or [k for k in known if k.endswith(f".{last}")]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown key {key!r}; {hint}python -m mech_arith --help shows all keys"


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(schema).items():
        yield f"{prefix}{name}"
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _keys(kind, f"{prefix}{name}.")


def _ambiguous(argument: str) -> str:
    key, _, value = argument.partition("=")
    return (
        f"expected one choice for {key}, got {value}; add -m to run a sweep of all, or write a text "
        f"with commas as {shlex.quote(f'{key}={quoted(value)}')}"
    )


REFUSALS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (r"Could not override '(.+)'", _unknown_key),
    (r"Ambiguous value for argument '(.+)'", _ambiguous),
    (r"Sweep parameters '(.+)' requires", lambda sweep: f"{sweep} is a sweep; add -m to run it"),
)
"""What Hydra says, and what is said for it."""
