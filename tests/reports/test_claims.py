"""Verdicts on published claims: the tests of claims where the truth is made up, and real cells."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mech_arith.common.errors import UserError
from mech_arith.common.paths import conf_dir
from mech_arith.evidence.results import RunResult
from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.__main__ import main as show
from mech_arith.reports.claims.base import Part
from mech_arith.reports.claims.build import judged, verdicts
from mech_arith.reports.typeset import Estimate, rounded
from mech_arith.statistics.independent import Measured
from tests.running import SMALL, main

PRESETS = sorted((conf_dir() / "experiment" / "papers").glob("*.yaml"))


def made(table: str, *rows: dict[str, Any], more=None, **cell) -> RunResult:
    """A run with a table of such rows."""
    tables = {table: pd.DataFrame(rows)} | (more or {})
    return RunResult(Path("run"), tables, {"cell": {"seed": 0, **cell}}, "")


def number(name, value, /, *, width=0.05, **columns) -> dict[str, Any]:
    """A row with a number and its interval."""
    ends = {f"{name}_low": value - width, f"{name}_high": value + width}
    return {name: value, **ends, **columns}


def held(name, runs) -> list[bool | None]:
    return [part.holds for part in CLAIMS.find(name)(runs)]


def test_every_preset_has_a_claim_and_a_test_of_its_name():
    assert len(PRESETS) >= 8
    for preset in PRESETS:
        claim = yaml.safe_load(preset.read_text(encoding="utf-8"))["claim"]
        assert claim["name"] == preset.stem
        assert claim["says"].endswith(".")
        assert "arXiv" in claim["source"]
        assert callable(CLAIMS.find(preset.stem))
    assert set(CLAIMS.names()) == {preset.stem for preset in PRESETS}


@pytest.mark.parametrize(
    ("layers", "holds"),
    [((0, 1, 2, 3), True), ((0, 2, 1, 3), False), ((0, 1, 1, 3), False), ((0, 1, 2, 2), False)],
)
def test_the_order_of_values_over_layers(layers, holds):
    of_value = dict(zip(("b", "c", "b-c", "a-(b-c)"), layers, strict=True))
    rows = [
        number("r", -0.97 if layer >= of_value[value] else 0.3, value=value, layer=layer)
        | number("slope", 0.8)
        | {"slope_random": 0.1, "slope_valueless": 0.1, "slope_counts": True}
        for value in of_value
        for layer in range(4)
    ]
    order, follows = CLAIMS.find("matsumoto_2022")([made("evidence", *rows)])
    assert (order.holds, follows.holds) == (holds, True)
    assert order.number is not None
    assert order.number.number == pytest.approx(0.97)  # the sign of a component says nothing
    assert f"b-c in layer {of_value['b-c']}" in order.where


def test_a_value_that_is_never_clear_is_no_step():
    rows = [number("r", 0.5, value=value, layer=0) for value in ("b", "c", "b-c", "a-(b-c)")]
    assert held("matsumoto_2022", [made("evidence", *rows)]) == [False, None]


def edited(value, iia, *, ceiling=0.9, layer=4, arm="target", **more) -> dict[str, Any]:
    given = {"value": value, "layer": layer, "rank": 8, "arm": arm, "floor": 0.01}
    return number("iia", iia) | number("ceiling", ceiling) | given | more


@pytest.mark.parametrize(
    ("helix", "components", "ceiling", "holds"),
    [(0.6, 0.3, 0.9, True), (0.31, 0.3, 0.9, False), (0.3, 0.6, 0.9, False), (0.6, 0.3, 0.1, None)],
)
def test_a_helix_beside_components(helix, components, ceiling, holds):
    runs = [
        made("counterfactual", edited("a", iia, ceiling=ceiling), tracing=name)
        for name, iia in (("fourier", helix), ("pca", components))
    ]
    assert held("kantamneni_tegmark_2025", runs) == [holds]
    assert held("kantamneni_tegmark_2025", [made("counterfactual")]) == [None]
    assert held("kantamneni_tegmark_2025", runs[:1]) == [None]


@pytest.mark.parametrize(
    ("iia", "p", "holds"), [(0.4, 0.01, True), (0.4, 0.2, False), (0.03, 0.01, False)]
)
def test_the_circle_of_a_digit(iia, p, holds):
    answers = [
        edited("a_ones", iia, p_holm=p),
        edited("a_ones", 0.0, layer=6, p_holm=1.0),
        edited("a_ones", 0.02, arm="control", p_holm=None),
    ]
    tokens = [
        number("iia_changed", 0.5 if row["arm"] == "target" else 0.0)
        | {name: row[name] for name in ("value", "layer", "rank", "arm")}
        | {"token_name": "token 2", "p_max": 0.01}
        for row in answers
    ]
    run = made("counterfactual", *answers, more={"answer_tokens": pd.DataFrame(tokens)})
    assert held("levy_geva_2024", [run]) == [holds, True, None]


@pytest.mark.parametrize(
    ("r2", "slope", "wrong", "holds"),
    [
        (0.95, 0.7, 0.1, [True, True]),
        (0.5, 0.7, 0.4, [False, False]),
        (0.95, 0.1, 0.1, [True, False]),
    ],
)
def test_few_directions_and_monotone_answers(r2, slope, wrong, holds):
    edits = [
        edited("a", 0.2, arm=arm, wrong_way=wrong, monotonicity=0.5) | number("slope", found)
        for arm, found in (("target", slope), ("control", 0.1), ("valueless", 0.12))
    ]
    read = {"value": "a", "layer": 4, "rank": 8, "decoding_r2": r2, "control_r2": 0.1}
    run = made("counterfactual", *edits, more={"subspaces": pd.DataFrame([read])})
    assert held("heinzerling_inui_2024", [run]) == holds


@pytest.mark.parametrize("r", [0.99, -0.99])
@pytest.mark.parametrize(("shift", "holds"), [(10.0, True), (0.2, False), (None, None)])
def test_steering_along_a_probe_whatever_its_sign(r, shift, holds):
    way = 1 if r > 0 else -1
    edits = [
        number(
            "mean_shift", way * sign * shift if shift else 0.0, width=0.1 if shift else float("nan")
        )
        | {
            "layer": 2,
            "arm": arm,
            "strength": 8.0 * sign,
            "chosen_for": ["a"],
            "mean_abs_shift": 1.0,
        }
        for sign in (-1, 1)
        for arm in ("target", "control")
    ]
    probe = {"value": "a", "layer": 2, "r_fit": r, "decoding_r2": 0.97, "control_r2": 0.2}
    run = made("effects", *edits, more={"subspaces": pd.DataFrame([probe])})
    assert held("zhu_2024", [run]) == [True, True, holds]


@pytest.mark.parametrize(("das", "pca", "holds"), [(0.9, 0.5, True), (0.9, 0.88, False)])
def test_a_carry_by_a_trained_direction(das, pca, holds):
    runs = [
        made(
            "hypotheses",
            number("distinguishing", share)
            | {"value": "ones_carry", "hypothesis": "digits", "supports": "digits"}
            | {"floor": 0.5, "random": 0.1, "layer": layer, "rank": 1}
            | {"rival": "tree", "rival_value": "a"},
            tracing=name,
        )
        for name, share, layer in (("das", das, 16), ("pca", pca, 16), ("pca", 0.99, 8))
    ]
    assert held("mib_2025", runs) == [True, holds]
    assert held("mib_2025", runs[:1]) == [True, None]


@pytest.mark.parametrize(
    ("layer", "operand", "holds"), [(3, 0.1, [True, True]), (1, 0.9, [False, False])]
)
def test_mlps_of_late_layers(layer, operand, holds):
    def effects(point, position, sizes):
        at = {"point": point, "position": position}
        return [number("effect", -x, layer=i) | at for i, x in enumerate(sizes)]

    mlp = [0.05] * 4
    mlp[layer] = 0.6
    rows = [
        *effects("mlp_out", "last", mlp),
        *effects("mlp_out", "b", [0.9, 0.2, operand, 0.1]),
        *effects("attn_out", "last", [0.7, 0.1, 0.1, 0.1]),
    ]
    assert held("stolfo_2023", [made("screen", *rows)]) == [*holds, layer > 0]
    assert held("stolfo_2023", [made("screen", *rows[:8])]) == [None] * 3


@pytest.mark.parametrize(
    ("few", "whole", "holds"), [(0.6, 0.63, True), (0.3, 0.63, False), (0.1, 0.1, None)]
)
def test_few_neurons(few, whole, holds):
    rows = [
        number("iia_changed", share)
        | {"value": "a+b", "token_name": f"token {token}", "layer": 20, "rank": 73}
        | {"arm": arm, "ceiling_changed": whole}
        for arm, share in (("target", few), ("control", 0.02))
        for token in (0, 1)
    ]
    assert held("nikankin_2024", [made("answer_tokens", *rows)]) == [holds]
    assert held("nikankin_2024", [made("answer_tokens", rows[0], rows[2])]) == [None]


@pytest.mark.parametrize(("other", "holds"), [(0.1, True), (0.45, False)])
def test_one_token_alone(other, holds):
    rows = [
        edited("a+b", 0.0, position=position, token_name=f"token {token}")
        | {"ceiling_changed": share, "n_changed": 100}
        for position, share in (("last", 0.9), ("b", other), ("a", 0.8))
        for token in (0, 1)
    ]
    assert held("last_token_2025", [made("answer_tokens", *rows)]) == [True, holds]
    assert held("last_token_2025", [made("answer_tokens", *rows[::2])]) == [None, None]


def test_a_part_is_judged_by_all_of_three_seeds():
    def part(holds, why=""):
        return Part("it", Measured(number=1.0, low=0.0, high=2.0), holds, why=why)

    yes, no, unclear = part(True), part(False), part(None, "no ceiling")
    assert judged([yes, yes, yes]) == "held"
    assert judged([no, no, no]) == "did not hold"
    assert judged([yes, no, yes]) == "held in 2 of 3 seeds"
    assert judged([yes, unclear, unclear]) == "not tested: no ceiling"
    assert judged([yes, yes]) == "not tested: 2 of the 3 seeds that a verdict takes"


MINE = """
from mech_arith.reports.claims import CLAIMS
from mech_arith.reports.claims.base import Part, layer_of, largest, measured, rows

@CLAIMS.register("mine_2026")
def mine(runs):
    row = largest(rows(runs, "evidence", value="b-c"), "r")
    return [Part("b-c is there", measured(row, "r"), row["r_low"] > 0, where=layer_of(row))]
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three seeds of a shipped claim and one of a user's own, as small as cells are."""
    place = tmp_path_factory.mktemp("claims")
    (place / "mine.py").write_text(MINE, encoding="utf-8")
    few = ("tracing.positions=answer.1", "intervention.sources=1", "intervention.controls.random=1")
    shipped = (*SMALL, "+experiment=papers/decodable_unused_2026", *few)
    own = (*shipped, "claim.name=mine_2026", "claim.says=Mine.", "claim.source=me")
    with pytest.MonkeyPatch.context() as patch:
        assert main(patch, place / "shipped", *shipped, "problems.seed=0,1,2", sweep=True) == 0
        assert main(patch, place / "own", *own, f"plugins=[{place}/mine.py]") == 0
    return place


def test_verdicts_of_real_cells_and_of_a_plugins_claim(sweep):
    found, commands = verdicts([sweep])
    read, unused, mine = found
    assert [one.claim.name for one in found] == ["decodable_unused_2026"] * 2 + ["mine_2026"]
    (own,) = (sweep / "own").rglob("evidence.parquet")
    r = pd.read_parquet(own).query("value == 'b-c'")["r"].max()
    assert mine.number.number == pytest.approx(r)
    assert list(read.seeds) == list(unused.seeds) == [0, 1, 2]
    # Of the whole answer one token's activation carries little.
    assert unused.verdict.startswith("not tested: no site's whole activation")
    assert mine.verdict == "not tested: 1 of the 3 seeds that a verdict takes"
    assert mine.where == "layer 3"
    assert len(commands) == 2
    assert any("problems.seed=0,1,2" in line for line in commands)
    assert all("torch" in made_with for made_with in commands.values())


@pytest.mark.parametrize("format", ["markdown", "csv", "latex"])
def test_the_table_on_the_command_line(sweep, monkeypatch, capsys, format):
    monkeypatch.setattr(sys, "argv", ["claims", str(sweep), "--format", format])
    show()
    shown = capsys.readouterr().out
    assert "decoded need not be" in shown
    assert "not tested" in shown


def test_what_cannot_be_judged_is_said_in_a_line(sweep, monkeypatch, capsys, tmp_path):
    def said(*places):
        monkeypatch.setattr(sys, "argv", ["claims", *map(str, places)])
        with pytest.raises(SystemExit) as end:
            show()
        return str(end.value)

    assert "found none; give a run or a sweep" in said(tmp_path)
    assert main(monkeypatch, tmp_path / "plain", *SMALL, "layers=3", "intervention=none") == 0
    assert "expected finished cells of a claim" in said(tmp_path / "plain")
    shutil.copytree(sweep / "shipped" / "run" / "0", tmp_path / "again")
    with pytest.raises(UserError, match="expected each cell of a claim once"):
        verdicts([sweep / "shipped", tmp_path / "again"])


def test_a_claim_without_a_test_is_refused(monkeypatch, tmp_path):
    own = ("claim.name=noone_1999", "claim.says=No.", "claim.source=me")
    assert main(monkeypatch, tmp_path, *SMALL, "layers=3", "intervention=none", *own) == 0
    with pytest.raises(UserError, match="unknown claim 'noone_1999'"):
        verdicts([tmp_path])


def test_the_page_of_verdicts_shows_the_committed_table():
    root = conf_dir().parent
    page = (root / "docs" / "verdicts.md").read_text(encoding="utf-8")
    lines = [line.replace("\\", "") for line in page.splitlines() if line.startswith("|")]
    for row in pd.read_csv(root / "scripts" / "tables" / "verdicts.csv").to_dict("records"):
        shown = rounded(Estimate(row["number"], row["low"], row["high"]))
        number = f"{shown[0]} [{shown[1]}, {shown[2]}]"
        part, verdict = row["part"], row["verdict"]
        assert any(part in line and number in line and f"| {verdict} |" in line for line in lines)
    for preset in PRESETS:
        assert f"| `{preset.stem}` |" in page
    made = (root / "scripts" / "tables" / "verdicts.md").read_text(encoding="utf-8")
    assert [line for line in made.splitlines() if line.startswith("|")] == [
        line for line in page.splitlines() if line in made and line.startswith("|")
    ]
