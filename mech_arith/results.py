"""What a run leaves on disk: tables and headline numbers, saved whole or not at all."""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import read_metadata, write_table

from mech_arith.atomic import atomic, temporary
from mech_arith.best import best_on_fit
from mech_arith.columns import (
    RENAMED_TABLES,
    TABLES,
    conformed,
    in_memory,
    in_todays_words,
    table_name,
)
from mech_arith.errors import UserError
from mech_arith.paths import SUMMARY
from mech_arith.sites import COMPONENT_COLUMNS

CONFIG = "config.yaml"
"""The resolved configuration."""


@dataclass(frozen=True)
class RunResult:
    """A saved run, as read back."""

    directory: Path

    tables: dict[str, pd.DataFrame]
    """The run's tables by name ('correlations', 'effects', ...), as `columns` says."""

    summary: dict[str, Any]
    """Headline numbers; a number that could not be had is None."""

    config_yaml: str
    """The resolved configuration, as YAML text."""


def save_run(
    directory: Path,
    *,
    tables: Mapping[str, pd.DataFrame],
    summary: Mapping[str, Any],
    config_yaml: str,
) -> None:
    """Save a run into `directory`, which is made if it is not there.

    Everything is first written under temporary names, so a full disk or a kill leaves an earlier
    run in the directory as it was. Only then are the files renamed, the summary last. The summary
    file also counts the rows of each table (`tables`), so that a table left by an earlier run in
    the same directory is never taken for one of this run.

    Raises:
        UserError: the directory cannot be written.
        ValueError: a table or a column that `columns` does not name, or the summary holds something
            that is neither text, number, list nor mapping.
    """
    whole = {name: conformed(name, table) for name, table in tables.items()}
    if "tables" in summary:
        raise ValueError(
            "expected a summary without the key 'tables', which save_run writes; rename the key"
        )
    counted = {**summary, "tables": {name: len(table) for name, table in tables.items()}}
    text = json.dumps(plain(counted), sort_keys=True, indent=2, allow_nan=False) + "\n"

    writers: dict[str, Callable[[Path], object]] = {}
    for name, table in whole.items():
        writers[f"{name}.parquet"] = _parquet_writer(table)
    writers[CONFIG] = _text_writer(config_yaml)
    writers[SUMMARY] = _text_writer(text)

    check_writable(directory)
    # From `before` to the last rename the directory holds no whole run, and says so.
    gone = partial((directory / SUMMARY).unlink, missing_ok=True)
    with atomic(*(directory / name for name in writers), before=gone) as temporary_paths:
        for path, write in zip(temporary_paths, writers.values(), strict=True):
            write(path)


def table_file(directory: Path, name: str) -> Path:
    """The file of a table, which a run of an earlier version may have under another name."""
    earlier = [was for was, now in RENAMED_TABLES.items() if now == name]
    paths = [directory / f"{one}.parquet" for one in (name, *earlier)]
    return next((path for path in paths if path.is_file()), paths[0])


def load_summary(directory: Path) -> dict[str, Any]:
    """Read back the headline numbers of a saved run alone.

    Raises:
        UserError: there is no whole run in `directory`, or its summary is damaged.
    """
    return _summary_and_rows(directory)[0]


def damage(directory: Path) -> str | None:
    """What is wrong with a finished run, by its summary and its tables' footers; None: nothing."""
    try:
        _, rows = _summary_and_rows(directory)
        with _readable(directory):
            found = {name: read_metadata(directory / f"{name}.parquet").num_rows for name in rows}
    except UserError as error:
        return str(error)
    wrong = [name for name in rows if rows[name] != found[name]]
    return f"expected {rows} rows in its tables, got {found}; run it again" if wrong else None


def load_run(directory: Path) -> RunResult:
    """Read a saved run back.

    Raises:
        UserError: there is no whole run in `directory`, or one of its files is damaged.
    """
    summary, rows = _summary_and_rows(directory)
    with _readable(directory):
        config_yaml = (directory / CONFIG).read_text(encoding="utf-8")
        tables = {
            table_name(name): in_memory(
                pd.read_parquet(directory / f"{name}.parquet"), TABLES.get(table_name(name), ())
            )
            for name in rows
        }
        rows = {table_name(name): count for name, count in rows.items()}
    for name, table in tables.items():
        if len(table) != rows[name]:
            raise UserError(
                f"expected {rows[name]} rows in {directory / name}.parquet, got {len(table)}; "
                "run it again"
            )
    return RunResult(directory=directory, tables=tables, summary=summary, config_yaml=config_yaml)


def _summary_and_rows(directory: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The headline numbers, and how many rows each table has."""
    path = directory / SUMMARY
    if not path.is_file():
        raise UserError(f"expected a finished run in {directory}, found no {SUMMARY}; run it again")
    with _readable(directory):
        summary = in_todays_words(json.loads(path.read_text(encoding="utf-8")))
        rows = dict(summary.pop("tables"))
    return summary, rows


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Whatever is wrong with a run's files, in one line."""
    try:
        yield
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


def check_writable(directory: Path) -> None:
    """Make `directory` if need be and try to write in it, before any work is done.

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
            "choose another with hydra.run.dir or hydra.sweep.dir"
        ) from error


def per_value(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects, one row per value that a direction was chosen for, named in the column `value`.

    A direction that was not chosen for any value (it was listed by its number) goes under the name
    of its component. Controls go with the value of the direction that they are the control of. A
    run of an earlier version has no column `towards`.
    """
    names = [
        list(chosen) or [f"component {component}"]
        for chosen, component in zip(effects["chosen_for"], effects["component"], strict=True)
    ]
    towards = effects.get("towards", "")
    return effects.assign(value=names, towards=towards).explode("value", ignore_index=True)


def best_places(evidence: pd.DataFrame) -> pd.DataFrame:
    """Per value and layer the row with the largest |R| on the fit split, of all positions."""
    return best_on_fit(evidence, ("value", "layer")).sort_index()


def slopes_at_best(specificity: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """A row per value that a direction is of and value changed, for the evidence's components."""
    place = ["value", *COMPONENT_COLUMNS]
    named = specificity.assign(value=specificity["direction_of"])
    return named.explode("value", ignore_index=True).merge(best_places(evidence)[place], on=place)


def plain(value: Any) -> Any:
    """`value` as what JSON knows: plain numbers, lists, NaN and infinity as None, enums by name.

    Raises:
        ValueError: something in it has no plain form.
    """
    if isinstance(value, Enum):
        return value.name
    if value is None or value is pd.NA:
        return None
    if isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    raise ValueError(
        f"expected text, numbers, lists and mappings in a summary, got {type(value).__name__}; "
        "convert it first"
    )


def _parquet_writer(table: pa.Table) -> Callable[[Path], object]:
    return lambda path: write_table(table, path)


def _text_writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which numbers inside text count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
