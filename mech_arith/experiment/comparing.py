"""A sweep over several direction methods asks which of them finds what the model uses."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mech_arith.common.paths import conf_dir

METHODS = "+experiment=methods"
"""Asks the question: interchanges of subspaces of several ranks."""

ASKS = ("intervention", "experiment", "tracing.rank")
"""Keys by which a command line asks a question of its own."""

TAKEN = (
    f"several methods are compared by IIA against rank, as {METHODS} says (one layer unless layers "
    "are named); to ask something else, name an intervention, tracing.rank or an experiment"
)


def compares_methods(overrides: Sequence[str], folders: Iterable[Path] = ()) -> bool:
    """Whether a sweep's overrides choose several methods and ask nothing of their own.

    Without a question, most edits would say nothing of ranks, and the report could not compare the
    methods.

    Args:
        overrides: as Hydra's grammar reads them.
        folders: the user's own folders of options.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(one.key_or_group in ASKS for one in parsed):
        return False
    swept = [o for o in parsed if o.key_or_group == "tracing" and o.is_discrete_sweep()]
    choices = {str(choice) for one in swept for choice in one.sweep_string_iterator()}
    return len({_method(choice, [conf_dir(), *folders]) for choice in choices}) > 1


def _method(choice: str, folders: Sequence[Path]) -> str:
    """The method that an option of the group names; by the option's own name if it names none."""
    for folder in reversed(folders):
        path = folder / "tracing" / f"{choice}.yaml"
        if path.is_file():
            entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            named = entries.get("method")
            if named is not None:
                return str(named)
            parents = [entry for entry in entries.get("defaults", ()) if isinstance(entry, str)]
            return next((_method(p, folders) for p in parents if p != "_self_"), choice)
    return choice
