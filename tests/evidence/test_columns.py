"""A cell's tables have the same columns whatever it was asked for, and join."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mech_arith.evidence.columns import CELL, SWEPT, TABLES, conformed, in_memory, schema
from tests.running import SMALL, main

CELLS = {
    "none": ("intervention=none",),
    "scale": ("intervention=scale",),
    "interchange": (
        "intervention=interchange",
        "locality.enabled=true",
        'hypothesis.steps=["a-b", "minus_c: 0-c", "answer: a-b-minus_c"]',
        "hypothesis.rivals=[tree]",
    ),
    "ablate": ("intervention=ablate", "intervention.components=[1]"),
    "weights": ("intervention.via=weights", "tracing.point=mlp_out", "tracing.positions=last"),
    "regressing": ("model=arith_encoder", "intervention=set"),
    "heads": (
        "intervention=interchange",
        "tracing.point=z",
        "tracing.heads=[0,1]",
        "tracing.positions=last",
        "tracing.position_map=false",
    ),
    "screened": (
        "screen=attribution",
        "screen.keep=2",
        "screen.sample=10",
        "tracing.positions=each",
        "intervention=none",
    ),
    "trained": (
        "tracing=das",
        "tracing.positions=last",
        "tracing.options={steps:10,batch:8,pairs:16}",
        "intervention=none",
    ),
}
"""Cells that are asked for different things."""

FEW = (
    "layers=late",
    "layers.start=3",
    "problems.n=40",
    "intervention.strengths=[0,1]",
    "intervention.controls.valueless=1",
    "locality.n_problems=4",
    "locality.value_points=4",
    "locality.coordinate_points=6",
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Real cells of every kind, and the tables of all of them together."""
    directory = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, overrides in CELLS.items():
            assert main(monkeypatch, directory / name, *SMALL, *FEW, *overrides) == 0
    return directory


def paths_of(directory: Path, table: str) -> list[Path]:
    return sorted(directory.glob(f"*/run/{table}.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_tables_of_all_kinds_of_cells_join(mixed: Path, table: str) -> None:
    """By pyarrow as one dataset and by pandas, without a column lost or of another type."""
    paths = paths_of(mixed, table)
    assert paths
    assert all(pq.read_schema(path).equals(schema(TABLES[table])) for path in paths)
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    assert rows > 0
    dataset = ds.dataset([str(path) for path in paths]).to_table()
    assert dataset.num_rows == rows
    assert dataset.schema.equals(schema(TABLES[table]))
    frames = [pd.read_parquet(path) for path in paths]
    joined = pd.concat(frames, ignore_index=True)
    assert len(joined) == rows
    assert all(frame.dtypes.equals(joined.dtypes) for frame in frames)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_what_is_missing_is_null_and_never_empty_text_or_nan(mixed: Path, table: str) -> None:
    for path in paths_of(mixed, table):
        found = pq.read_table(path)
        for column in TABLES[table]:
            entries = found[column.name].to_pylist()
            assert "" not in entries, (path, column)
            assert not any(entry != entry for entry in entries if isinstance(entry, float))


@pytest.mark.slow
def test_every_table_has_a_file_where_it_is_asked_for(mixed: Path) -> None:
    every = {path.stem for path in mixed.glob("*/run/*.parquet")}
    assert every == set(TABLES)


@pytest.mark.slow
def test_a_filter_by_value_finds_the_rows_of_a_component_that_serves_several(mixed: Path) -> None:
    effects = pq.read_table(mixed / "scale" / "run" / "effects.parquet")
    chosen = effects["chosen_for"].to_pylist()
    shared = [values for values in chosen if len(values) > 1]
    rows = pd.read_parquet(mixed / "scale" / "run" / "effects.parquet")
    for value in {value for values in chosen for value in values}:
        wanted = sum(value in values for values in chosen)
        assert (rows.explode("chosen_for")["chosen_for"] == value).sum() == wanted > 0
    assert all(" | " not in value for values in shared for value in values)


def test_columns_are_named_once_in_plain_words() -> None:
    for name, columns in {**TABLES, "cell": CELL}.items():
        names = [column.name for column in columns]
        assert len(names) == len(set(names)), name
        for column in columns:
            assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
            assert column.meaning.endswith(".")
            assert "\n" not in column.meaning
            assert not column.name.startswith(SWEPT)


def test_kinds_are_kept_and_what_is_missing_comes_back_in_one_way(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "layer": [0, 1, 2],
            "n": [3.0, float("nan"), 4.0],
            "edit": ["scale", "", None],
            "held": [True, None, False],
            "r": [0.5, float("nan"), -1.0],
        }
    )
    pq.write_table(conformed("evidence", table), tmp_path / "x.parquet")
    read = pd.read_parquet(tmp_path / "x.parquet")
    assert [str(read[name].dtype) for name in ("layer", "n", "held", "r")] == [
        "Int64",
        "Int64",
        "boolean",
        "float64",
    ]
    usable = in_memory(read, TABLES["evidence"])
    assert usable["layer"].dtype == "int64"
    assert usable["n"].tolist() == [3, pd.NA, 4]
    assert usable["edit"].tolist() == ["scale", "", ""]
    assert usable["held"].tolist() == [True, None, False]
    assert usable["untold"].tolist() == [""] * 3
    assert usable["slope"].isna().all()


def test_lists_come_back_as_tuples(tmp_path: Path) -> None:
    table = pd.DataFrame({"layer": [0, 1], "chosen_for": [("b", "a+b"), ()]})
    pq.write_table(conformed("effects", table), tmp_path / "x.parquet")
    assert pq.read_schema(tmp_path / "x.parquet").field("chosen_for").type == pa.list_(pa.string())
    usable = in_memory(pd.read_parquet(tmp_path / "x.parquet"), TABLES["effects"])
    assert usable["chosen_for"].tolist() == [("b", "a+b"), ()]
    earlier = in_memory(pd.DataFrame({"chosen_for": ["b | a+b", ""]}), TABLES["effects"])
    assert earlier["chosen_for"].tolist() == [("b", "a+b"), ()]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pd.DataFrame({"layer": [0], "mistyped": [1]}), r"names in effects, got \['mistyped'\]"),
        (pd.DataFrame({"layer": ["0"]}), "expected WHOLE in the column layer of effects"),
        (pd.DataFrame({"layer": [0.5]}), "expected WHOLE in the column layer of effects"),
        (pd.DataFrame({"reason": [7]}), "expected TEXT in the column reason of effects"),
        (pd.DataFrame({"chosen_for": ["b | c"]}), "expected TEXTS in the column chosen_for"),
    ],
)
def test_a_column_that_is_not_named_or_of_another_kind_is_an_error(
    table: pd.DataFrame, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        conformed("effects", table)
