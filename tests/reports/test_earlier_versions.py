"""Runs of an earlier version are read, reported and compared under today's names.

tests/data/sweep_of_0_1.tar.xz holds the tables, summaries and records of two cells as commit
7dc64ae wrote them:

    python -m mech_arith -m template=difference_of_two problems.n=60 layers=late \\
      tracing.n_components=2 intervention=interchange,scale inference.permutations=100 \\
      inference.resamples=100 wandb=disabled
"""

import tarfile
from pathlib import Path

import pandas as pd
import pytest

from mech_arith.evidence.columns import TABLES
from mech_arith.evidence.results import load_run
from mech_arith.reports.figures import cell_figures, heading
from mech_arith.reports.page.build import build, build_comparison
from mech_arith.reports.table import comparison, evidence
from mech_arith.reports.terminal import print_cells
from tests.running import SMALL, main

SAVED = Path(__file__).parents[1] / "data" / "sweep_of_0_1.tar.xz"

VALUES = ("a", "b", "a-b")

NO_LONGER_WRITTEN = {"agreement_p", "pass_rate"}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The sweep of an earlier version; cell 0 is an interchange, cell 1 scales."""
    with tarfile.open(SAVED) as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    assert "agreement" in pd.read_parquet(tmp_path / "earlier" / "0" / "evidence.parquet")
    return tmp_path / "earlier"


@pytest.mark.parametrize("cell", ["0", "1"])
def test_tables_have_todays_names(earlier: Path, cell: str) -> None:
    tables = load_run(earlier / cell).tables
    assert "off_distribution" in tables
    for name, table in tables.items():
        unknown = set(table) - {column.name for column in TABLES[name]}
        assert unknown <= NO_LONGER_WRITTEN
    assert set(tables["effects"]["target_value"]) == (set(VALUES) if cell == "0" else {""})


def test_numbers_are_found_under_todays_names(earlier: Path) -> None:
    as_written = pd.read_parquet(earlier / "0" / "evidence.parquet")
    run = load_run(earlier / "0")
    rows = run.tables["evidence"]
    for name, was in (("iia", "agreement"), ("iia_p_holm", "agreement_p_holm")):
        assert rows[name].tolist() == as_written[was].tolist()
    at_2 = rows.loc[rows["layer"] == 2].set_index("value")
    assert at_2["verdict"].to_dict() == {
        "a": "not held",
        "b": "with a-b, used",
        "a-b": "held, used",
    }
    assert {"iia", "iia_low", "floor", "slope"} <= set(run.summary["counterfactual"]["a-b"])
    assert set(run.summary["missing"]) == {"excess_drop", "iia", "partial_r"}


def test_they_are_reported(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = build(earlier, [earlier])
    assert len(built.cells) == 2
    assert not built.damaged
    joined = pd.read_parquet(earlier / "sweep_evidence.parquet")
    assert joined["iia"].notna().sum() == 6  # 3 values in 2 layers of the interchange
    assert {name for name in joined if name.startswith("agreement")} <= NO_LONGER_WRITTEN
    print_cells([earlier / "0", earlier / "1"])
    printed = capsys.readouterr().out
    assert "follows 1.14 [.96, 1.32] in layer 2; random .00" in printed
    assert "IIA .00 [.00, .14]; chance .00, whole .00" in printed


def test_they_are_drawn(earlier: Path) -> None:
    run = load_run(earlier / "0")
    drawn = cell_figures(run.tables, **heading(run.summary))
    assert {"counterfactual", "evidence", "specificity", "dose_response"} <= set(drawn)


@pytest.mark.parametrize("name", ["iia", "agreement"])
def test_a_table_for_a_paper_takes_either_name(earlier: Path, name: str) -> None:
    table = evidence([earlier / "0"], [name, "verdict"])
    assert [heading.title for heading in table.headings][2:] == ["IIA", "verdict"]
    assert len(table.rows) == 6


@pytest.mark.slow
def test_they_are_compared_with_runs_of_today(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = (
        "template=difference_of_two",
        "layers=late",
        "tracing.n_components=2",
        "tracing.position_map=false",
    )
    edit = ("intervention=interchange", "intervention.strengths=[1]")
    assert main(monkeypatch, tmp_path, *SMALL, *alike, *edit) == 0
    build_comparison(tmp_path / "out", earlier / "0", tmp_path / "run")
    found = pd.read_parquet(tmp_path / "out" / "comparison.parquet")
    counted = found.groupby("quantity").size().to_dict()
    of_each_value_and_layer = ("abs_r", "iia", "slope", "excess_drop", "accuracy_drop")
    assert counted == {"baseline_accuracy": 1, **dict.fromkeys(of_each_value_and_layer, 6)}
    table = comparison(earlier / "0", tmp_path / "run", ["iia"])
    assert len(table.rows) == 6
