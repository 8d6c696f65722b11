"""Errors that are the user's to mend: shown as one line, without a traceback."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. The message is one line: what was expected, what came, what to do."""


def unknown(kind: str, name: object, valid: Iterable[object]) -> UserError:
    """The error for a name that is not among the valid ones, which it lists."""
    listed = ", ".join(str(choice) for choice in valid)
    return UserError(f"unknown {kind} {str(name)!r}; expected one of: {listed}")


MOST_LISTED = 8
"""Names that are all listed; of more, the nearest to the one that is unknown."""


def nearest(name: str, valid: Sequence[str]) -> str:
    """What a user may have meant by an unknown name: all valid ones, or the nearest of many."""
    if len(valid) <= MOST_LISTED:
        return f"expected one of: {', '.join(valid)}"
    near = get_close_matches(name, valid, n=3, cutoff=0.3) or list(valid[:3])
    return f"nearest of {len(valid)}: {', '.join(near)}"
