from dataclasses import replace

import pytest
import torch

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.correlations import MASSIVE, massive_components
from mech_arith.experiment.cell import CellPlan, run_cell
from mech_arith.experiment.cell_warnings import outside_training
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from tests.directions.test_tracing import planted
from tests.tiny import MassiveModel, PlantedModel, tiny_decoder

TEMPLATE = build_template("nested", "a-(b-c)")
ABC = dict.fromkeys("abc", (100, 999))


def plan(*, n_components=2, method="pca", **changes):
    asked = {
        "layers": (0, 1),
        "point": "resid_post",
        "positions": "last",
        "position_map": False,
        "method": find_method(method, n_components),
        "intervention": InterventionPlan(find_edit("scale"), (0.0, 1.0)),
        "n_edited": 20,
        "locality": None,
        "tolerance": None,
        "digits": 3,
    }
    return CellPlan(**{**asked, **changes})


def run(model, fit, report, asked, batch_size=32):
    return run_cell(Session(model, Batching(batch_size)), fit, report, asked)


def problems(ranges=ABC, n=100):
    return split(draw(TEMPLATE, n=n, ranges=ranges, seed=0), fit_share=0.5, seed=0)


class Wrong(PlantedModel):
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
    result = run(PlantedModel(), *problems(), plan())
    assert set(result.tables["effects"]["n"]) == {20}
    assert result.summary["n_report"] == 50
    assert result.summary["n_edited"] == 20
    drop = result.summary["largest_drop"]["b-c"]
    assert drop["n"] == 20
    assert drop["accuracy_drop"] <= drop["baseline_accuracy"]
    assert result.summary["n_edits_searched"] == (result.tables["effects"]["arm"] == "target").sum()


def test_values_that_never_vary_are_named():
    fit, report = problems({**ABC, "a": (5, 5)})
    result = run(PlantedModel(), fit, report, plan())
    assert (
        "a is 5 in every problem: no correlation with it is defined" in result.summary["warnings"]
    )
    assert "a" not in result.summary["best"]
    assert "a" not in result.summary["largest_drop"]


def test_constant_positions_are_refused():
    fit, report = problems()
    with pytest.raises(UserError, match=r"activations that vary at positions 'last', got constant"):
        run(PlantedModel(), fit, report, plan(point="resid_pre", layers=(0,)))


@pytest.mark.slow
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
    planted = run(PlantedModel(), fit, report, plan(intervention=None, untrained_twins=1))
    assert (
        "planted has no untrained twin: |R| stands without its floor" in planted.summary["warnings"]
    )


class HasSilentTwin(PlantedModel):
    """Its twin writes nothing: at the last position it is the same for all problems."""

    def untrained(self, *, seed):
        return SilentTwin()


class SilentTwin(PlantedModel):
    digest = "1" * 64

    def __init__(self):
        super().__init__()
        self.used = self.unused = self.answer_at = torch.zeros(self.d_model)


def test_a_twin_in_which_nothing_varies_gives_no_floor_and_not_0():
    asked = plan(intervention=None, untrained_twins=1)
    result = run(HasSilentTwin(), *problems(), asked)
    evidence = result.tables["evidence"]
    assert evidence["untrained_abs_r"].isna().all()
    assert evidence["held"].any()


def test_a_component_that_holds_nearly_all_variance_is_announced():
    fit, report = problems()
    everywhere = plan(intervention=None, layers=(0, 1, 2))
    result = run(MassiveModel(), fit, report, everywhere)
    (said,) = [warning for warning in result.summary["warnings"] if "massive" in warning]
    # Of a's spread, the answer's 1, that of b-c 2, and 103 times a: layer 0 has 9 of 11.
    assert said == (
        "in layers 1-2 one component holds 100.0% of the activations' variance at position last: "
        "it may be that of a massive activation; all other components are small beside it, and so "
        "is what edits of them change"
    )
    by_layer = result.tables["correlations"].groupby("layer")["explained_variance_fit"].max()
    assert (by_layer >= MASSIVE).tolist() == [False, True, True]
    plain = run(PlantedModel(), fit, report, everywhere)
    assert not any("massive" in warning for warning in plain.summary["warnings"])


def test_nearly_all_is_95_percent_at_each_position_by_itself():
    *_, sites, traces = planted()

    def of(share, site):
        shares = torch.tensor([share, 1 - share], dtype=torch.float64)
        return replace(traces[site], explained_variance_fit=shares)

    first = {site: of(share, site) for site, share in zip(sites, (0.95, 0.949, 0.98), strict=True)}
    (said,) = massive_components(first)
    assert said.startswith("in layers 0, 2 one component holds 95.0% to 98.0% of the")
    other = Site(1, "resid_post", "first")
    lines = massive_components({**first, other: of(0.97, sites[1])})
    assert [line.split(":")[0] for line in lines] == [
        "in layers 0, 2 one component holds 95.0% to 98.0% of the activations' variance at "
        "position last",
        "in layer 1 one component holds 97.0% of the activations' variance at position first",
    ]


def test_what_lies_outside_the_training_is_said():
    model = PlantedModel()
    assert outside_training(model, problems()[0]) == []
    large = problems({**ABC, "b": (100, 5000)})[0]
    (warning,) = outside_training(model, large)
    assert "go beyond the 1..999 that planted was trained on" in warning
    other = draw(build_template("t", "a-b-c"), n=10, ranges=ABC, seed=0)
    assert outside_training(model, other) == [
        "planted was not trained on a-b-c: look at the baseline accuracy first"
    ]


@pytest.mark.slow
def test_numbers_do_not_depend_on_batches():
    results = [run(PlantedModel(), *problems(), plan(), batch_size=size) for size in (7, 1000)]
    small, large = (result.tables["effects"] for result in results)
    for column in ("accuracy_drop", "mean_shift", "change_rms"):
        torch.testing.assert_close(
            torch.tensor(small[column].to_numpy()),
            torch.tensor(large[column].to_numpy()),
            atol=1e-3,
            rtol=1e-5,
        )
