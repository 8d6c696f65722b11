"""Two runs side by side: which cells and rows fit each other, and B minus A."""

import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mech_arith.common.errors import UserError
from mech_arith.evidence.results import load_run, save_run
from mech_arith.reports.page import __main__ as command
from mech_arith.reports.page.build import build_comparison
from mech_arith.reports.page.differences import SCHEMA
from tests.synthetic import save_cell

FILES = {"comparison.parquet", "comparison.csv", "comparison.html"}


def compared(directory: Path) -> pd.DataFrame:
    build_comparison(directory / "out", directory / "a", directory / "b")
    return pd.read_parquet(directory / "out" / "comparison.parquet")


def change(run: Path, **numbers: float) -> None:
    """Set columns of a run's evidence of b in layer 0."""
    found = load_run(run)
    evidence = found.tables["evidence"]
    evidence.loc[(evidence["value"] == "b") & (evidence["layer"] == 0), list(numbers)] = list(
        numbers.values()
    )
    save_run(run, tables=found.tables, summary=found.summary, config_yaml="")


def row_of(table: pd.DataFrame, quantity: str) -> dict[str, Any]:
    of_b = (table["value"] == "b") & (table["layer"] == 0) & (table["quantity"] == quantity)
    (row,) = table.loc[of_b].to_dict(orient="records")
    return row


def test_b_minus_a_with_its_interval(tmp_path: Path) -> None:
    """Worked out by hand: half-widths of .3 and .4 make .5; a negative R is turned round."""
    for name in ("a", "b"):
        save_cell(tmp_path / name, edit="interchange")
    change(tmp_path / "a", slope=0.1, slope_low=-0.2, slope_high=0.4)
    change(tmp_path / "b", slope=0.8, slope_low=0.4, slope_high=1.2)
    change(tmp_path / "a", r=0.5, r_low=0.4, r_high=0.6)
    change(tmp_path / "b", r=-0.7, r_low=-0.8, r_high=-0.5)
    table = compared(tmp_path)
    assert list(table) == [*SCHEMA]
    slope = row_of(table, "slope")
    assert (slope["a"], slope["b"]) == (0.1, 0.8)
    ends = [slope[f"difference{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([0.7, 0.2, 1.2])
    assert slope["p"] == pytest.approx(0.0061, abs=5e-5)  # 2.74 standard errors of .255
    assert (slope["cell_a"], slope["cell_b"]) == ("a", "b")
    r = row_of(table, "abs_r")
    assert (r["b"], r["b_low"], r["b_high"]) == (0.7, 0.5, 0.8)
    ends = [r[f"difference{end}"] for end in ("", "_low", "_high")]
    below, above = (0.2**2 + 0.1**2) ** 0.5, (0.1**2 + 0.1**2) ** 0.5
    assert ends == pytest.approx([0.2, 0.2 - below, 0.2 + above])
    assert r["counts"] is False


def test_every_number_that_both_have_is_compared(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        save_cell(tmp_path / name, edit="interchange", seed=seed)
    table = compared(tmp_path)
    counts = table["quantity"].value_counts().to_dict()
    assert counts == {
        **dict.fromkeys(("abs_r", "iia", "slope", "excess_drop"), 4 * 5),
        "baseline_accuracy": 1,
        "accuracy_drop": 4 * 5 * 2,  # of two strengths
    }
    effects = load_run(tmp_path / "a").tables["effects"].query("arm == 'target' and layer == 2")
    drops = table.query("quantity == 'accuracy_drop' and layer == 2")
    for row in drops.to_dict(orient="records"):
        here = (effects["component"] == row["component_a"]) & (
            effects["strength"] == row["strength"]
        )
        assert row["a"] in effects.loc[here, "accuracy_drop"].tolist()
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()


def test_of_equal_runs_no_difference_is_a_finding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_cell(tmp_path / name, edit="interchange")
    table = compared(tmp_path)
    assert (table["difference"] == 0).all()
    assert not table["counts"].any()
    assert (table.dropna(subset=["p"])["p_holm"] == 1).all()


@pytest.mark.slow
def test_a_number_whose_interval_has_no_width_has_no_interval_of_a_difference(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        save_cell(tmp_path / name, edit="interchange")
    change(tmp_path / "a", slope=0.0, slope_low=0.0, slope_high=0.0)
    slope = row_of(compared(tmp_path), "slope")
    assert slope["difference"] == slope["b"]
    assert pd.isna(slope["difference_low"])
    assert slope["counts"] is None


def test_drops_of_other_edits_are_not_compared_and_it_is_said(tmp_path: Path) -> None:
    save_cell(tmp_path / "a", edit="scale")
    save_cell(tmp_path / "b", edit="shift")
    built = build_comparison(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    assert set(built.compared.table["quantity"]) == {"abs_r", "baseline_accuracy"}
    (said,) = built.compared.notes
    assert re.match(r"Drops are not compared .*: scale with strengths .* in A, shift .* in B", said)


def test_layers_that_one_run_lacks_are_left_out(tmp_path: Path) -> None:
    save_cell(tmp_path / "a", n_layers=2)
    save_cell(tmp_path / "b", n_layers=6)
    assert set(compared(tmp_path)["layer"].dropna()) == {0, 1}


@pytest.mark.slow
def test_positions_are_compared_by_name_or_the_best_of_each(tmp_path: Path) -> None:
    save_cell(tmp_path / "a", positions="each", n_layers=2)
    save_cell(tmp_path / "b", positions="each", n_layers=2, seed=1)
    by_name = compared(tmp_path).query("quantity == 'abs_r'")
    assert len(by_name) == 2 * 5 * 14
    assert (by_name["position_a"] == by_name["position_b"]).all()
    save_cell(tmp_path / "b", positions="last", n_layers=2, seed=1)
    best = compared(tmp_path).query("quantity == 'abs_r'")
    assert len(best) == 2 * 5
    assert set(best["position_b"]) == {"last"}


@pytest.mark.slow
def test_sweeps_are_compared_cell_by_cell(tmp_path: Path) -> None:
    """They differ in the model; the seed tells cells of one sweep from each other."""
    for seed in range(3):
        save_cell(tmp_path / "a" / str(seed), seed=seed)
    for seed in range(2):
        save_cell(tmp_path / "b" / str(seed + 7), seed=seed, model="arith_encoder")
    built = build_comparison(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    pairs = built.compared.table[["cell_a", "cell_b"]].drop_duplicates()
    assert pairs.to_numpy().tolist() == [["a/0", "b/7"], ["a/1", "b/8"]]
    assert built.compared.notes == ("Left out of A, for no one cell fits them: a/2.",)


def test_what_cannot_be_compared_ends_in_one_line(tmp_path: Path) -> None:
    for seed in range(2):
        save_cell(tmp_path / "a" / str(seed), seed=seed)
        save_cell(tmp_path / "b" / str(seed), seed=seed + 5, n_layers=2)
    with pytest.raises(
        UserError, match=r"expected cells that fit each other, got 2 in A and 2 in B"
    ):
        build_comparison(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    run = load_run(save_cell(tmp_path / "other"))
    inference = run.summary["inference"] | {"level": 0.9}
    summary = run.summary | {"inference": inference}
    save_run(tmp_path / "other", tables=run.tables, summary=summary, config_yaml="")
    with pytest.raises(
        UserError, match=r"one level in .*got 0\.95 and 0\.9; .*inference\.level=0\.95"
    ):
        build_comparison(tmp_path / "out", tmp_path / "a" / "0", tmp_path / "other")
    (tmp_path / "failed").mkdir()
    with pytest.raises(UserError, match=r"expected finished runs in .*failed, found none"):
        build_comparison(tmp_path / "out", tmp_path / "a" / "0", tmp_path / "failed")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a", "b")):
        save_cell(tmp_path / name, edit="interchange", seed=seed)
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--compare"]
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    command.main()
    said = capsys.readouterr().out
    assert said.startswith(f"A: {tmp_path / 'a'}\nB: {tmp_path / 'b'}\n")
    assert re.search(r"\d+ of \d+ differences are findings", said)
    assert re.search(r"\|R\| +│ \S+ +│ +\d │ +│ 0\.\d\d \[", said)
    assert "independent samples" in said
    assert said.endswith(f"{tmp_path / 'b' / 'comparison.html'}\n")
    written = {path.name for path in (tmp_path / "b").iterdir()}
    assert written >= FILES
    assert "report.html" not in written
    from_text = pd.read_csv(tmp_path / "b" / "comparison.csv")
    assert len(from_text) == len(pd.read_parquet(tmp_path / "b" / "comparison.parquet"))
    monkeypatch.setattr(sys, "argv", ["report", arguments[0], "--compare"])
    with pytest.raises(SystemExit, match="error: expected two directories with --compare, got 1"):
        command.main()
