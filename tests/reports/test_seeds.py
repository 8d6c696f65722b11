"""The spread over seeds, on runs whose numbers are worked out by hand."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from mech_arith.common.errors import UserError
from mech_arith.common.runs.records import CellRecord, write_record
from mech_arith.evidence.results import save_run
from mech_arith.models.arithmetic.objectives import TrainSettings
from mech_arith.models.arithmetic.training import train
from mech_arith.reports.seeds import __main__ as entry
from mech_arith.reports.seeds.build import write_seeds
from mech_arith.reports.seeds.groups import seed_groups
from mech_arith.reports.seeds.tables import correlations_over_seeds, effects_over_seeds
from tests.models.test_training import SMALL as MODEL
from tests.running import main as run_main

SITE = {"layer": 0, "point": "resid_post", "position": "all", "head": ""}


def r_row(
    component: int, *, r_fit: float, r: float, p: float, chosen: bool = True, **site: Any
) -> dict[str, Any]:
    return {
        "value": "b-c",
        **SITE,
        "component": component,
        "rank": 1,
        "r_fit": r_fit,
        "chosen": chosen,
        "abs_r": abs(r),
        "r_low": r - 0.05,
        "r_high": r + 0.05,
        "p_holm": p,
        **site,
    }


def drop_row(*, drop: float, excess: float, low: float, **more: Any) -> dict[str, Any]:
    return {
        **SITE,
        "arm": "target",
        "component": 0,
        "rank": 1,
        "chosen_for": ("b-c",),
        "edit": "scale",
        "strength": 2.0,
        "strength_unit": "factor",
        "accuracy_drop": drop,
        "excess_drop": excess,
        "excess_low": low,
        "excess_p": 0.048,
        **more,
    }


def save_cell(
    directory: Path,
    seed: int,
    correlations: list[dict[str, Any]],
    effects: list[dict[str, Any]] | None = None,
    *,
    weights: str | None = None,
    training: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """A finished cell of the model with that seed."""
    trained = {"seed": seed, "steps": 10, "shape": {"d_model": 16}} | (training or {})
    summary = {
        "cell": {
            "model": f"trained:small_{seed}",
            "expression": "a-(b-c)",
            "layers": "all",
            "edit": "scale",
            "positions": "all",
        },
        "provenance": {"weights_digest": weights or f"weights of {seed}", "training": trained},
    }
    tables = {"correlations": pd.DataFrame(correlations), "effects": pd.DataFrame(effects or [])}
    save_run(directory, tables=tables, summary=summary, config_yaml="")
    determines = {
        "config": {"problems.n": 100} | (config or {}),
        "weights": str(seed),
        "code": "c",
        "versions": {"torch": "2"},
    }
    write_record(directory, CellRecord(f"cell {seed}", determines, overrides=()))


def three_seeds(directory: Path) -> None:
    """b-c is best at another component in each seed, and significant in two of three."""
    for seed, (component, r, p) in enumerate(((0, 0.9, 0.001), (3, -0.8, 0.01), (1, 0.1, 0.2))):
        worse = r_row(7, r_fit=0.05, r=0.99, p=p, chosen=False)
        rows = [worse, r_row(component, r_fit=-r, r=r, p=p)]
        layer_1 = [r_row(0, r_fit=0.5, r=0.5, p=0.01, layer=1)]
        low = (0.1, -0.1, 0.2)[seed]
        effects = [
            drop_row(drop=0.1 * (seed + 1), excess=0.1 * seed, low=low),
            drop_row(drop=0.5, excess=0.5, low=0.4, arm="control"),
            drop_row(drop=0.7, excess=0.7, low=0.6, chosen_for=(), component=5),
        ]
        save_cell(directory / str(seed), seed, rows + layer_1, effects)


def test_an_r_that_may_be_chance_holds_in_no_seed(tmp_path: Path) -> None:
    """A small p beside an interval that holds 0, as a strong component nearby would give it."""
    for seed, r in enumerate((0.009, -0.02)):
        save_cell(tmp_path / str(seed), seed, [r_row(2, r_fit=0.1, r=r, p=2.9e-4)])
    (cells,) = seed_groups(tmp_path).groups
    assert correlations_over_seeds(cells)["share_holds"].tolist() == [0.0]


def test_a_drop_of_which_p_and_interval_disagree_holds_in_no_seed(tmp_path: Path) -> None:
    for seed, (low, p) in enumerate(((0.1, 0.2), (-0.1, 0.048))):
        effects = [drop_row(drop=0.3, excess=0.2, low=low, excess_p=p)]
        save_cell(tmp_path / str(seed), seed, [r_row(2, r_fit=0.9, r=0.9, p=1e-3)], effects)
    (cells,) = seed_groups(tmp_path).groups
    assert effects_over_seeds(cells)["share_holds"].tolist() == [0.0]


def test_each_seed_is_seen_at_its_own_best_component(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    (cells,) = seed_groups(tmp_path).groups
    assert [cell.seed for cell in cells] == [0, 1, 2]
    spread = correlations_over_seeds(cells).set_index("layer").loc[0]
    assert spread["n_seeds"] == 3
    assert spread["abs_r_mean"] == pytest.approx(0.6)
    assert spread["abs_r_sd"] == pytest.approx(0.19**0.5)  # of .9, .8, .1: (.09 + .04 + .25) / 2
    assert (spread["abs_r_min"], spread["abs_r_max"]) == (0.1, 0.9)
    assert spread["share_holds"] == pytest.approx(2 / 3)
    assert spread["share_peak"] == pytest.approx(2 / 3)  # in seed 2 layer 1 is the better one


def test_effects_are_those_of_directions_chosen_for_a_value(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    (cells,) = seed_groups(tmp_path).groups
    (row,) = effects_over_seeds(cells).to_dict(orient="records")
    assert row["value"] == "b-c"
    assert row["n_seeds"] == 3
    assert row["accuracy_drop_mean"] == pytest.approx(0.2)
    assert row["accuracy_drop_sd"] == pytest.approx(0.1)
    assert (row["excess_drop_min"], row["excess_drop_max"]) == (0.0, 0.2)
    assert row["share_holds"] == pytest.approx(2 / 3)


def test_a_direction_chosen_for_two_values_speaks_for_both(tmp_path: Path) -> None:
    for seed in range(2):
        effects = [drop_row(drop=0.1, excess=0.1, low=0.05, chosen_for=("b", "b-c"))]
        save_cell(tmp_path / str(seed), seed, [r_row(0, r_fit=0.5, r=0.5, p=0.01)], effects)
    (cells,) = seed_groups(tmp_path).groups
    assert list(effects_over_seeds(cells)["value"]) == ["b", "b-c"]


def test_without_controls_nothing_is_said_of_what_holds(tmp_path: Path) -> None:
    nothing = float("nan")
    for seed in range(2):
        effects = [drop_row(drop=0.1, excess=nothing, low=nothing)]
        save_cell(tmp_path / str(seed), seed, [r_row(0, r_fit=0.5, r=0.5, p=0.01)], effects)
    (cells,) = seed_groups(tmp_path).groups
    (row,) = effects_over_seeds(cells).to_dict(orient="records")
    assert row["share_holds"] != row["share_holds"]
    assert row["accuracy_drop_mean"] == pytest.approx(0.1)


def test_a_value_that_never_varies_has_no_row(tmp_path: Path) -> None:
    nothing = float("nan")
    for seed in range(2):
        rows = [
            r_row(0, r_fit=0.5, r=0.5, p=0.01),
            r_row(0, r_fit=nothing, r=nothing, p=nothing, value="c", chosen=False),
        ]
        save_cell(tmp_path / str(seed), seed, rows)
    (cells,) = seed_groups(tmp_path).groups
    assert list(correlations_over_seeds(cells)["value"]) == ["b-c"]
    assert effects_over_seeds(cells).empty


def test_files_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_seeds(tmp_path)
    shown = io.StringIO()
    files = write_seeds(tmp_path, console=Console(file=shown, width=140))
    correlations, effects = (pd.read_parquet(path) for path in files)
    assert len(correlations) == 2
    assert len(effects) == 1
    assert set(correlations["seeds"]) == {"0 1 2"}
    assert set(correlations["expression"]) == {"a-(b-c)"}
    text = shown.getvalue()
    assert "3 seeds (trained:small_0 of seed 0, trained:small_1 of seed 1" in text
    assert "beyond chance in all seeds (1)" in text  # layer 1
    assert "beyond chance in some seeds (1)" in text  # layer 0
    assert "2 of 3" in text
    monkeypatch.setattr("sys.argv", ["spread", str(tmp_path)])
    entry.main()  # a second time over its own files
    pd.testing.assert_frame_equal(pd.read_parquet(files[0]), correlations)


def test_the_same_model_twice_is_one_seed(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    again = [r_row(0, r_fit=1.0, r=1.0, p=0.0)]
    save_cell(tmp_path / "again", 0, again)
    (cells,) = seed_groups(tmp_path).groups
    assert len(cells) == 3


def test_a_cell_without_its_like_is_left_out_and_named(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    save_cell(tmp_path / "odd", 9, [r_row(0, r_fit=0.5, r=0.5, p=0.1)], config={"problems.n": 200})
    found = seed_groups(tmp_path)
    assert len(found.groups[0]) == 3
    ((odd, differences),) = found.alone
    assert odd.directory.name == "odd"
    assert differences == "config.problems.n (200 and 100)"


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a directory of runs"):
        write_seeds(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected finished runs in .*, found none; run a sweep"):
        write_seeds(tmp_path)
    rows = [r_row(0, r_fit=0.5, r=0.5, p=0.1)]
    save_cell(tmp_path / "0", 0, rows)
    with pytest.raises(UserError, match=r"two seeds or more .* got one, trained:small_0; train"):
        write_seeds(tmp_path)
    save_cell(tmp_path / "1", 1, rows, training={"steps": 20, "shape": {"d_model": 32}})
    with pytest.raises(UserError) as caught:
        write_seeds(tmp_path)
    for named in ("training.steps (10 and 20)", "training.shape.d_model (16 and 32)"):
        assert named in str(caught.value)
    (tmp_path / "1" / "cell.json").unlink()
    with pytest.raises(UserError, match=r"expected a readable cell\.json in .*1, found none"):
        write_seeds(tmp_path)


def test_tables_of_older_versions_are_refused(tmp_path: Path) -> None:
    for seed in range(2):
        save_cell(tmp_path / str(seed), seed, [r_row(0, r_fit=0.5, r=0.5, p=0.1)])
        path = tmp_path / str(seed) / "correlations.parquet"
        pd.read_parquet(path).drop(columns="p_holm").to_parquet(path)
    with pytest.raises(UserError, match=r"found no p_holm: an older version .* run the cell again"):
        write_seeds(tmp_path)


@pytest.mark.slow
def test_a_sweep_over_trained_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two trainings to their spread, nothing made up."""
    threads = torch.get_num_threads()
    directories = [
        train(TrainSettings(**{**MODEL, "seed": seed}, directory=f"{tmp_path}/seed_{seed}"))
        for seed in range(2)
    ]
    torch.set_num_threads(threads)
    overrides = (
        "model=trained",
        f"model.path={directories[0]},{directories[1]}",
        "intervention=none",
        "problems.operands={min:10,max:99}",
        "problems.n=60",
        "tracing.n_components=4",
        "wandb=disabled",
    )
    assert run_main(monkeypatch, tmp_path, *overrides, sweep=True) == 0
    (cells,) = seed_groups(tmp_path / "run").groups
    assert [cell.seed for cell in cells] == [0, 1]
    files = write_seeds(tmp_path / "run", console=Console(file=io.StringIO()))
    spread = pd.read_parquet(files[0])
    at_all = spread[spread["position"] == "all"]
    assert set(at_all["value"]) == {"a", "b", "c", "b-c", "a-(b-c)"}
    assert (at_all["n_seeds"] == 2).all()
    assert (at_all["abs_r_sd"] > 0).all()  # two models, not one twice
    assert pd.read_parquet(files[1]).empty


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["spread", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: expected finished runs in .*$"):
        entry.main()
