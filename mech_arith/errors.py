"""Errors that are the user's to mend: shown as one line, without a traceback."""

from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line: what was expected, what came, what to do."""


def unknown(kind: str, name: object, valid: Iterable[object]) -> UserError:
    """The error for a name that is not among the valid ones, which it lists."""
    listed = ", ".join(str(choice) for choice in valid)
    return UserError(f"unknown {kind} {str(name)!r}; expected one of: {listed}")
