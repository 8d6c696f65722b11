"""Which cells of a sweep share a process, and which of them its end has left behind."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.common.paths import ERROR_FILE, SUMMARY
from mech_arith.common.runs.records import read_record

AUTO = "auto"

Pack = tuple[int, ...]
"""Cells of one process, by their places in the plan."""


def pack_cells(cells: Sequence[int], models: Mapping[int, Hashable], size: int) -> list[Pack]:
    """Cells of one model together, at most `size` of them, in the order in which they come.

    Args:
        cells: which.
        models: what stands for each cell's model; None for one that is left alone.
        size: of the largest pack.
    """
    by_model: dict[Hashable, list[int]] = {}
    for cell in cells:
        model = models[cell]
        by_model.setdefault(("alone", cell) if model is None else ("of", model), []).append(cell)
    return [
        tuple(group[start : start + size])
        for group in by_model.values()
        for start in range(0, len(group), size)
    ]


def pack_size(asked: object, *, n_cells: int, at_a_time: int) -> int:
    """How many cells share a process.

    Args:
        asked: a number, or `AUTO`: as few packs as run at a time.
        n_cells: to be run.
        at_a_time: jobs.

    Raises:
        UserError: neither of the two.
    """
    if asked == AUTO:
        return max(1, ceil(n_cells / at_a_time))
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise UserError(
            f"expected sweep.pack as a number of cells from 1 on, or {AUTO}, got {asked!r}; "
            "write for example sweep.pack=8"
        )
    return asked


@dataclass(frozen=True)
class Trace:
    """What attempts at a cell have left in its directory."""

    attempts: int
    error_ns: int
    """When its error was written; 0 for none."""
    is_whole: bool

    @classmethod
    def of(cls, directory: Path) -> "Trace":
        record, error = read_record(directory), directory / ERROR_FILE
        return cls(
            0 if record is None else len(record.attempts),
            error.stat().st_mtime_ns if error.is_file() else 0,
            (directory / SUMMARY).is_file(),
        )


def left_behind(pack: Pack, before: Mapping[int, Trace], after: Mapping[int, Trace]) -> Pack:
    """The cells that a pack's process did not come to, for it ended in another one before them.

    None where it came to no cell at all: it would come to none again.
    """
    left = tuple(n for n in pack if after[n] == before[n] and not after[n].is_whole)
    return left if len(left) < len(pack) else ()
