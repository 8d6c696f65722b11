"""Things that are found by name: one file each in a package, or registered by a user's own file."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mech_arith.errors import unknown

T = TypeVar("T")


class Registry:
    """Names of one kind of thing. A built-in one is imported when it is first asked for."""

    def __init__(self, kind: str, package: str) -> None:
        """Nothing is imported.

        Args:
            kind: what a name stands for, in the words of an error message.
            package: where the built-in ones are, each in the module of its name.
        """
        self.kind = kind
        self.package = package
        self._found: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that gives a class or function its name."""

        def decorate(thing: T) -> T:
            self._found[name] = thing
            return thing

        return decorate

    def find(self, name: str) -> Any:
        """What has the name.

        Raises:
            UserError: nothing has it.
        """
        if name not in self.names():
            raise unknown(self.kind, name, self.names())
        if name not in self._found:
            importlib.import_module(f"{self.package}.{name}")
        return self._found[name]

    def names(self) -> tuple[str, ...]:
        """All names, sorted; those of built-in ones are read from their files' names."""
        directory = Path(__file__).parent.joinpath(*self.package.split(".")[1:])
        built_in = {path.stem for path in directory.glob("[!_]*.py")}
        return tuple(sorted(built_in | set(self._found)))
