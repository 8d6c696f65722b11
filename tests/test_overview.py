"""The table that a run or a sweep ends with."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mech_arith.overview import cell_name, print_overview
from tests.synthetic import save_cell

WIDTH = 140


def shown(directory: Path, **changes: Any) -> list[str]:
    """The table's lines for a made-up run whose summary says something else."""
    save_cell(directory)
    path = directory / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    console = Console(width=WIDTH, record=True, force_terminal=True, file=StringIO())
    print_overview([directory], console=console)
    return console.export_text().splitlines()


def best(**changes: Any) -> dict[str, Any]:
    found = {"abs_r": 0.96, "r": -0.96, "r_low": -0.97, "r_high": -0.94, "p_holm": 0.001}
    return found | {"layer": 2, "component": 1, "position": "all"} | changes


EXCESS = {
    "excess_drop": 0.42,
    "excess_low": 0.35,
    "excess_high": 0.49,
    "excess_p_max": 0.0002,
    "target_drop": 0.45,
    "control_drop": 0.03,
}


def test_a_row_says_how_sure_its_numbers_are(tmp_path: Path) -> None:
    answered = {"agreement": 0.93, "agreement_low": 0.88, "agreement_high": 0.97}
    lines = shown(
        tmp_path,
        best={"b-c": best(), "a": best(abs_r=0.1, r=0.1, r_low=-0.1, r_high=0.3, p_holm=0.051)},
        excess_drop={"b-c": EXCESS, "a": EXCESS | {"excess_p_max": 0.25, "excess_low": -0.01}},
        counterfactual={"b-c": answered | {"floor": 0.03, "ceiling": None}},
        largest_drop_p=0.048,
        baseline_accuracy_low=0.91,
        baseline_accuracy_high=1.0,
    )
    table = "\n".join(lines)
    for said in (
        "b-c .96 [.94, .97] layer 2 ",
        "a .10 [-.10, .30] layer 2 p>.05",
        "excess drop, 200 problems:",
        "b-c .42 [.35, .49] p<.001 (target .45, control .03)",
        "a .42 [-.01, .49] p=.250 (target .45, control .03)",
        "b-c .93 [.88, .97] (floor .03, ceiling -)",
        ") p=.048",
        "[.91, 1.00]",
    ):
        assert said in table, said
    assert max(map(len, lines)) <= WIDTH
    first, second = (
        next(place for place, line in enumerate(lines) if said in line)
        for said in ("a .42", "b-c .42")
    )
    assert first < second


def test_lines_of_numbers_stay_whole(tmp_path: Path) -> None:
    longest = {"a-(b-c)": EXCESS | {"excess_low": -0.111, "excess_p_max": 1.0}}
    table = shown(tmp_path, best={"a-(b-c)": best(p_holm=1.0)}, excess_drop=longest)
    assert any("a-(b-c) .96 [.94, .97] layer 2 p>.05 " in line for line in table)
    said = "a-(b-c) .42 [-.11, .49] p=1.000 (target .45, control .03) "
    assert any(said in line for line in table)


def test_a_run_of_an_earlier_version_is_shown_with_what_it_has(tmp_path: Path) -> None:
    known = {"abs_r": 0.5, "layer": 1, "component": 0, "position": "all"}
    lines = shown(tmp_path, best={"b": known}, excess_drop=None, counterfactual=None)
    table = "\n".join(lines)
    assert "b .50 layer 1 " in table
    assert "excess" not in table.partition("Of each value")[0]
    assert "largest drop of" in table


def test_a_run_without_edits_says_so(tmp_path: Path) -> None:
    lines = shown(tmp_path, largest_drop={}, excess_drop={}, counterfactual={})
    assert any("no edit asked for" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "m, a-b, layers all, scale"),
        ({"design": "uniform"}, "m, a-b, layers all, scale"),
        ({"design": "decorrelated b-c"}, "m, a-b, layers all, scale, design decorrelated b-c"),
        ({"swept": {"problems.n": "60"}}, "m, a-b, layers all, scale, problems.n=60"),
    ],
)
def test_a_cells_name_says_what_is_not_usual(changes: dict[str, Any], name: str) -> None:
    cell = {"model": "m", "expression": "a-b", "layers": "all", "edit": "scale", "seed": 0}
    assert cell_name(cell | changes) == name
