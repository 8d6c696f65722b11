"""Overrides as Hydra's grammar wants them: text stays text, and layers may be named by number."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mech_arith.common.errors import UserError
from mech_arith.experiment.config import RunConfig


def quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar, so that no sign in it means anything."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


class Kind(Enum):
    """What a key holds, as far as text is concerned."""

    TEXT = "text"
    TEXTS = "a list of text"
    TEXT_OR_TEXTS = "a text, or a list of texts"
    OPTION = "an option of a group, or a list of options"
    SBATCH = "what sbatch is handed as text, or a switch"
    OTHER = "something else"


def as_typed(argument: str, schema: type = RunConfig) -> str:
    """An override in which text stays the text that was typed.

    Hydra reads `695e0514` as a number and `[b>c]` not at all. Of keys that hold text, whatever
    Hydra would read as something else is put in quotes. Commas outside brackets still separate the
    choices of a sweep; quotes, `null`, `${...}`, `choice(...)` and the like keep their meaning.

    Raises:
        UserError: layers that are no numbers, or numbers and names in one sweep.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith(("-", "~")) or not value:
        return argument
    name = key.lstrip("+").partition("@")[0]
    is_layers = schema is RunConfig and name in ("layers", "layers.list")
    if is_layers and (numbered := _layers(argument, value)) is not None:
        return numbered
    if schema is RunConfig and (name == OPTIONS or name.startswith(f"{OPTIONS}.")):
        # Whether or not the method's YAML lists it: the method knows its options.
        return f"++{name}={value}"
    kind = kind_of(name, schema)
    if kind is Kind.OTHER:
        return argument
    return f"{key}=" + ",".join(_choice(choice, kind) for choice in _split(value))


MOST_LAYERS = 10_000
"""More than any model has."""

OPTIONS = "tracing.options"
"""Options of the direction method, which the schema does not know."""

OBJECTIVE = "objective"

SWEEPS = ("choice", "sort", "shuffle", "str")
"""Functions of Hydra's grammar whose arguments are the texts themselves."""

FUNCTIONS = ("bool", "float", "glob", "int", "interval", "range", "tag")
"""The others; what they are given is left as it is."""


def _choice(text: str, kind: Kind) -> str:
    """One choice of a sweep: a text, a list of texts, or a function that yields some."""
    stripped = text.strip()
    call = re.fullmatch(r"(\w+)\s*\((.*)\)", stripped, re.DOTALL)
    if call and call[1] in FUNCTIONS:
        return text
    if call and call[1] in SWEEPS:
        named = re.compile(r"(reverse|seed)\s*=")
        arguments = [a if named.match(a.strip()) else _choice(a, kind) for a in _split(call[2])]
        return f"{call[1]}({','.join(arguments)})"
    is_list = stripped.startswith("[") and stripped.endswith("]")
    if is_list and kind in (Kind.TEXTS, Kind.TEXT_OR_TEXTS, Kind.OPTION):
        return "[" + ",".join(_text(entry, kind) for entry in _split(stripped[1:-1])) + "]"
    return text if kind is Kind.TEXTS else _text(text, kind)


def _text(text: str, kind: Kind) -> str:
    """A text in quotes, if Hydra would read it otherwise."""
    stripped = text.strip()
    kept = {"", "???"}
    if kind is not Kind.OPTION:  # no option is null: Hydra would end in a traceback
        kept |= {"null"}
    if kind is Kind.SBATCH:
        kept |= {"true", "false"}
    is_mapping = kind in (Kind.OPTION, Kind.SBATCH) and stripped.startswith(("{", "["))
    if (
        stripped in kept
        or "${" in stripped
        or is_mapping
        or _quoted_end(stripped, 0) == len(stripped)
    ):
        return text
    plain = re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", stripped)
    return text if _is_read_as(stripped, plain) else quoted(plain)


def _is_read_as(text: str, plain: str) -> bool:
    try:
        return OverridesParser.create().parse_override(f"key={text}").value() == plain
    except HydraException:
        return False


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no brackets and no quotes."""
    parts, depth, at = [""], 0, 0
    while at < len(text):
        # A quotation mark within a text is a sign like any other.
        end = at + 1 if parts[-1].strip() else max(at + 1, _quoted_end(text, at))
        if text[at] == "\\" and end < len(text):
            end += 1
        piece = text[at:end]
        depth = max(0, depth + (piece in "([{") - (piece in ")]}"))
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
        at = end
    return parts


def _quoted_end(text: str, start: int) -> int:
    """Where the quoted text ends that begins at `start`; -1 if none does."""
    found = re.compile(r"(['\"])(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)\1", re.DOTALL).match(text, start)
    return found.end() if found else -1


@cache
def kind_of(key: str, schema: type) -> Kind:
    """What the key of an override holds, by the schema's types."""
    path = key.split(".")
    if key == OBJECTIVE and schema is RunConfig:
        return Kind.TEXT_OR_TEXTS  # no type says that to OmegaConf
    if path[:3] == ["hydra", "launcher", "additional_parameters"]:
        return Kind.SBATCH
    if path[0] != "hydra":
        kind = _kind_by_type(_type_at(schema, path))
        return Kind.OPTION if kind is Kind.OTHER and _is_group(key, schema) else kind
    below = path[1:]
    if below[:1] == ["launcher"]:
        types = [_type_at(launcher, below[1:]) for launcher in (SlurmQueueConf, LocalQueueConf)]
        return next((k for k in map(_kind_by_type, types) if k is not Kind.OTHER), Kind.OTHER)
    return _kind_by_type(_type_at(HydraConf, below))


def _is_group(key: str, schema: type) -> bool:
    """Whether a key may be a group's: that of a section of the schema, or unknown to it."""
    known = _type_at(schema, [key])
    return "." not in key and (known is None or is_dataclass(known))


def _type_at(schema: Any, path: Sequence[str]) -> Any:
    """The type of what a dotted key names; None where the schema does not say."""
    for name in path:
        if is_dataclass(schema):
            schema = get_type_hints(schema).get(name)
        elif get_origin(schema) is dict:
            schema = get_args(schema)[1]
        else:
            return None
        schema = _without_none(schema)
    return schema


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    some = [entry for entry in get_args(kind) if entry is not type(None)]
    return some[0] if len(some) == 1 else None


def _kind_by_type(kind: Any) -> Kind:
    if kind is str:
        return Kind.TEXT
    return Kind.TEXTS if get_origin(kind) is list and get_args(kind) == (str,) else Kind.OTHER


def _layers(argument: str, value: str) -> str | None:
    """`layers=0-5`, `layers=[1,3]` and sweeps of them, as lists of numbers; None for names."""
    choices = [choice.strip() for choice in _split(value)]
    by_number = [bool(re.match(r"[-+.]?\d[-+.\d]*$|\[", choice)) for choice in choices]
    if not any(by_number):
        return None
    if not all(by_number):
        raise UserError(
            f"expected layers by number or by name in one sweep, got {argument!r}; give all by "
            "number, as in layers=0-2,3-5"
        )
    lists = [_numbers(choice.removeprefix("[").removesuffix("]"), argument) for choice in choices]
    return "layers.list=" + ",".join(f"[{','.join(map(str, numbers))}]" for numbers in lists)


def _numbers(text: str, argument: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last >= MOST_LAYERS:  # a range is written out here, whatever its length
            raise UserError(
                f"expected layers as numbers from 0 to {MOST_LAYERS - 1}, got {part.strip()!r} in "
                f"{argument!r}; write for example layers=0-5 or 'layers=[1,3]'"
            )
        numbers += range(first, last + 1)
    return numbers


def check_grammar(arguments: Sequence[str]) -> None:
    """Refuse what Hydra's grammar cannot read, and say what it takes.

    Raises:
        UserError: an override that is none.
    """
    parser = OverridesParser.create()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            continue  # a deletion, or what Hydra refuses in better words
        try:
            parser.parse_override(argument)
        except HydraException:
            raise UserError(
                f"expected an override that Hydra's grammar reads, got {argument!r}; "
                f"{_better(key, value)}"
            ) from None


def choices_of(arguments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Key or group -> its choices, of overrides that Hydra's grammar reads; one if not swept, or
    swept by a pattern.

    A key that is given twice has the choices of the last.
    """
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    return {
        one.key_or_group: tuple(one.sweep_string_iterator())
        if one.is_discrete_sweep() and one.value_type is not ValueType.GLOB_CHOICE_SWEEP
        else ("",)
        for one in parsed
    }


def _better(key: str, value: str) -> str:
    """How to write what Hydra's grammar could not read."""
    kind = kind_of(key.lstrip("+"), RunConfig)
    if kind is Kind.TEXTS:
        return f"write a list, as in {in_shell(f'{key}=[{quoted(value)}]')}"
    if kind is Kind.OTHER:
        return "write a number, true, false, null or a list of such without other signs"
    return f"write text in quotes of both kinds, as in {in_shell(f'{key}={quoted(value)}')}"


def in_shell(argument: str) -> str:
    """An argument in the shell's quotes, by double ones where they leave it readable."""
    return shlex.quote(argument) if set(argument) & set('"$`!\\') else f'"{argument}"'


def check_files(folder: Path) -> None:
    """Refuse config files in which a text is written as YAML writes a number.

    Raises:
        UserError: a file that YAML cannot read, or a text that it reads as something else.
    """
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix().replace("/", ".")
        text = path.read_text(encoding="utf-8")
        is_global = group == "." or re.search(r"^# @package _global_", text, re.MULTILINE)
        try:
            entries = OmegaConf.to_container(OmegaConf.create(text))
        except (YAMLError, OmegaConfBaseException) as error:
            said = " ".join(str(error).split())
            raise UserError(f"expected a config in YAML in {path}, got: {said}; mend it") from None
        for key, value in _leaves(entries, "" if is_global else f"{group}."):
            if kind_of(key.removeprefix("hydra.sweeper.params."), RunConfig) in READ_AS_TEXT:
                raise UserError(
                    f"expected text for {key} in {path}, got what YAML reads as {value!r}; put it "
                    "in quotes"
                )


READ_AS_TEXT = (Kind.TEXT, Kind.TEXTS)


def _leaves(entries: Any, prefix: str) -> Iterator[tuple[str, bool | int | float]]:
    """Dotted keys of numbers and switches, those in lists too."""
    for key, value in entries.items() if isinstance(entries, dict) else ():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
            continue
        some = value if isinstance(value, list) else [value]
        yield from ((name, entry) for entry in some if isinstance(entry, bool | int | float))
