import pytest
import torch

from mech_arith.artifacts import Store
from mech_arith.cell import CellPlan, outside_training, run_cell
from mech_arith.edits import EDITS
from mech_arith.errors import UserError
from mech_arith.intervention import InterventionPlan
from mech_arith.problems import draw, split
from mech_arith.templates import build_template
from mech_arith.unfinished import Unfinished
from tests.tiny import PlantedSolver, tiny_decoder

TEMPLATE = build_template("nested", "a-(b-c)")
ABC = dict.fromkeys("abc", (100, 999))


def plan(**changes):
    asked = {
        "layers": (0, 1),
        "point": "resid_post",
        "positions": "last",
        "position_map": False,
        "n_components": 2,
        "intervention": InterventionPlan(EDITS["scale"], (0.0, 1.0)),
        "n_edited": 20,
        "locality": None,
        "tolerance": None,
        "digits": 3,
        "batch_size": 32,
    }
    return CellPlan(**{**asked, **changes})


def run(solver, fit, report, asked):
    return run_cell(solver, fit, report, asked, Store(None), Unfinished.nothing())


def problems(ranges=ABC, n=100):
    return split(draw(TEMPLATE, n=n, ranges=ranges, seed=0), fit_share=0.5, seed=0)


class Wrong(PlantedSolver):
    """Answers everything, always wrongly."""

    def read_out(self, resid):
        return super().read_out(resid) + 100


def test_baseline_accuracy_0_reports_no_drop():
    with pytest.raises(UserError, match=r"baseline accuracy 0 on 20 problems a-\(b-c\): no drop"):
        run(Wrong(), *problems(), plan())
    traced = run(Wrong(), *problems(), plan(intervention=None))
    assert traced.summary["baseline_accuracy"] == 0
    assert traced.summary["best"]["b-c"]["abs_r"] > 0.95


def test_the_tolerance_of_the_config_takes_the_cards_place():
    result = run(Wrong(), *problems(), plan(tolerance=100.5))
    assert result.summary["tolerance"] == 100.5
    assert result.summary["baseline_accuracy"] == 1
    assert (result.tables["effects"]["baseline_accuracy"] == 1).all()


def test_the_baseline_of_the_drops_is_that_of_the_edited_problems():
    result = run(PlantedSolver(), *problems(), plan())
    assert set(result.tables["effects"]["n"]) == {20}
    assert result.summary["n_report"] == 50
    assert result.summary["n_edited"] == 20
    drop = result.summary["largest_drop"]["b-c"]
    assert drop["n"] == 20
    assert drop["accuracy_drop"] <= drop["baseline_accuracy"]
    assert result.summary["n_edits_searched"] == (result.tables["effects"]["arm"] == "target").sum()


def test_values_that_never_vary_are_named():
    fit, report = problems({**ABC, "a": (5, 5)})
    result = run(PlantedSolver(), fit, report, plan())
    assert (
        "a is 5 in every problem: no correlation with it is defined" in result.summary["warnings"]
    )
    assert "a" not in result.summary["best"]
    assert "a" not in result.summary["largest_drop"]


def test_constant_positions_are_refused():
    fit, report = problems()
    with pytest.raises(UserError, match=r"activations that vary at positions 'last', got constant"):
        run(PlantedSolver(), fit, report, plan(point="resid_pre", layers=(0,)))


def test_an_untrained_twin_says_what_the_input_alone_gives():
    fit, report = problems()
    asked = plan(intervention=None, position_map=True, n_components=5, untrained_twins=2)
    result = run(tiny_decoder(), fit, report, asked)
    floors = result.tables["evidence"].set_index(["layer", "value"])["untrained_abs_r"]
    assert floors.between(0, 1).all()
    by_hand = []
    for seed in (0, 1):
        twin = tiny_decoder().untrained(seed=seed)
        assert twin.digest != tiny_decoder().digest
        alone = run(twin, fit, report, plan(intervention=None, n_components=5))
        by_hand.append(alone.tables["evidence"].set_index(["layer", "value"])["r"].abs())
    expected = by_hand[0].combine(by_hand[1], max)
    assert floors.to_numpy() == pytest.approx(expected.loc[floors.index].to_numpy())
    without = run(tiny_decoder(), fit, report, plan(intervention=None, n_components=5))
    assert without.tables["evidence"]["untrained_abs_r"].isna().all()
    planted = run(PlantedSolver(), fit, report, plan(intervention=None, untrained_twins=1))
    assert (
        "planted has no untrained twin: |R| stands without its floor" in planted.summary["warnings"]
    )


def test_what_lies_outside_the_training_is_said():
    solver = PlantedSolver()
    assert outside_training(solver, problems()[0]) == []
    large = problems({**ABC, "b": (100, 5000)})[0]
    (warning,) = outside_training(solver, large)
    assert "go beyond the 1..999 that planted was trained on" in warning
    other = draw(build_template("t", "a-b-c"), n=10, ranges=ABC, seed=0)
    assert outside_training(solver, other) == [
        "planted was not trained on a-b-c: look at the baseline accuracy first"
    ]


def test_numbers_do_not_depend_on_batches():
    results = [run(PlantedSolver(), *problems(), plan(batch_size=size)) for size in (7, 1000)]
    small, large = (result.tables["effects"] for result in results)
    for column in ("accuracy_drop", "mean_shift", "change_rms"):
        torch.testing.assert_close(
            torch.tensor(small[column].to_numpy()),
            torch.tensor(large[column].to_numpy()),
            atol=1e-3,
            rtol=1e-5,
        )
