"""What `--help` and `--version` print: conf/ itself, with its comments."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from mech_arith import __version__
from mech_arith.common.paths import conf_dir
from mech_arith.experiment.config import RunConfig
from mech_arith.experiment.flags import own_folders, split_flags

ADDED = ("experiment",)
"""Groups without a default: +experiment=paper."""

APART = ("train", "hydra/sweeper")
"""Folders that are no choice of this command line's."""


def answer(arguments: Sequence[str]) -> str | None:
    """What a command line that only asks for help or the version is answered; None for others.

    Raises:
        UserError: help is asked for beside an unknown flag.
    """
    if "--version" in arguments:
        return f"mech_arith {__version__}"
    if "--help" in arguments or "-h" in arguments:
        return help_text(arguments)
    return None


def help_text(arguments: Sequence[str] = ()) -> str:
    """Every group with its options, and every key with its default and its comment.

    Args:
        arguments: the rest of the command line: of groups chosen there, the chosen options' keys.
    """
    flags, overrides = split_flags(arguments)
    folders = [conf_dir(), *own_folders(flags)]
    chosen = _defaults() | _chosen(overrides)
    parts = [HEADER]
    for group in _groups(folders):
        plus = "+" if group in ADDED else ""
        named = list(_options(folders, group))
        width = max([24, *(len(name) + 2 for name, _ in named)])
        options = [f"  {name:<{width}}{about}" for name, about in named]
        default = f"   (by default {chosen[group]})" if group in chosen else ""
        parts.append("\n".join([f"{plus}{group}=...{default}", *options]))
    parts.append(KEYS)
    parts += [_section(folders, group, option) for group, option in chosen.items()]
    return "\n\n".join([*parts, _own_keys(), FOOTER])


HEADER = """\
mech_arith finds where a Transformer keeps the intermediate values of an arithmetic problem, and
tests whether it uses them there.

  python -m mech_arith                                    one cell: the paper's question
  python -m mech_arith layers=0-5 intervention=shift      other options and layers
  python -m mech_arith -m layers=early,late intervention=scale,shift    a sweep: four cells
  python -m mech_arith -m model=gpt2,phi_2 prompt=comma,qa 'sweep.together=[model,prompt]'
                                                          two cells: the keys move together
  python -m mech_arith -m layers=early,late sweep.dry_run=true          what the cells would cost
  python -m mech_arith -m sweep.resume=DIR                what a sweep has left undone

== Groups: choose by GROUP=OPTION =="""

KEYS = "== Keys: set by KEY=VALUE, as in problems.n=200 =="

FOOTER = """\
Where files go: hydra.run.dir=DIR, and for sweeps hydra.sweep.dir=DIR. --cfg job shows the whole
config as composed, --hydra-help what Hydra can do."""


def _defaults() -> dict[str, str]:
    """Group -> the option that is chosen by default."""
    entries = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
    return {group: option for group, option in pairs if not group.startswith("override ")}


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    given = [override.partition("=") for override in overrides if "=" in override]
    known = _defaults()
    return {group: option for group, _, option in given if group in known}


def _groups(folders: Sequence[Path]) -> list[str]:
    """All groups, those with a default first, in the order of the defaults."""
    found = {
        path.parent.relative_to(folder).as_posix()
        for folder in folders
        for path in folder.rglob("*.yaml")
    }
    first = [group for group in _defaults() if group in found]
    within = {group for group in found if "/" in group and group.partition("/")[0] in found}
    return [*first, *sorted(found - {".", *first, *within, *APART})]


def _options(folders: Sequence[Path], group: str) -> Iterator[tuple[str, str]]:
    """The options of a group, and what the comment on top of each says."""
    named = [
        (path.relative_to(folder / group).with_suffix("").as_posix(), path)
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    ]
    for name, path in sorted(named, key=lambda one: ("/" in one[0], one[0])):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("# ") for line in lines if re.match(r"# [^@]", line)]
        yield name, comments[0] if comments else ""


def _section(folders: Sequence[Path], group: str, option: str) -> str:
    """The keys of a group as its chosen option sets them, and those that only others set."""
    paths = [path for folder in folders if (path := folder / group / f"{option}.yaml").is_file()]
    text = paths[-1].read_text(encoding="utf-8") if paths else ""
    shown = "\n".join(f"  {line}" for line in text.splitlines() if line and line[0] != "#")
    known = yaml.safe_load(text) or {}
    schema = get_type_hints(RunConfig)[group]
    comments = _comments(folders, group)
    others = [
        f"  {key}: {value:<{max(1, 19 - len(key))}}  {comments.get(key, '')}".rstrip()
        for key, value in _settable(schema)
        if key not in known
    ]
    return "\n".join([f"{group}:", shown, *others])


def _comments(folders: Sequence[Path], group: str) -> dict[str, str]:
    """Key -> its comment, of all options of a group."""
    texts = [
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((folder / group).glob("*.yaml"))
    ]
    return dict(pair for text in texts for pair in re.findall(r"(?m)^(\w+):.*?(# .*)$", text))


def _settable(schema: Any) -> Iterator[tuple[str, str]]:
    """The keys of a section, and their defaults as YAML."""
    for entry in fields(schema):
        is_made = entry.default_factory is not MISSING
        value = entry.default_factory() if is_made else entry.default  # type: ignore[misc]
        if is_dataclass(value):
            continue
        plain = value.name if isinstance(value, Enum) else value
        yield entry.name, "null" if plain is None else yaml.safe_dump([plain]).strip()[2:]


def _own_keys() -> str:
    """The keys of no group: what config.yaml says itself."""
    text = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    return text.partition("- _self_\n")[2].partition("\nhydra:")[0].strip()
