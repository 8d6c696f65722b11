"""A user's own column, and columns that were renamed: in every place that is made from the list."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mech_arith.common.errors import UserError
from mech_arith.common.registry import without_additions
from mech_arith.evidence.columns import NUMBER, TABLES, Column, completed, dictionary, registry
from mech_arith.evidence.columns import register_column as register
from mech_arith.evidence.results import load_run, load_summary, save_run
from mech_arith.evidence.summary import verdict_summary
from mech_arith.reports.page.build import build, build_comparison
from mech_arith.reports.terminal import cell_table
from mech_arith.reports.wandb.metrics import by_layer, headline, x_axes
from tests.synthetic import save_cell


def certainty(row: Mapping[Any, Any]) -> float:
    return abs(row["r"]) - 0.5


OWN = Column(
    "certainty",
    NUMBER,
    "How far |R| is above one half.",
    label="|R| above .5",
    is_headline=True,
    is_compared=True,
    is_curve=True,
    is_logged=True,
    of=certainty,
)


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry, as it was before the test when it is over."""
    monkeypatch.setattr(registry, "_BUILT_IN", dict(registry._BUILT_IN))
    monkeypatch.setattr(registry.OWN, "own", {})
    with without_additions():
        yield


def evidence(directory: Path) -> pd.DataFrame:
    """The evidence of a saved synthetic cell."""
    save_cell(directory)
    return load_run(directory).tables["evidence"]


def resaved(directory: Path, table: pd.DataFrame) -> None:
    """The cell again, with another table of evidence and the summary that follows from it."""
    run = load_run(directory)
    summary = {**run.summary, "verdicts": verdict_summary(table)}
    tables = {**run.tables, "evidence": table}
    save_run(directory, tables=tables, summary=summary, config_yaml=run.config_yaml)


@pytest.mark.usefixtures("columns")
def test_an_own_column_is_everywhere_without_another_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = evidence(tmp_path / "0")
    register("evidence", OWN)
    finished = completed("evidence", table)
    assert finished["certainty"].tolist() == [abs(r) - 0.5 for r in table["r"]]
    resaved(tmp_path / "0", finished)
    field = pq.read_schema(tmp_path / "0" / "evidence.parquet").field("certainty")
    assert str(field.type) == "double"

    summary = load_summary(tmp_path / "0")
    value = next(iter(summary["verdicts"]))
    best = summary["verdicts"][value]["best"]
    assert "|R| above .5" in "".join(
        str(text) for column in cell_table(summary).columns for text in column.cells
    )
    assert any(name.endswith("/certainty") for name in headline(summary))
    assert x_axes()["certainty"] == "layer"
    correlations = pd.DataFrame(columns=["layer", "value", "position", "r_fit", "abs_r"])
    rows = by_layer(correlations, pd.DataFrame(), finished, positions="all")
    assert any(name.startswith("certainty/") for row in rows for name in row)
    assert "| `certainty` | number |  | How far \\|R\\| is above one half. |" in dictionary()

    # A report is made by another process, in which nothing is registered.
    monkeypatch.setattr(registry.OWN, "own", {})
    packed: list[Any] = []
    monkeypatch.setattr(
        "mech_arith.reports.page.page._packed_json",
        lambda data: packed.append(json.loads(json.dumps(data))) or "",
    )
    build(tmp_path / "report", [tmp_path / "0"])
    pages = next(data for data in packed if isinstance(data, dict))
    (shown,) = (column for column in pages["columns"] if column["name"] == "certainty")
    assert shown["title"] == "|R| above .5"
    assert shown["about"] == "How far |R| is above one half"
    (row,) = (row for row in pages["cells"][0]["headline"] if row["value"] == value)
    assert row["certainty"] == pytest.approx(best["certainty"])


@pytest.mark.usefixtures("columns")
@pytest.mark.parametrize(
    ("table", "column", "said"),
    [
        ("evidences", OWN, "expected a table of problems, .* got 'evidences'"),
        ("evidence", replace(OWN, of=None), "expected a function of a row as `of`"),
        ("evidence", replace(OWN, name="slope"), "expected a new name .* got 'slope'"),
        ("evidence", replace(OWN, name="a b"), "expected a new name .* got 'a b'"),
    ],
)
def test_a_column_that_cannot_be_added_is_an_error(table: str, column: Column, said: str) -> None:
    with pytest.raises(UserError, match=said):
        register(table, column)


@pytest.mark.usefixtures("columns")
@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (lambda row: row["r"] / row["n"], "ZeroDivisionError: float division by zero"),
        (lambda row: row["r"] if row["n"] else "much", "ArrowInvalid: Could not convert 'much'"),
    ],
)
def test_a_function_that_fails_costs_its_entry_and_says_so(of, reason, caplog) -> None:
    register("evidence", replace(OWN, of=of))
    table = completed("evidence", pd.DataFrame({"r": [0.5, 0.25], "n": [0, 1], "held": None}))
    assert table["certainty"].isna().tolist() == [True, False]
    assert table["certainty"].tolist()[1] == 0.25
    (said,) = caplog.messages
    assert said.startswith(
        "the column 'certainty' of evidence is null in 1 of 2 rows, where its function failed: "
        + reason
    )
    assert "\n" not in said


@pytest.mark.usefixtures("columns")
def test_a_column_that_is_registered_again_replaces_itself() -> None:
    register("evidence", OWN)
    register("evidence", replace(OWN, label="another"))
    assert [one.label for one in TABLES["evidence"] if one.name == "certainty"] == ["another"]


def _renamed(table: str, names: Mapping[str, str]) -> None:
    """Give columns of a table new names, as a new version does."""
    registry._BUILT_IN[table] = tuple(
        replace(one, name=names[one.name], was=(one.name,)) if one.name in names else one
        for one in registry._BUILT_IN[table]
    )


@pytest.mark.usefixtures("columns")
def test_a_run_of_an_earlier_version_is_read_under_todays_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = evidence(tmp_path / "0")
    save_cell(tmp_path / "1")
    for name in ("0", "1"):
        resaved(tmp_path / name, load_run(tmp_path / name).tables["evidence"])
    _renamed("evidence", {"shapley": "share", "slope": "follows"})
    _renamed("effects", {"direction": "along"})
    monkeypatch.setitem(registry.RENAMED_TABLES, "effects", "edits")
    registry._BUILT_IN["edits"] = registry._BUILT_IN.pop("effects")

    run = load_run(tmp_path / "0")
    np.testing.assert_array_equal(run.tables["evidence"]["follows"], old["slope"])
    assert "along" in run.tables["edits"]
    assert "effects" not in run.tables
    best = next(iter(run.summary["verdicts"].values()))["best"]
    assert "follows" in best
    assert "slope" not in best


@pytest.mark.usefixtures("columns")
def test_renamed_columns_are_reported_and_compared(tmp_path: Path) -> None:
    for name in ("0", "1"):
        save_cell(tmp_path / name)
    _renamed("evidence", {"shapley": "share"})
    build(tmp_path / "report", [tmp_path / "0", tmp_path / "1"])
    joined = pq.read_table(tmp_path / "report" / "sweep_evidence.parquet")
    assert "share" in joined.column_names
    assert "shapley" not in joined.column_names
    build_comparison(tmp_path / "compared", tmp_path / "0", tmp_path / "1")
