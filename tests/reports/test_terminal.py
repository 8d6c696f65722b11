"""The table that a run or a sweep ends with."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mech_arith.reports.terminal import FEW, cell_name, print_cells
from tests.synthetic import save_cell

WIDTH = 140


def shown(directory: Path, **changes: Any) -> list[str]:
    """The table's lines for a made-up run whose summary says something else."""
    save_cell(directory)
    path = directory / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    console = Console(width=WIDTH, record=True, force_terminal=True, file=StringIO())
    print_cells([directory], console=console)
    return console.export_text().splitlines()


def verdict(value: str = "b-c", **changes: Any) -> dict[str, Any]:
    found = {
        "text": f"{value}: held in layers 2-3",
        "held": ["layers 2-3"],
        "shared": {},
        "used": [],
        "untold": {},
        "best": {
            "layer": 2,
            "position": "all",
            "value": value,
            "r": -0.96,
            "r_low": -0.97,
            "r_high": -0.94,
            "untrained_abs_r": 0.31,
        },
    }
    best = found["best"] | changes.pop("best", {})
    return found | {"best": best} | changes


FOLLOWED = {
    "iia": 0.07,
    "iia_low": 0.05,
    "iia_high": 0.12,
    "floor": 0.01,
    "slope": 0.91,
    "slope_low": 0.88,
    "slope_high": 0.94,
    "slope_random": 0.02,
    "ceiling": 1.0,
}
COSTS = {
    "edit": "scale",
    "excess_drop": 0.42,
    "excess_low": 0.35,
    "excess_high": 0.49,
    "excess_p_max": 0.0002,
    "target_drop": 0.45,
    "excess_against": "span",
}


def test_a_row_says_where_a_value_is_held_and_that_the_answer_follows_it(tmp_path: Path) -> None:
    found = verdict(used=["layers 2-3"], shared={"c": ["layer 1"]}, best=FOLLOWED)
    lines = shown(
        tmp_path,
        verdicts={"b-c": found, "a": verdict("a", held=[])},
        baseline_accuracy_low=0.91,
        baseline_accuracy_high=1.0,
    )
    table = "\n".join(lines)
    for said in (
        "layers 2-3",
        "with c: layer 1",
        ".96 [.94, .97] in layer 2",
        "untrained .31",
        "follows .91 [.88, .94] in layer 2; random .02",
        "IIA .07 [.05, .12]; chance .01, whole 1.00",
        "[.91, 1.00] of ",
        "nowhere",
        "Used: the answer follows the value.",
    ):
        assert said in table, said
    assert "costs more right answers" not in table
    assert max(map(len, lines)) <= WIDTH
    first, second = (
        next(place for place, line in enumerate(lines) if said in line)
        for said in ("\u2502 a ", "\u2502 b-c ")
    )
    assert first < second


def test_an_edit_that_goes_nowhere_is_told_by_its_price(tmp_path: Path) -> None:
    lines = shown(tmp_path, verdicts={"b-c": verdict(used=["layer 2"], best=COSTS)})
    table = " ".join(" ".join(lines).split())
    assert "costs .45 in layer 2, .42 [.35, .49] more than span directions;" in table
    assert "p<.001" in table
    assert "Used: moving the coordinate" in table
    assert "the answer follows the value" not in table


def test_how_many_directions_it_took_to_decide_p_stands_below(tmp_path: Path) -> None:
    of_kind = {"n_targets": 11, "median_draws": 16.0, "most_draws": 99, "n_with_most": 2}
    lines = shown(tmp_path, verdicts={"b-c": verdict(best=COSTS)}, draws={"span": of_kind})
    said = "span directions, drawn until p is decided: 16 of at most 99 (median of 11 targets);"
    assert f"{said} 2 took all" in lines


def test_what_cannot_be_told_says_why(tmp_path: Path) -> None:
    why = "so few control directions give no p below 0.17"
    table = "\n".join(shown(tmp_path, verdicts={"b": verdict(untold={why: ["layers 2-3"]})}))
    assert "cannot be told" in table
    assert why in table


def test_a_run_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    table = " ".join(" ".join(shown(tmp_path, verdicts=None)).replace("\u2502", " ").split())
    assert "an earlier version" in table


@pytest.mark.slow
def test_many_cells_have_a_row_each(tmp_path: Path) -> None:
    places = [save_cell(tmp_path / str(i), seed=i) for i in range(FEW + 1)]
    console = Console(width=WIDTH, record=True, force_terminal=True, file=StringIO())
    print_cells(places, console=console)
    table = console.export_text()
    summary = json.loads((places[0] / "summary.json").read_text())
    (first, *_) = summary["verdicts"].values()
    assert first["text"][:30] in " ".join(table.split())
    assert table.count("figures/") == 0


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


def compared(text: str = "tree, and not left_to_right: b-c in layers 1-3") -> dict[str, Any]:
    return {
        "left_to_right or tree": {
            "text": text,
            "numbers": "clearest in layer 2, component 0 of b-c",
            "supported": {"left_to_right": "", "tree": "b-c in layers 1-3"},
        }
    }


def in_one_line(directories: list[Path]) -> str:
    console = Console(width=WIDTH, record=True, force_terminal=True, file=StringIO())
    print_cells(directories, console=console)
    return " ".join(console.export_text().replace("\u2502", " ").split())


def test_the_hypotheses_of_all_cells_stand_in_one_table(tmp_path: Path) -> None:
    asked = {"tree": {}, "left_to_right": compared(), "digits": {}}
    for name, hypotheses in asked.items():
        path = save_cell(tmp_path / name) / "summary.json"
        summary = json.loads(path.read_text())
        summary["cell"] |= {"hypothesis": name, "expression": "a-(b-c)"}
        changes = {"verdicts": {"b-c": verdict()}, "hypotheses": hypotheses}
        path.write_text(json.dumps(summary | changes))
    said = in_one_line([tmp_path / name for name in asked])
    assert said.count("Which algorithm do the interventions support, and where?") == 1
    assert "tree, and not left_to_right: b-c in layers 1-3" in said
    assert "hypothesis left_to_right" in said
    assert "distinguishing pairs" in said
    assert "not compared for arith_decoder, a-(b-c): tree with digits; intervention=" in said
    assert "hypothesis=digits 'hypothesis.rivals=[tree]' compares them" in said
    assert "left_to_right with digits; " in said
    assert "tree with left_to_right" not in said
    assert "As a whole" not in said


def test_hypotheses_are_compared_within_a_model_and_own_steps_are_asked_for_as_steps(
    tmp_path: Path,
) -> None:
    asked = [("m1", "tree", {}), ("m1", "mine", {}), ("m2", "digits", {}), ("m2", "mine", {})]
    for place, (model, name, hypotheses) in enumerate(asked):
        path = save_cell(tmp_path / str(place)) / "summary.json"
        summary = json.loads(path.read_text())
        summary["cell"] |= {"model": model, "hypothesis": name, "expression": "a-b"}
        changes = {"verdicts": {"b": verdict()}, "hypotheses": hypotheses}
        path.write_text(json.dumps(summary | changes))
    said = in_one_line([tmp_path / str(place) for place in range(len(asked))])
    assert said.count("not compared for") == 2
    first = "hypothesis.name=mine 'hypothesis.steps=[...]' 'hypothesis.rivals=[tree]'"
    assert f"m1, a-b: tree with mine; intervention=interchange {first} compares them" in said
    assert "m2, a-b: digits with mine; " in said
    # The other way round: a rival of one's own.
    path = tmp_path / "0" / "summary.json"
    path.write_text(path.read_text().replace('"tree"', '"theirs"'))
    said = in_one_line([tmp_path / "1", tmp_path / "0"])
    assert "'hypothesis.rivals=[{name: mine, steps: [...]}]' compares them" in said


def test_all_steps_together_are_explained_where_they_stand_alone(tmp_path: Path) -> None:
    together = {"digits": {"text": "supported, all 4 steps together (rank 8)"}}
    lines = shown(tmp_path, verdicts={"b-c": verdict()}, alignments=together)
    said = " ".join(" ".join(lines).replace("\u2502", " ").split())
    assert "digits, as a whole?" in said
    assert "As a whole: several steps are set in one pass" in said
    assert "distinguishing pairs" not in said


def test_without_rivals_nothing_is_said_of_hypotheses(tmp_path: Path) -> None:
    assert "algorithm" not in " ".join(shown(tmp_path, verdicts={"b-c": verdict()}))
