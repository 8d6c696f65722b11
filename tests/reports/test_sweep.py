"""A sweep read back as pandas tables."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import mech_arith
from mech_arith.common.errors import UserError
from mech_arith.evidence.results import load_run
from mech_arith.reports.page import write_report
from tests.synthetic import save_cell


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three planned cells: two have a result, the third was never started."""
    for index, edit in enumerate(["scale", "shift"]):
        save_cell(tmp_path / str(index), edit=edit, seed=index)
    cells = [
        {"directory": str(index), "overrides": [f"problems.seed={index}"]} for index in range(3)
    ]
    plan = {"format": 1, "overrides": [], "hydra_overrides": [], "cells": cells}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    return tmp_path


def test_every_cell_has_a_row_and_every_table_the_rows_of_all_cells(sweep: Path) -> None:
    found = mech_arith.read_sweep(sweep)
    assert list(found.cells["cell"]) == ["0", "1", "2"]
    assert list(found.cells["status"]) == ["done", "done", "missing"]
    assert list(found.cells["swept.problems.seed"]) == ["0", "1", "2"]
    assert found.cells["note"][2].startswith("it was never started")
    assert found.cells["command"][2] == "python -m mech_arith problems.seed=2"
    for index in range(2):
        run = load_run(sweep / str(index))
        assert found.cells["identity"][index] == run.summary["identity"]
        assert set(found.tables) == set(run.tables)
        for name, table in run.tables.items():
            rows = found.tables[name]
            own = rows[rows["swept.problems.seed"] == str(index)].reset_index(drop=True)
            pd.testing.assert_frame_equal(own[list(table)], table, check_dtype=False)


def test_it_says_what_the_tables_of_the_report_say(sweep: Path) -> None:
    write_report(sweep)
    written = pd.read_parquet(sweep / "sweep.parquet")
    read = mech_arith.read_sweep(sweep).tables["effects"]
    shared = [name for name in written.columns if name in read.columns]
    assert set(written.columns) - set(shared) <= {"heads", "hypothesis"}
    assert written["command"].tolist() == read["command"].tolist()
    assert set(read.columns) == set(shared)
    assert written["accuracy_drop"].tolist() == read["accuracy_drop"].tolist()
    assert written["cell"].tolist() == read["cell"].tolist()


def test_a_damaged_cell_says_so_and_the_others_are_read(sweep: Path) -> None:
    (sweep / "1" / "effects.parquet").write_bytes(b"nothing")
    found = mech_arith.read_sweep(sweep)
    done, damaged, missing = found.cells["status"]
    assert (done, missing) == ("done", "missing")
    assert damaged in ("damaged", "failed")
    assert set(found.tables["effects"]["cell"]) == {"0"}


def test_what_is_no_directory_is_refused() -> None:
    code = "import mech_arith; mech_arith.read_sweep(['a', 'b'])"  # here, types are enforced
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "expected directories, got ['a', 'b']; give several as read_sweep(ONE, OTHER)" in said


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected finished runs in .*, found none"):
        mech_arith.read_sweep(tmp_path)
    with pytest.raises(UserError, match="expected a directory of runs"):
        mech_arith.read_sweep(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected a directory of a sweep, got none"):
        mech_arith.read_sweep()
