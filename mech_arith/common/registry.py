"""Names that a user may add to: the files of a package, and what plugins register.

A built-in is the one file of its name in the package, and registers itself when it is imported.
That is not before it is asked for: names are listed without importing anything heavy.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from mech_arith.common.errors import UserError

T = TypeVar("T")
U = TypeVar("U")

NOT_NAMED = ("__init__", "base")
"""Modules of a package that are no built-in of it."""

MAIN = "__main__"
"""Module of a notebook or a shell."""


@dataclass(frozen=True)
class Entry:
    """What is registered under a name, and the name of the module that has registered it."""

    registered: Any
    module: str


Additions = dict[tuple["Registry[Any]", str], Entry]
"""What plugins register, by registry and name."""

_added: Additions = {}
"""By the plugins of the running cell."""

_importing: str | None = None
"""Name of the plugin's module that is being imported."""


@contextmanager
def collecting(module: str) -> Iterator[Additions]:
    """What a plugin registers while it is imported, apart from all others.

    Args:
        module: name of the plugin's module.
    """
    global _added, _importing
    before = _added
    _added, _importing = {}, module
    try:
        yield _added
    finally:
        _added, _importing = before, None


def use(additions: Iterable[Additions]) -> None:
    """From here on there are the built-ins and these additions, and no others.

    Raises:
        UserError: two of them have the same name for things of one kind.
    """
    global _added
    together: Additions = {}
    for each in additions:
        for (registry, name), entry in each.items():
            taken = together.get((registry, name)) or registry.own.get(name)
            if taken is not None:
                raise registry.taken(name, entry.module, by=taken.module)
            together[registry, name] = entry
    _added = together


@contextmanager
def without_additions() -> Iterator[None]:
    """Within it there are the built-ins alone, until `use`; afterwards, what there was before."""
    global _added
    before, _added = _added, {}
    try:
        yield
    finally:
        _added = before


class Registry(Generic[T]):
    """What there is of one kind, by name: the built-ins, and what the running cell's plugins add.

    What is registered outside of plugins, as in a notebook, stays for the whole process.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        """Nothing is imported.

        Args:
            kind: what errors call an entry, as in "tracing method".
            package: dotted name of the package with one file per built-in; None where there is
                none.
        """
        self.kind = kind
        self.package = package
        self.own: dict[str, Entry] = {}
        """Built-ins that have been imported, and what was registered outside of plugins."""

    def names(self) -> tuple[str, ...]:
        """The built-ins in alphabetical order, then those of plugins in the order of their coming.

        Nothing is imported for it.
        """
        return tuple(dict.fromkeys([*self._built_in(), *self.own, *self.added()]))

    def added(self) -> dict[str, T]:
        """What the running cell's plugins have registered, by name."""
        return {name: entry.registered for (of, name), entry in _added.items() if of is self}

    def register(self, name: str) -> Callable[[U], U]:
        """Decorate what is to be found under a name; it stays as it is.

        A notebook's or a shell's own entry may be registered again, as when its cell is run again.

        Raises:
            UserError: the name is taken.
        """

        def keep(entry: U) -> U:
            module = entry.__module__ if hasattr(entry, "__qualname__") else MAIN
            # A plugin may be the first to import a built-in, which is there for every cell.
            is_built_in = name in self._built_in() and module == self._file_of(name)
            if _importing is not None and not is_built_in:
                module = _importing
            taken = self._entry(name)
            again = taken is not None and taken.module == module == MAIN
            if (taken is not None and not again) or (name in self._built_in() and not is_built_in):
                by = self._file_of(name) if taken is None else taken.module
                raise self.taken(name, module, by=by)
            if _importing is None or is_built_in:
                self.own[name] = Entry(entry, module)
            else:
                _added[self, name] = Entry(entry, module)
            return entry

        return keep

    def adopt(self, name: str, entry: T) -> None:
        """Register until the next cell what a finished run has had."""
        _added[self, name] = Entry(entry, MAIN)

    def taken(self, name: str, module: str, *, by: str) -> UserError:
        """The error for a name that another module has registered."""
        return UserError(
            f"expected a new name for this {self.kind} in {_where(module)}, got {name!r}, "
            f"which {_where(by)} has registered; choose another name"
        )

    def find(self, name: str) -> T:
        """What is registered under a name; a built-in's file is imported if need be.

        Raises:
            UserError: there is nothing of that name.
        """
        return self._found(name).registered

    def check(self, name: str) -> None:
        """Raise a UserError if there is nothing of that name. Nothing is imported."""
        if name not in self.names():
            raise self.unknown(name)

    def module(self, name: str) -> ModuleType:
        """The module that registers a name: a built-in's, a plugin's, or the caller's own."""
        return sys.modules[self._found(name).module]

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

    def _entry(self, name: str) -> Entry | None:
        return self.own.get(name) or _added.get((self, name))

    def _found(self, name: str) -> Entry:
        if self._entry(name) is None and name in self._built_in():
            import_module(self._file_of(name))
        entry = self._entry(name)
        if entry is None:
            raise self.unknown(name)
        return entry

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
