import json
import os
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.runs.directories import check_writable, find_runs
from mech_arith.evidence.columns import TABLES, conformed
from mech_arith.evidence.results import load_run, per_value, plain, save_run

CORRELATIONS = pd.DataFrame({"layer": [0, 1], "value": ["a", "b-c"], "r": [0.5, float("nan")]})
EFFECTS = pd.DataFrame({"layer": [0], "status": ["failed"], "accuracy_drop": [float("nan")]})
CONFIG = "problems:\n  n: 1000\n"


def save(directory: Path, **changes: object) -> None:
    whole = {
        "tables": {"correlations": CORRELATIONS, "effects": EFFECTS},
        "summary": {"baseline_accuracy": 0.9},
        "config_yaml": CONFIG,
    }
    save_run(directory, **(whole | changes))  # pyright: ignore[reportArgumentType]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "on the way"
    summary = {"b": {"r": 0.5, "layer": 3}, "a": "text", "warnings": ["one", "two"], "none": None}
    save(directory, summary=summary)
    result = load_run(directory)
    for name, saved in (("correlations", CORRELATIONS), ("effects", EFFECTS)):
        pd.testing.assert_frame_equal(result.tables[name][list(saved)], saved)
    assert result.summary == summary
    assert result.config_yaml == CONFIG
    assert result.directory == directory
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.yaml",
        "correlations.parquet",
        "effects.parquet",
        "summary.json",
    ]


def test_a_table_without_rows_or_columns_has_all_columns(tmp_path: Path) -> None:
    save(tmp_path, tables={"effects": pd.DataFrame(), "correlations": CORRELATIONS.iloc[:0]})
    tables = load_run(tmp_path).tables
    assert tables["effects"].empty
    for name, table in tables.items():
        assert list(table.columns) == [column.name for column in TABLES[name]]


def test_the_summary_is_json_that_anything_can_read(tmp_path: Path) -> None:
    summary = {"z": float("nan"), "r": np.float32(0.5), "n": np.int64(3), "a": (np.bool_(True), 1)}
    save(tmp_path, summary=summary)
    text = (tmp_path / "summary.json").read_text()
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert parsed["z"] is None
    assert parsed["r"] == 0.5
    assert parsed["n"] == 3
    assert parsed["a"] == [True, 1]
    assert list(parsed) == sorted(parsed)


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "RED"),
        (Path("/a/b"), "/a/b"),
        (float("inf"), None),
        (np.array([1.5, np.nan]), [1.5, None]),
        ({1: {"x": np.int8(2)}}, {"1": {"x": 2}}),
        (True, True),
    ],
)
def test_plain(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_what_has_no_plain_form_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected text, numbers.*got object; convert"):
        save(tmp_path / "run", summary={"x": object()})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../escape", "", "unknown"])
def test_only_tables_whose_columns_are_named_are_saved(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a table of"):
        save(tmp_path, tables={name: EFFECTS})
    assert not list(tmp_path.iterdir())


def test_the_key_of_the_row_counts_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without the key 'tables'"):
        save(tmp_path, summary={"tables": 1})


def test_a_failure_on_the_way_leaves_the_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, summary={"baseline_accuracy": 0.1})
    assert load_run(tmp_path).summary == {"baseline_accuracy": 0.9}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
def test_a_kill_between_renames_leaves_no_run(
    renamed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new files must not pass for a whole run, nor together with the old ones."""
    save(tmp_path)
    replace, calls = os.replace, []

    def killed(source: Path, target: Path) -> None:
        if len(calls) == renamed:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path)
    assert find_runs(tmp_path) == []
    with pytest.raises(UserError, match=r"expected a finished run in .* found no summary\.json"):
        load_run(tmp_path)


def test_a_table_of_an_earlier_run_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    save(tmp_path, tables={"locality": EFFECTS[["layer"]], "correlations": CORRELATIONS})
    save(tmp_path)
    assert set(load_run(tmp_path).tables) == {"correlations", "effects"}


def test_a_damaged_table_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / "correlations.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"expected a readable run in .*; run it again$") as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_of_another_run_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    pq.write_table(
        conformed("correlations", CORRELATIONS.iloc[:1]), tmp_path / "correlations.parquet"
    )
    with pytest.raises(UserError, match=r"expected 2 rows in .*correlations\.parquet, got 1"):
        load_run(tmp_path)
    with pytest.raises(UserError, match=r"expected 2 rows in .*correlations\.parquet, got 1"):
        load_run(tmp_path, tables=["effects"])


def test_some_tables_are_read_alone(tmp_path: Path) -> None:
    save(tmp_path)
    assert set(load_run(tmp_path, tables=["effects", "locality"]).tables) == {"effects"}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tables": 3}'])
def test_a_damaged_summary_is_an_error(text: str, tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match="expected a readable run"):
        load_run(tmp_path)


def test_runs_are_found_in_natural_order(tmp_path: Path) -> None:
    for name in ["10", "2", "1", ".hidden/0"]:
        save(tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "3").mkdir()
    assert [path.name for path in find_runs(tmp_path)] == ["1", "2", "10"]
    assert find_runs(tmp_path / "sweep" / "2") == [tmp_path / "sweep" / "2"]


def test_runs_are_found_behind_links_each_once_and_in_no_circle(tmp_path: Path) -> None:
    save(tmp_path / "far" / "sweep" / "1")
    save(tmp_path / "far" / "single")
    save(tmp_path / "here" / "own")
    for name, target in {
        "a_sweep": tmp_path / "far" / "sweep",
        "single": tmp_path / "far" / "single",
        "again": tmp_path / "here" / "own",
        "circle": tmp_path / "here",
        "gone": tmp_path / "nowhere",
        ".hidden": tmp_path / "far",
    }.items():
        (tmp_path / "here" / name).symlink_to(target)
    found = [
        path.relative_to(tmp_path / "here").as_posix() for path in find_runs(tmp_path / "here")
    ]
    assert found == ["a_sweep/1", "own", "single"]


def test_runs_are_looked_for_in_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a directory of runs, got"):
        find_runs(tmp_path / "missing")


def test_a_directory_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_in_the_way_is_said_early(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"expected an output directory .*; choose another") as said:
        check_writable(tmp_path / "file" / below)
    assert "\n" not in str(said.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_without_permission_is_said_early(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        check_writable(tmp_path)


def test_effects_per_value() -> None:
    effects = pd.DataFrame(
        {
            "component": [3, 3, 5],
            "rank": 1,
            "chosen_for": [("a", "b-c"), ("a", "b-c"), ()],
            "arm": ["t", "c", "t"],
        }
    )
    table = per_value(effects)
    assert table["value"].tolist() == ["a", "b-c", "a", "b-c", "component 5"]
    assert table["arm"].tolist() == ["t", "t", "c", "c", "t"]
    assert "value" not in effects
