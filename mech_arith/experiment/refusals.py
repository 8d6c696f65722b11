"""What Hydra refuses, said in one line."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import get_type_hints

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mech_arith.common.errors import UserError, nearest
from mech_arith.common.paths import conf_dir
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.overrides import OPTIONS, Kind, choices_of, in_shell, kind_of, quoted

OF_OPTUNA = {
    "No trials are completed yet.": (
        "expected a trial with a number to search by, got none: all have failed; the log or the "
        "error.txt of each says why"
    ),
    "`Study.stop` is supposed to be invoked inside an objective function or a callback.": (
        "expected a number from the last trial of Optuna's grid, got none, which ends the search; "
        "run a grid by our own sweeper, without hydra/sweeper=optuna"
    ),
}
"""What Optuna says where trials have failed, and what is said for it."""


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
    except OmegaConfBaseException as error:
        said = str(error).partition("\n")[0]
        raise UserError(f"expected a config that resolves, got: {said}; change it") from None
    except (ValueError, RuntimeError) as error:
        if str(error) not in OF_OPTUNA:
            raise
        raise UserError(OF_OPTUNA[str(error)]) from None
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
    # Hydra names the override, which may be of a section: `problems.operands={mn:1}`.
    key, named = getattr(cause, "full_key", None), re.search(r"'(.*?)'", first)
    within = not named or str(key).startswith(f"{named[1]}.")
    if isinstance(cause, ConfigKeyError) and key and within:
        return _unknown_key(str(key))
    for pattern, said in REFUSALS:
        if found := re.search(pattern, first):
            return said(found[1])
    if because:
        override = first.removeprefix("Error merging override ")
        got = f"{override or 'another'} ({because.rstrip('.')})"
        return f"expected a value that fits, got {got}; change it"
    return " ".join(text.split())


def _unknown_option(text: str, options: Sequence[str]) -> str:
    found = re.search(r"Could not find '(.+)'", text)
    group, _, name = found[1].rpartition("/") if found else ("", "", text)
    top, _, folder = group.partition("/")
    if found and any((conf_dir() / top).glob("*.yaml")):  # options may lie in folders within it
        nested = (path.relative_to(conf_dir() / top) for path in (conf_dir() / top).rglob("*.yaml"))
        known = {path.with_suffix("").as_posix() for path in nested}
        options = sorted(known | ({*options} if not folder else set()))
        group, name = top, f"{folder}/{name}" if folder else name
    place = conf_dir() / group
    where = place if place.is_dir() else "python -m mech_arith --help"
    return f"unknown {group} {name!r}; {nearest(name, options)} (see {where})"


def _unknown_key(key: str) -> str:
    known = list(_keys(RunConfig))
    last = key.rpartition(".")[2]
    near = [k for k in known if k.endswith(f".{last}")] or get_close_matches(key, known, n=3)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    # The schema does not know them, nor is it known here which method's they would be.
    option = f"an option of the method is {OPTIONS}.{last}; " if _is_of_tracing(key) else ""
    return f"unknown key {key!r}; {hint}{option}python -m mech_arith --help shows all keys"


def _is_of_tracing(key: str) -> bool:
    return key.startswith(f"{OPTIONS.partition('.')[0]}.")


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def check_single(overrides: Sequence[str]) -> None:
    """Refuse several choices of one key, where a single cell is asked for.

    Raises:
        UserError: there are some.
    """
    for override in overrides:
        if "=" in override and any(len(some) > 1 for some in choices_of([override]).values()):
            raise UserError(_ambiguous(override))


def _ambiguous(argument: str) -> str:
    key, _, value = argument.partition("=")
    typed = re.sub(r"(?:^|(?<=,))(\s*)'((?:[^'\\]|\\.)*)'", r"\1\2", value)  # quotes of `as_typed`
    as_text = in_shell(f"{key}={quoted(typed)}")
    is_text = kind_of(key.lstrip("+"), RunConfig) is Kind.TEXT
    hint = f", or write a text with commas as {as_text}" if is_text else ""
    return f"expected one choice for {key}, got {value}; add -m to run a sweep of all{hint}"


REFUSALS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (r"Could not override '(.*?)'", _unknown_key),
    (r"Could not delete from config\. '(.+)' does not exist", _unknown_key),
    (r"Ambiguous value for argument '(.+)'", _ambiguous),
    (
        r"Error parsing override '(.+)'",
        lambda text: f"expected key=value, got {text!r}; write both",
    ),
    (
        r"Multiple values for (\S+)\. To override",
        lambda key: (
            f"expected one choice for {key}, got a second one; leave out the + before {key}="
        ),
    ),
    (r"Sweep parameters '(.+)' requires", lambda sweep: f"{sweep} is a sweep; add -m to run it"),
)
"""What Hydra says, and what is said for it."""
