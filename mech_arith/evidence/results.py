"""What a run leaves on disk: tables and headline numbers, saved whole or not at all."""

import contextlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetFile, write_table

from mech_arith.common.atomic import atomic
from mech_arith.common.errors import UserError
from mech_arith.common.paths import SUMMARY
from mech_arith.common.runs.directories import check_writable, readable, summary_and_rows
from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_places
from mech_arith.evidence.columns import (
    RENAMED_TABLES,
    TABLES,
    adopt,
    completed,
    conformed,
    in_memory,
    in_todays_words,
    table_name,
)
from mech_arith.interventions.controls import TARGET
from mech_arith.interventions.edits.base import WHOLE_WAY

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
    keep: Callable[[], bool] = lambda: False,
) -> None:
    """Save a run into `directory`, which is made if it is not there.

    Everything is first written under temporary names, so a full disk or a kill leaves an earlier
    run in the directory as it was. Only then are the files renamed, the summary last. The summary
    file also counts the rows of each table (`tables`), so that a table left by an earlier run in
    the same directory is never taken for one of this run.

    Args:
        directory: where.
        tables: by name.
        summary: headline numbers.
        config_yaml: the resolved configuration.
        keep: asked when all is written and nothing renamed: whether what is there is kept, for
            another process has saved the same run meanwhile.

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

    def gone() -> None:
        # From here to the last rename the directory holds no whole run, and says so.
        if keep():
            raise _KeptError
        (directory / SUMMARY).unlink(missing_ok=True)

    with (
        contextlib.suppress(_KeptError),
        atomic(*(directory / name for name in writers), before=gone) as temporary_paths,
    ):
        for path, write in zip(temporary_paths, writers.values(), strict=True):
            write(path)


class _KeptError(Exception):
    """What is there is kept."""


def table_file(directory: Path, name: str) -> Path:
    """The file of a table, which a run of an earlier version may have under another name."""
    earlier = [was for was, now in RENAMED_TABLES.items() if now == name]
    paths = [directory / f"{one}.parquet" for one in (name, *earlier)]
    return next((path for path in paths if path.is_file()), paths[0])


def adopt_columns(directory: Path) -> None:
    """Know the columns that users have added to the evidence of a saved run, until the next cell.

    Reports need no plugins: each column is described in its table.
    """
    path = table_file(directory, "evidence")
    if path.is_file():
        adopt("evidence", path)


def load_summary(directory: Path) -> dict[str, Any]:
    """Read back the headline numbers of a saved run alone.

    Raises:
        UserError: there is no whole run in `directory`, or its summary is damaged.
    """
    return in_todays_words(summary_and_rows(directory)[0])


def load_run(directory: Path, *, tables: Collection[str] | None = None) -> RunResult:
    """Read a saved run back.

    Args:
        directory: of the run.
        tables: which to read, where they are there; all by default. Of the others the rows alone
            are counted.

    Raises:
        UserError: there is no whole run in `directory`, or one of its files is damaged.
    """
    found, rows = summary_and_rows(directory)
    summary = in_todays_words(found)
    with readable(directory):
        config_yaml = (directory / CONFIG).read_text(encoding="utf-8")
        read: dict[str, pd.DataFrame] = {}
        for name, count in rows.items():
            path, today = directory / f"{name}.parquet", table_name(name)
            with ParquetFile(path) as file:
                n_rows = file.metadata.num_rows
                if tables is None or today in tables:
                    # Of one file pandas' own way takes twice as long.
                    read[today] = _in_todays_words(today, file.read().to_pandas())
            if n_rows != count:
                raise UserError(f"expected {count} rows in {path}, got {n_rows}; run it again")
    return RunResult(directory=directory, tables=read, summary=summary, config_yaml=config_yaml)


def _in_todays_words(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as it was read, with the columns that follow from its rows, in any version."""
    if name not in TABLES:
        return table
    return completed(name, in_memory(table, TABLES[name]))


def per_value(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects, one row per value that a direction was chosen for, named in the column `value`.

    A direction that was not chosen for any value (it was listed by its number) goes under the name
    of its component. Controls go with the value of the direction that they are the control of. A
    run of an earlier version has no column `target_value`.
    """
    names = [
        list(chosen) or [f"component {component}"]
        for chosen, component in zip(effects["chosen_for"], effects["component"], strict=True)
    ]
    targets = effects.get("target_value", "")
    return effects.assign(value=names, target_value=targets).explode("value", ignore_index=True)


def slopes_at_best(specificity: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """A row per value that a direction is of and value changed, for the evidence's components."""
    place = ["value", *COMPONENT_COLUMNS]
    named = specificity.assign(value=specificity["direction_of"])
    return named.explode("value", ignore_index=True).merge(best_places(evidence)[place], on=place)


def tokens_at_best(answer_tokens: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """A row per value, layer and token of the answer, for the evidence's components: the whole way
    to the value.
    """
    place = ["value", *COMPONENT_COLUMNS]
    whole = (answer_tokens["arm"] == TARGET) & (answer_tokens["strength"] == WHOLE_WAY)
    return answer_tokens.loc[whole].merge(best_places(evidence)[place], on=place)


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
