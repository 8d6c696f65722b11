"""Directories of runs: which there are, which are whole, and whether one can be written."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyarrow.parquet import read_metadata

from mech_arith.common.atomic import temporary
from mech_arith.common.errors import UserError
from mech_arith.common.paths import SUMMARY


def summary_and_rows(directory: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The headline numbers as they were written, and how many rows each table has.

    Raises:
        UserError: there is no whole run in `directory`, or its summary is damaged.
    """
    path = directory / SUMMARY
    if not path.is_file():
        raise UserError(f"expected a finished run in {directory}, found no {SUMMARY}; run it again")
    with readable(directory):
        summary = json.loads(path.read_text(encoding="utf-8"))
        rows = dict(summary.pop("tables"))
    return summary, rows


def damage(directory: Path) -> str | None:
    """What is wrong with a finished run, by its summary and its tables' footers; None: nothing."""
    try:
        _, rows = summary_and_rows(directory)
        with readable(directory):
            found = {name: read_metadata(directory / f"{name}.parquet").num_rows for name in rows}
    except UserError as error:
        return str(error)
    wrong = [name for name in rows if rows[name] != found[name]]
    return f"expected {rows} rows in its tables, got {found}; run it again" if wrong else None


@contextlib.contextmanager
def readable(directory: Path) -> Iterator[None]:
    """Whatever is wrong with a run's files, or is not in them, in one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected a readable run in {directory}, got {type(error).__name__}: {reason}; "
            "run it again"
        ) from error


def find_runs(directory: Path) -> list[Path]:
    """Directories of all whole runs in and under `directory`, in natural order (2 before 10).

    See `walk` for what is passed over.

    Raises:
        UserError: `directory` is not there.
    """
    if not directory.is_dir():
        raise UserError(
            f"expected a directory of runs, got {str(directory)!r}; give one that exists"
        )
    found = [parent for parent, files in walk(directory) if SUMMARY in files]
    return sorted(found, key=lambda path: _natural(str(path.relative_to(directory))))


def finished_runs(places: Iterable[Path]) -> list[Path]:
    """All whole runs in and under the places, each once.

    Raises:
        UserError: a place is no directory, or has no whole run.
    """
    found: dict[Path, None] = {}
    for place in places:
        runs = find_runs(place)
        if not runs:
            raise UserError(f"expected a finished run in {place}, found none; run it to its end")
        found |= dict.fromkeys(runs)
    return list(found)


def walk(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every directory in and under `directory`, and the names of its files.

    Links are followed, each directory is visited once, under its own name where it has one below
    `directory`. Hidden directories are passed over.
    """
    visited: set[Path] = set()
    waiting = [directory]
    while waiting:
        for at, children, files in os.walk(waiting.pop(0)):
            parent = Path(at)
            place = parent.resolve()
            if place in visited:
                children.clear()
                continue
            visited.add(place)
            children[:] = sorted(child for child in children if not child.startswith("."))
            waiting += [parent / child for child in children if (parent / child).is_symlink()]
            yield parent, files


def check_writable(
    directory: Path, *, else_do: str = "choose another with hydra.run.dir or hydra.sweep.dir"
) -> None:
    """Make `directory` if need be and try to write in it, before any work is done.

    Args:
        directory: where results are going to be.
        else_do: what the user is told to do if that fails.

    Raises:
        UserError: it is not a directory, or nothing can be written in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with temporary(directory / "writable") as [path]:
            # On a full disk a file can be made, and nothing be written in it.
            path.write_bytes(bytes(4096))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"expected an output directory that can be written, got {str(directory)!r} ({reason}); "
            f"{else_do}"
        ) from error


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which numbers inside text count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
