"""Names that a user may add to: the files of a package, and what plugins register.

A built-in is the one file of its name in the package, and registers itself when it is imported.
That is not before it is asked for: names are listed without importing anything heavy.
"""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from mech_arith.common.errors import UserError

T = TypeVar("T")
U = TypeVar("U")

NOT_NAMED = ("__init__", "base")
"""Modules of a package that are no built-in of it."""

registered: list[str] = []
"""Whatever has been registered in this process, in words, in its order."""


class Registry(Generic[T]):
    """What there is of one kind, by name."""

    def __init__(self, kind: str, package: str | None = None) -> None:
        """Nothing is imported.

        Args:
            kind: what errors call an entry, as in "tracing method".
            package: dotted name of the package with one file per built-in. None: built-ins are
                registered by a module that the caller imports.
        """
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._modules: dict[str, str] = {}
        """Name -> the module that has registered it."""

    def names(self) -> tuple[str, ...]:
        """The built-ins in alphabetical order, then those of plugins in the order of their coming.

        Nothing is imported for it.
        """
        return tuple(dict.fromkeys([*self._built_in(), *self._entries]))

    def register(self, name: str) -> Callable[[U], U]:
        """Decorate what is to be found under a name; it stays as it is.

        Raises:
            UserError: the name is taken.
        """

        def keep(entry: U) -> U:
            module = str(getattr(entry, "__module__", None))
            taken = self._modules.get(name)
            if taken is None and name in self._built_in() and module != self._file_of(name):
                taken = self._file_of(name)
            if taken is not None:
                raise UserError(
                    f"expected a new name for this {self.kind} in {_where(module)}, got {name!r}, "
                    f"which {_where(taken)} has registered; choose another name"
                )
            self._entries[name] = entry  # pyright: ignore[reportArgumentType]
            self._modules[name] = module
            registered.append(f"{self.kind} {name}")
            return entry

        return keep

    def find(self, name: str) -> T:
        """What is registered under a name; a built-in's file is imported if need be.

        Raises:
            UserError: there is nothing of that name.
        """
        if name not in self._entries and name in self._built_in():
            import_module(self._file_of(name))
        if name not in self._entries:
            raise self.unknown(name)
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise a UserError if there is nothing of that name. Nothing is imported."""
        if name not in self.names():
            raise self.unknown(name)

    def module(self, name: str) -> ModuleType:
        """The module that registers a name: its code is part of the keys of what it computes."""
        self.find(name)
        return sys.modules[self._modules[name]]

    def unknown(self, name: object, *, also: Sequence[str] = ()) -> UserError:
        """The error for a name that is not there: with close names, and all that there are.

        `also` are names that mean something where the name was given, and are no entries.
        """
        valid = (*self.names(), *also)
        near = get_close_matches(str(name), valid, n=1, cutoff=0.6)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        return UserError(
            f"unknown {self.kind} {str(name)!r}{meant}; expected one of: {', '.join(valid)}"
        )

    def _file_of(self, name: str) -> str:
        return f"{self.package}.{name}"

    def _built_in(self) -> tuple[str, ...]:
        if self.package is None:
            return ()
        root, *parts = self.package.split(".")
        # Not by importing the package, which may need torch.
        folder = Path(str(import_module(root).__file__)).parent.joinpath(*parts)
        names = (path.stem for path in folder.glob("*.py"))
        return tuple(sorted(name for name in names if name not in NOT_NAMED))


def _where(module: str) -> str:
    """A module as a user knows it: a plugin by its file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return module if module.startswith("mech_arith.") or file is None else str(file)
