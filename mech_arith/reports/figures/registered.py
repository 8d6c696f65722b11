"""Which figures there are: each is registered with the tables that it is drawn from."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from mech_arith.common.registry import Registry

FIGURES: Registry["Plan"] = Registry("figure", "mech_arith.reports.figures.standard")
"""By name, `Plan`s; they are registered by `figure` or `figures`."""

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Drawing:
    """A figure that is yet to be drawn, and all that it is drawn from."""

    name: str
    """Of its file, of its image in W&B and on the page."""
    draw: Callable[..., Figure]
    tables: tuple[pd.DataFrame | None, ...]
    about: dict[str, Any] = field(default_factory=dict)

    def figure(self) -> Figure:
        return self.draw(*self.tables, **self.about)

    def key(self, digests: dict[int, bytes]) -> bytes:
        """Equal for drawings that look the same; `digests` are those of tables seen before."""
        about = f"{self.draw.__module__}.{self.draw.__qualname__} {sorted(self.about.items())}"
        found = hashlib.blake2b(about.encode())
        for table in self.tables:
            if id(table) not in digests:
                digests[id(table)] = _digest(table)
            found.update(digests[id(table)])
        return found.digest()


Plan = Callable[[Tables, str, float], Iterator[Drawing]]
"""(all tables of a run, title, level of its intervals) -> what is to be drawn of it."""


def figure(
    name: str, *, needs: Sequence[str], also: Sequence[str] = ()
) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Register a function that draws one figure.

    It is called with the tables, in the order of their names here, and with `title` (what stands
    over all figures of the run) and `level` (of its intervals). Runs without these tables, or with
    empty ones, are left out.

    Args:
        name: of the figure and of its file; no other figure has it.
        needs: names of tables.
        also: names of tables that are given too, None where the run has none.
    """

    def decorate(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        def plan(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
            if all(len(tables.get(table, ())) for table in needs):
                given = tuple(tables.get(table) for table in (*needs, *also))
                yield Drawing(name, draw, given, {"title": title, "level": level})

        plan.__module__ = draw.__module__  # a built-in is known by the file that it stands in
        FIGURES.register(name)(plan)
        return draw

    return decorate


def figures(name: str) -> Callable[[Plan], Plan]:
    """Register a generator of several drawings, or of such as depend on more than their tables.

    Args:
        name: of the file in `standard/`, or any other name in a plugin.
    """
    return FIGURES.register(name)


def _digest(table: pd.DataFrame | None) -> bytes:
    """Equal for tables with the same columns, types and rows."""
    found = hashlib.blake2b()
    if table is not None:
        plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
        with pa.ipc.new_stream(sink := pa.BufferOutputStream(), plain.schema) as writer:
            writer.write_table(plain)
        found.update(sink.getvalue())
    return found.digest()
