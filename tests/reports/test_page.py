"""The report's tables, its listing of cells and its command line; the page in test_report_page."""

import base64
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mech_arith.common.runs.records import begin
from mech_arith.evidence.columns import CELL, MADE_BY, in_memory, shown_columns
from mech_arith.evidence.columns import TABLES as COLUMNS
from mech_arith.evidence.results import load_run, load_summary, save_run
from mech_arith.evidence.verdicts import verdict
from mech_arith.reports.page import __main__ as command
from mech_arith.reports.page import write_report
from mech_arith.reports.page.build import build
from mech_arith.reports.page.cells import figure_links
from mech_arith.reports.page.compact import edited, numbers, traced
from mech_arith.reports.page.evidence import evidence_rows, headline_rows, specificity_maps
from mech_arith.reports.page.listing import Listed
from mech_arith.reports.page.unfinished import unfinished
from tests.running import SMALL, main
from tests.synthetic import save_cell
from tests.thinned import thinned

TABLES = ("sweep.parquet", "sweep_correlations.parquet", "sweep_evidence.parquet")
FILES = {*TABLES, "sweep_hypotheses.parquet", "report.html"}


def save_plan(sweep: Path, *cells: str) -> None:
    """A sweep's plan of cells that each vary the seed."""
    planned = [
        {"directory": name, "overrides": [f"problems.seed={index}"]}
        for index, name in enumerate(cells)
    ]
    plan = {"format": 1, "overrides": [], "hydra_overrides": [], "cells": planned}
    (sweep / "sweep.json").write_text(json.dumps(plan))


def report(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str | int:
    """The command line's exit code, or the message that it ends with."""
    monkeypatch.setattr(sys, "argv", ["report", *(str(argument) for argument in arguments)])
    try:
        command.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def unpacked(page: str, name: str) -> Any:
    """What the page holds under a name."""
    found = re.search(rf'id="packed-{name}"[^>]*>([^<]*)<', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_rows_of_all_cells_stand_in_one_table(tmp_path: Path) -> None:
    for index, edit in enumerate(["scale", "shift"]):
        save_cell(tmp_path / str(index), edit=edit, seed=index)
    page = write_report(tmp_path)
    assert page == tmp_path / "report.html"
    rows = pd.read_parquet(tmp_path / "sweep.parquet")
    for index in range(2):
        run = load_run(tmp_path / str(index))
        of_cell = rows[rows["cell"] == str(index)].reset_index(drop=True)
        assert of_cell["prompt"].isna().all()
        of_cell = in_memory(of_cell, COLUMNS["effects"])
        assert set(run.summary["cell"]) <= {column.name for column in CELL}
        effects = run.tables["effects"].drop(columns=[column.name for column in MADE_BY])
        pd.testing.assert_frame_equal(of_cell[list(effects)], effects)
        assert set(of_cell["identity"]) == {run.summary["identity"]}
        assert set(of_cell["command"]) == {run.summary["command"]}
        assert set(of_cell["layers"]) == {"all"}
        assert of_cell["seed"].tolist() == [index] * len(effects)
    key = ["cell", "layer", "point", "position", "direction", "arm", "strength"]
    assert not rows.duplicated(key).any()
    correlations = pd.read_parquet(tmp_path / "sweep_correlations.parquet")
    assert len(correlations) == 2 * 4 * 15 * 10 * 5
    assert list(correlations)[:3] == ["cell", "identity", "command"]
    assert not list(tmp_path.glob(".*"))


def test_every_swept_override_is_a_column_and_part_of_the_label(tmp_path: Path) -> None:
    """Cells that differ in the strengths alone have the same model, template and edit."""
    for index in range(2):
        save_cell(tmp_path / str(index))
    save_plan(tmp_path, "0", "1")
    plan = json.loads((tmp_path / "sweep.json").read_text())
    for cell, strengths in zip(plan["cells"], ("[0,1]", "[2]"), strict=True):
        cell["overrides"] = ["problems.n=60", f"intervention.strengths={strengths}"]
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for name in TABLES:
        rows = pd.read_parquet(tmp_path / name)
        found = rows.groupby("cell")["swept.intervention.strengths"].unique()
        assert [list(of_cell) for of_cell in found] == [["[0,1]"], ["[2]"]]
        assert "swept.problems.n" not in rows
    overview = unpacked(page, "overview")
    assert [cell["fields"]["intervention.strengths"] for cell in overview["cells"]] == [
        "[0,1]",
        "[2]",
    ]


def test_columns_that_a_run_lacks_are_missing_in_its_rows_alone(tmp_path: Path) -> None:
    save_cell(tmp_path / "new")
    old = load_run(save_cell(tmp_path / "old"))
    tables = {
        "correlations": old.tables["correlations"].drop(columns="r_passed"),
        "effects": old.tables["effects"].drop(columns=["mean_shift", "identity"]),
    }
    tables["effects"] = tables["effects"].assign(extra=7, n=200.0)
    summary = {name: old.summary[name] for name in ("cell", "best", "largest_drop")}
    save_run(tmp_path / "old", tables={}, summary=summary, config_yaml="")
    rows = {name: len(table) for name, table in tables.items()}
    (tmp_path / "old" / "summary.json").write_text(json.dumps({**summary, "tables": rows}))
    for name, table in tables.items():
        table.to_parquet(tmp_path / "old" / f"{name}.parquet")
    write_report(tmp_path)
    rows = pd.read_parquet(tmp_path / "sweep.parquet").set_index("cell")
    assert rows.loc["old", "mean_shift"].isna().all()
    assert rows.loc["new", "mean_shift"].notna().all()
    assert set(rows.loc["old", "extra"]) == {7}
    assert rows.loc["new", "extra"].isna().all()
    assert rows.loc["old", "identity"].isna().all()
    correlations = pd.read_parquet(tmp_path / "sweep_correlations.parquet").set_index("cell")
    assert correlations.loc["old", "r_passed"].isna().all()
    assert set(pd.read_parquet(tmp_path / "sweep_evidence.parquet")["cell"]) == {"new"}


def test_a_run_whose_columns_do_not_fit_is_damaged_and_the_others_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        save_cell(tmp_path / str(index), seed=index)
    path = tmp_path / "0" / "effects.parquet"
    pd.read_parquet(path).assign(reason=7).to_parquet(path)
    assert report(monkeypatch, tmp_path) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(r"columns of the same kinds .*reason.* in .*0/effects\.parquet; leave", said)
    for name in TABLES:
        assert set(pd.read_parquet(tmp_path / name)["cell"]) == {"1", "2"}


@pytest.mark.slow
def test_a_real_run_without_edits_and_one_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(monkeypatch, tmp_path, *SMALL, "intervention=scale,none", sweep=True) == 0
    write_report(tmp_path / "run")
    effects = load_run(tmp_path / "run" / "0").tables["effects"]
    assert len(pd.read_parquet(tmp_path / "run" / "sweep.parquet")) == len(effects) > 0
    correlations = pd.read_parquet(tmp_path / "run" / "sweep_correlations.parquet")
    assert set(correlations["cell"]) == {"0", "1"}
    commands = correlations.groupby("cell")["command"].first()
    assert "intervention=none" in commands["1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (
            *(f"intervention.controls.{name}=0" for name in ("random", "span")),
            *(f"intervention.controls.{name}=false" for name in ("other", "shuffled")),
        ),
        ("intervention=interchange", "intervention.strengths=[1]", "intervention.values=[b-c]"),
        (
            *("intervention=set", "intervention.strengths=[1]"),
            *("intervention.components=[1]", "intervention.values=[a]"),
        ),
    ],
    ids=["no controls", "one value", "another component"],
)
def test_a_real_run_of_fewer_edits_is_whole_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    assert main(monkeypatch, tmp_path, *SMALL, "layers=late", *overrides) == 0
    assert (tmp_path / "run" / "figures" / "evidence.png").is_file()
    assert write_report(tmp_path / "run").is_file()


def test_a_kill_leaves_the_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cell(tmp_path / "0")
    write_report(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("mech_arith.reports.page.build.render", killed)
    save_cell(tmp_path / "1", seed=1)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    assert not list(tmp_path.glob(".*"))


def test_cells_without_a_result_are_named_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cell(tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.txt").write_text("expected this, got that\nTraceback: line 1\n")
    save_plan(tmp_path, "0", "1", "2")
    assert report(monkeypatch, tmp_path) == 0
    assert "3 cells" in capsys.readouterr().out
    assert set(pd.read_parquet(tmp_path / "sweep.parquet")["cell"]) == {"0"}


def test_a_sweep_without_any_result_is_reported_all_the_same(tmp_path: Path) -> None:
    save_plan(tmp_path, "0", "1")
    assert "packed-overview" in write_report(tmp_path).read_text(encoding="utf-8")
    for name in TABLES:
        rows = pd.read_parquet(tmp_path / name)
        assert rows.empty
        assert {"cell", "identity", "command", "layer", "position", "component"} <= set(rows)


def test_a_damaged_run_is_named_and_the_others_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        save_cell(tmp_path / str(index), seed=index)
    (tmp_path / "1" / "effects.parquet").write_bytes(b"PAR1")
    (tmp_path / "2" / "summary.json").write_text('{"tables": {}}')
    assert report(monkeypatch, tmp_path) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line[:7] for line in said] == ["error: "] * 2
    assert str(tmp_path / "1") in said[0]
    assert str(tmp_path / "2") in said[1]
    assert set(pd.read_parquet(tmp_path / "sweep.parquet")["cell"]) == {"0"}


def _with(name: str, wrong: object) -> Callable[[dict[str, Any]], str]:
    return lambda summary: json.dumps(summary | {name: wrong})


DAMAGES = [
    _with("baseline_accuracy", float("nan")),
    _with("cell", None),
    _with("cell", {}),
    _with("best", {"a": "0.9"}),
    _with("best", {"a": {"abs_r": "high", "layer": 0, "component": 0}}),
    _with("best", ["a"]),
    _with("largest_drop", {"a": {}}),
    _with("largest_drop", {"a": None}),
    lambda summary: "[1]",
]


@pytest.mark.parametrize("damage", thinned(DAMAGES, 3))
def test_a_run_with_a_wrong_summary_is_damaged_and_the_others_reported(
    damage: Callable[[dict[str, Any]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for index in range(2):
        save_cell(tmp_path / str(index), seed=index)
    path = tmp_path / "1" / "summary.json"
    path.write_text(damage(json.loads(path.read_text())))
    assert report(monkeypatch, tmp_path) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: expected")
    assert str(tmp_path / "1") in said
    assert set(pd.read_parquet(tmp_path / "sweep.parquet")["cell"]) == {"0"}


@pytest.mark.parametrize("text", thinned(["", "a: [", "7", "\x00"], ["a: ["]))
def test_a_run_whose_overrides_are_damaged_is_reported(text: str, tmp_path: Path) -> None:
    """As a run of an earlier version, which recorded none but Hydra's."""
    save_cell(tmp_path / "0")
    (tmp_path / "0" / ".hydra").mkdir()
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text(text)
    write_report(tmp_path)
    assert set(pd.read_parquet(tmp_path / "sweep.parquet")["cell"]) == {"0"}


def test_runs_and_sweeps_from_several_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["first/0", "first/1", "second/0", "single", "first/.superseded/0"]:
        save_cell(tmp_path / name)
    places = [tmp_path / name for name in ("first", "second", "single", "first/1")]
    assert report(monkeypatch, *places, "--out", tmp_path / "out") == 0
    rows = pd.read_parquet(tmp_path / "out" / "sweep.parquet")
    assert list(dict.fromkeys(rows["cell"])) == ["first/0", "first/1", "second/0", "single"]


def test_a_folder_of_links_to_runs_is_reported_under_the_links_names(tmp_path: Path) -> None:
    save_cell(tmp_path / "far" / "2026" / "0")
    save_cell(tmp_path / "far" / "sweep" / "0", seed=1)
    save_plan(tmp_path / "far" / "sweep", "0", "1")
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "before").symlink_to(tmp_path / "far" / "2026" / "0")
    (tmp_path / "chosen" / "after").symlink_to(tmp_path / "far" / "sweep")
    built = build(tmp_path / "chosen", [tmp_path / "chosen"])
    assert [(cell.name, cell.status) for cell in built.cells] == [
        ("after/0", "done"),
        ("after/1", "missing"),
        ("before", "done"),
    ]


def test_a_single_run_is_reported_on_in_its_directory(tmp_path: Path) -> None:
    write_report(save_cell(tmp_path / "run"))
    assert set(pd.read_parquet(tmp_path / "run" / "sweep.parquet")["cell"]) == {"run"}


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["missing"], "error: expected a directory of runs, got .*missing'; give one that exists"),
        (["empty"], "error: expected finished runs in .*empty, found none; give a run or a sweep"),
        (["run", "empty"], "error: expected --out with several directories, got none; say where"),
        (["run", "--out", "file"], "error: expected a directory for the report .* --out"),
        (["run", "--out", "file/below"], "error: expected a directory for the report .* --out"),
    ],
)
def test_bad_input_ends_in_one_line(
    places: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_cell(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    end = report(monkeypatch, *places)
    assert isinstance(end, str)
    assert "\n" not in end
    assert re.match(said, end)


def test_help_answers_at_once() -> None:
    program = [sys.executable, "-m", "mech_arith.reports.page", "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert "report.html" in shown
    code = "import sys, mech_arith.reports.page.__main__; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "pyarrow", "jinja2", "plotly"} & set(loaded.stdout.split())


def test_the_best_component_is_chosen_on_the_fit_split() -> None:
    """Worked out by hand: component 1 is best on the fit split, component 0 on the report split."""
    rows = pd.DataFrame(
        {
            "layer": [4, 4],
            "point": "resid_post",
            "position": "last",
            "head": "",
            "position_index": 5,
            "token": "=",
            "component": [0, 1],
            "rank": 1,
            "value": "b-c",
            "r": [0.9, -0.8],
            "r_fit": [0.6, -0.7],
            "explained_variance": [0.5, np.nan],
        }
    )
    found = traced(rows, "last")
    assert found["best"]["r"] == [[-0.8]]
    assert found["best"]["component"] == [[1]]
    assert found["map"] is None
    (site,) = found["sites"]
    assert site["r"] == [[[0.9, -0.8]]]
    assert site["best"] == [[1]]
    assert site["variance"] == [[0.5, None]]
    assert site["r_passed"] == [[[None, None]]]  # this table has no such column


@pytest.mark.parametrize(
    ("asked", "sites"), [("3", ["3"]), ("each", list("0123")), ("all", ["all"])]
)
def test_a_cell_shows_the_positions_that_it_asks_for(asked: str, sites: list[str]) -> None:
    """The map of single positions stands beside them; an index is in it too."""
    places = [("all", -1), *((str(index), index) for index in range(4))]
    if asked != "all":
        del places[0]
    names, indices = zip(*places, strict=True)
    rows = pd.DataFrame(
        {
            "layer": 0,
            "point": "resid_post",
            "position": names,
            "head": "",
            "position_index": indices,
            "token": "=",
            "component": 0,
            "rank": 1,
            "value": "b-c",
            "r": np.linspace(0.9, 0.1, len(places)),  # the first is the strongest
            "r_fit": np.linspace(0.9, 0.1, len(places)),
            "explained_variance": 0.5,
        }
    )
    found = traced(rows, asked)
    assert [site["position"] for site in found["sites"]] == sites
    assert found["best"]["position"] == [[sites[0]]]
    assert found["map"]["positions"] == [0, 1, 2, 3]


def test_one_cell_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cell(tmp_path / "0")
    assert report(monkeypatch, tmp_path) == 0
    assert capsys.readouterr().out.startswith("1 cell: ")


def test_the_line_of_a_value_is_the_direction_that_costs_most() -> None:
    rows = [
        {
            "layer": 0,
            "point": "resid_post",
            "position": "all",
            "head": "",
            "component": component,
            "rank": 1,
            "arm": arm,
            "chosen_for": ("a", "b-c") if component == 0 else ("b-c",),
            "edit": "scale",
            "strength": strength,
            "strength_unit": "factor r",
            "n": 200,
            "accuracy_drop": drop,
            "status": "failed" if drop is None else "ok",
        }
        for component, arm, strength, drop in [
            (0, "target", 2.0, 0.3),
            (0, "target", -1.0, 0.1),
            (0, "control", 2.0, 0.05),
            (0, "control", -1.0, None),
            (1, "target", 2.0, 0.7),
            (1, "control", 2.0, 0.02),
        ]
    ]
    found = edited(pd.DataFrame(rows))
    lines = {line["value"]: line for line in found["lines"]}
    assert found["failed"] == 1
    assert found["values"] == ["a", "b-c"]
    assert lines["a"]["strengths"] == [-1.0, 2.0]
    assert lines["a"]["drop"] == [0.1, 0.3]
    assert lines["a"]["control"] == [None, 0.05]
    assert lines["b-c"]["component"] == 1
    assert lines["b-c"]["drop"] == [0.7]
    assert lines["b-c"]["n"] == 200


def test_the_line_of_a_target_alone_with_its_interval() -> None:
    """Two values of one component are rows of their own; other controls are no line."""
    rows = [
        {
            "layer": 0,
            "point": "resid_post",
            "position": "all",
            "head": "",
            "component": 0,
            "rank": 1,
            "arm": arm,
            "chosen_for": (value,),
            "edit": "set",
            "strength": 1.0,
            "strength_unit": "share of the way",
            "n": 200,
            "accuracy_drop": drop,
            "accuracy_drop_low": drop - 0.1,
            "accuracy_drop_high": drop + 0.1,
            "status": "ok",
        }
        for value, arm, drop in [
            ("a", "target", 0.3),
            ("a", "control", 0.05),
            ("a", "span", 0.9),
            ("b-c", "shuffled", 0.9),
            ("b-c", "target", 0.7),
            ("b-c", "control", 0.02),
        ]
    ]
    lines = {line["value"]: line for line in edited(pd.DataFrame(rows))["lines"]}
    assert (lines["a"]["drop"], lines["a"]["control"]) == ([0.3], [0.05])
    assert (lines["b-c"]["drop"], lines["b-c"]["control"]) == ([0.7], [0.02])
    assert (lines["a"]["drop_low"], lines["a"]["drop_high"]) == ([0.2], [0.4])
    assert lines["b-c"]["control_high"] == [0.12]


def test_evidence_is_short_and_without_what_was_not_asked() -> None:
    table = pd.DataFrame(
        {
            "value": ["b", "c"],
            "layer": [0, 0],
            "position": "all",
            "head": "",
            "component": [1, 2],
            "rank": 1,
            "r": [0.123456, np.nan],
            "p_holm": [0.00001, 0.2],
            "iia": None,
            "least_partial_given": ["c", ""],
            "partial_r_undefined": "",
            "r_counts": [True, False],
            "slope_counts": [None, None],
            "point": "resid_post",
        }
    )
    place = {"layer": 0, "point": "resid_post", "position": "all", "head": ""}
    assert evidence_rows(table) == [
        {"value": "b", **place, "component": 1, "rank": 1, "r": 0.1235, "p_holm": 0.0}
        | {"least_partial_given": "c", "judged": {"r": "finding"}},
        {"value": "c", **place, "component": 2, "rank": 1, "r": None, "p_holm": 0.2}
        | {"least_partial_given": None, "judged": {"r": "chance"}},
    ]
    assert evidence_rows(pd.DataFrame()) == []


def test_the_headline_of_a_value_is_chosen_on_the_fit_split() -> None:
    """Worked out by hand: layer 1 is best for b on the fit split, layer 0 on the report split."""
    rows = [
        {"value": value, "layer": layer, "r_fit": r_fit, "r": r}
        for value, layer, r_fit, r in [
            ("b", 0, 0.5, 0.9),
            ("b", 1, -0.6, -0.4),
            ("c", 0, 0.3, 0.7),
            ("c", 1, None, None),
        ]
    ]
    found = [(row["value"], row["layer"]) for row in headline_rows(rows, {})]
    assert found == [("c", 0), ("b", 1)]


def test_a_summary_stands_in_for_the_evidence_of_an_earlier_version() -> None:
    best = {
        "b": {"r": -0.9, "layer": 2, "component": 1, "position": "all", "head": "", "p_holm": 0.2}
    }
    excess = {"b": {"excess_drop": 0.3, "excess_low": 0.1, "excess_counts": True, "layer": 2}}
    (row,) = headline_rows([], {"best": best, "excess_drop": excess, "counterfactual": {}})
    assert (row["value"], row["layer"], row["r"], row["excess_drop"]) == ("b", 2, -0.9, 0.3)
    assert row["judged"] == {"excess_drop": "finding"}
    assert headline_rows([], {}) == []


def test_the_headline_of_a_value_is_the_row_of_its_verdict() -> None:
    best = {
        "layer": 3,
        "position": "all",
        "head": "",
        "component": 1,
        "rank": 1,
        "r": -0.6,
        "slope": 0.5,
        "held": True,
    }
    counts = {"r_counts": True, "slope_counts": False, "used": False, "shared_with": ""}
    said = {"text": "b: held in layer 3; used nowhere", "best": {**best, **counts}}
    (row,) = headline_rows([{"value": "b", "layer": 0, "r_fit": 0.9}], {"verdicts": {"b": said}})
    assert (row["layer"], row["r"], row["verdict"]) == (3, -0.6, "held, not used")
    assert row["judged"] == {"r": "finding", "slope": "chance"}
    assert row["sentence"] == "b: held in layer 3; used nowhere"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"held": True, "shared_with": "", "used": True}, "held, used"),
        ({"held": True, "shared_with": "c", "used": False}, "with c, not used"),
        ({"held": True, "shared_with": "", "used": None}, "held, use unknown"),
        ({"held": np.True_, "shared_with": "", "used": np.nan}, "held, use unknown"),
        ({"held": False, "shared_with": "", "used": False}, "not held"),
        ({}, ""),
    ],
)
def test_a_verdict_in_few_words(row: dict[str, Any], said: str) -> None:
    assert verdict(row) == said


@pytest.mark.slow
def test_every_column_of_the_evidence_that_is_shown_is_one_that_a_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is misspelt would never be shown."""
    overrides = ("intervention=interchange", "layers=late", "problems.n=60")
    assert main(monkeypatch, tmp_path, *SMALL, *overrides) == 0
    evidence = load_run(tmp_path / "run").tables["evidence"]
    for column in shown_columns():
        names = {*column.needed, *column.texts, *([column.counts] if column.counts else [])}
        assert names <= set(evidence), column.name


def test_specificity_is_of_the_place_that_is_best_on_the_fit_split() -> None:
    evidence = pd.DataFrame(
        {
            "value": "b",
            "layer": 3,
            "point": "resid_post",
            "position": ["0", "1"],
            "head": "",
            "component": [4, 5],
            "rank": 1,
            "r_fit": [0.5, -0.6],
        }
    )
    rows = pd.DataFrame(
        {
            "direction_of": [("b",), ("b", "c"), ("b", "c")],
            "layer": 3,
            "point": "resid_post",
            "position": ["0", "1", "1"],
            "head": "",
            "component": [4, 5, 5],
            "rank": 1,
            "changed": ["b", "b", "a-b"],
            "slope": [0.1, 0.9, -0.2],
            "slope_low": 0.0,
            "slope_high": np.nan,
            "iia": 0.5,
            "n": 20,
        }
    )
    (found,) = specificity_maps(rows, evidence)
    assert (found["layer"], found["directions"], found["changed"]) == (3, ["b"], ["b", "a-b"])
    assert found["slope"] == [[0.9, -0.2]]
    assert found["slope_high"] == [[None, None]]
    assert (found["component"], found["position"], found["n"]) == ([5], ["1"], 20)
    assert specificity_maps(pd.DataFrame(), evidence) == []


def test_an_unfinished_cell_says_its_design(tmp_path: Path) -> None:
    overrides = ("problems.design=decorrelated", "problems.decorrelate=b-c")
    cell = Listed("1", tmp_path, "missing", "", "", overrides)
    assert unfinished(cell)[0] == {"design": "decorrelated b-c"}
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    path.write_text("problems: {design: uniform, decorrelate: null}")
    assert unfinished(replace(cell, overrides=()))[0]["design"] == "uniform"


def test_an_unfinished_cell_names_its_layers_as_a_finished_one_does(tmp_path: Path) -> None:
    cell = Listed("1", tmp_path, "killed", "", "", ())
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    layers = {"part": "all", "start": None, "stop": None, "step": 5, "list": None}
    for own, name in (
        ({}, "all, step 5"),
        ({"start": 2, "step": 1}, "all, start 2"),
        ({"list": [0, 1, 2, 5]}, "0-2, 5"),
    ):
        path.write_text(json.dumps({"layers": layers | own}))
        assert unfinished(cell)[0]["layers"] == name
    begin(tmp_path, "id", {}, [], {"layers": "0-29, every 5th"})
    assert unfinished(cell)[0]["layers"] == "0-29, every 5th"


def test_one_example_is_one_shot(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    config = {"model": {"kind": "language_model"}, "prompt": {"style": "chat", "shots": 1}}
    (tmp_path / ".hydra" / "config.yaml").write_text(json.dumps(config))
    assert unfinished(Listed("1", tmp_path, "killed", "", "", ()))[0]["prompt"] == "chat, 1 shot"


def test_numbers_are_short_and_never_stand_in_for_missing_ones() -> None:
    assert numbers(np.array([[0.123456, np.nan], [np.inf, -1.0]])) == [[0.1235, None], [None, -1.0]]


@pytest.mark.slow
def test_a_killed_cell_has_the_name_that_it_has_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_weights = ["intervention=shift", "intervention.via=weights", "intervention.components=[0]"]
    by_weights += ["tracing=pca_last", "tracing.point=mlp_out", "layers.start=2", "layers.stop=3"]
    by_weights += ["intervention.controls.other=false", "intervention.controls.shuffled=false"]
    assert main(monkeypatch, tmp_path, *SMALL, *by_weights) == 0
    run = tmp_path / "run"
    expected = load_summary(run)["cell"]
    assert expected["edit"] == "shift by weights"
    (run / "summary.json").unlink()
    assert unfinished(Listed("run", run, "killed", "", "", None))[0] == expected
    # Nor is one forgotten that has left no record, but what Hydra has composed.
    (run / "cell.json").unlink()
    assert unfinished(Listed("run", run, "killed", "", "", None))[0]["edit"] == "shift by weights"


def test_figures_are_named_by_where_they_lie_from_the_page(tmp_path: Path) -> None:
    run, page = tmp_path / "sweep #1" / "0", tmp_path / "report"
    assert figure_links(run, page) == []
    (run / "figures").mkdir(parents=True)
    for name in ("positions.png", "positions.svg", "own.svg", "own.pdf", "effects.csv"):
        (run / "figures" / name).touch()
    assert figure_links(run, page) == [
        ["own", "../sweep%20%231/0/figures/own.svg"],
        ["positions", "../sweep%20%231/0/figures/positions.png"],
    ]
