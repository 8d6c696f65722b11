"""A sweep over several direction methods asks which of them finds what the model uses."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from mech_arith.common.paths import conf_dir
from mech_arith.experiment.overrides import choices_of

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

    The default edit says nothing of ranks, so that a report could not compare the methods.

    Args:
        overrides: as Hydra's grammar reads them.
        folders: the user's own folders of options.
    """
    choices = choices_of(overrides)
    if any(key in choices for key in ASKS):
        return False
    methods = {_method(choice, [conf_dir(), *folders]) for choice in choices.get("tracing", ())}
    return len(methods) > 1


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
