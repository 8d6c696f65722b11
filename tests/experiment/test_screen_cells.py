"""Cells that screen their sites: what is kept, what is measured, and what is refused."""

import json
import re
from dataclasses import replace
from math import inf
from pathlib import Path

import pandas as pd
import pytest

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.directions.base import find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.evidence.screen import agreement, screen_lines, screen_warnings
from mech_arith.experiment.cell import CellPlan, run_cell
from mech_arith.interventions.screening import ScreenPlan
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.models.kinds import Metric
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.reports.figures import cell_figures
from mech_arith.reports.figures.sheet import Sheet
from mech_arith.statistics import Resampling
from tests.running import SMALL, main
from tests.tiny import PlantedModel

ABC = dict.fromkeys("abc", (100, 999))
HOW = Resampling(n_resamples=100, n_permutations=100)
PLAN = CellPlan(
    layers=range(3),
    point="resid_post",
    positions="each",
    position_map=True,
    method=find_method("pca", 2, {}),
    intervention=None,
    n_edited=15,
    locality=None,
    tolerance=None,
    digits=3,
    how=HOW,
    screen=ScreenPlan(keep=4, sample=12, points=("resid_pre", "mlp_out", "resid_post")),
)


def run(plan=PLAN, *, model=None, checkpoint=None):
    problems = draw(build_template("nested", "a-(b-c)"), n=60, ranges=ABC, seed=0)
    fit, report = split(problems, fit_share=0.5, seed=0)
    session = Session(
        model or PlantedModel(), Batching(16), Store(None), checkpoint or Checkpoint.nothing()
    )
    return run_cell(session, fit, report, plan)


@pytest.fixture(scope="module")
def cell():
    return run()


def test_the_sites_with_the_largest_scores_are_traced_and_no_others(cell):
    """The answer is written by layer 1's MLP and stays; nothing else moves it as far."""
    screen = cell.tables["screen"]
    assert len(screen) == 3 * 3 * 4  # layers, points, positions
    kept = screen.loc[screen["kept"]]
    assert len(kept) == 4
    assert kept["score"].abs().min() >= screen.loc[~screen["kept"], "score"].abs().max()
    assert set(kept["place"]) == {1, 2, 3, 4}
    place = ["layer", "point", "position"]
    assert set(map(tuple, kept[place].values)) == {
        *((layer, "resid_post", "3") for layer in (1, 2)),
        (1, "mlp_out", "3"),
        (2, "resid_pre", "3"),
    }
    for name in ("correlations", "evidence", "screen_directions"):
        assert set(map(tuple, cell.tables[name][place].values)) == set(
            map(tuple, kept[place].values)
        )


def test_exact_effects_stand_beside_the_kept_and_the_sampled(cell):
    """In a linear model both are the same but for the split: the answer moves all the way."""
    screen = cell.tables["screen"]
    measured = screen["effect"].notna()
    assert (measured == (screen["kept"] | screen["sampled"])).all()
    assert screen["sampled"].sum() == 12
    rows = screen.loc[measured]
    assert (rows["n_report"] == 15).all()
    assert (screen["n_fit"] == 30).all()
    assert set(screen["metric"]) == {Metric.NUMBER.value}
    still = rows.loc[rows["score"] == 0]
    assert len(still)
    assert (still["effect"] == 0).all()
    assert ((rows["effect_low"] <= rows["effect"]) & (rows["effect"] <= rows["effect_high"])).all()
    assert cell.summary["screen"]["spearman"] > 0.9
    assert cell.summary["screen"]["n_candidates"] == len(screen)
    assert cell.summary["screen"]["missed"] == 0


def test_directions_have_a_score_and_an_effect(cell):
    """The first component at the answer's layers is the answer: it does all that the whole does."""
    found = cell.tables["screen_directions"].merge(
        cell.tables["screen"], on=["layer", "point", "position", "head"], suffixes=("", "_whole")
    )
    first = found.loc[(found["component"] == 0) & (found["point"] == "mlp_out")].iloc[0]
    assert first["effect"] == pytest.approx(first["effect_whole"], rel=1e-3)
    assert first["score"] == pytest.approx(first["score_whole"], rel=1e-3)
    assert found["effect"].notna().all()


def test_the_map_is_drawn_and_the_line_is_said(cell):
    figure = cell_figures(cell.tables, title="planted")["screen"]
    assert isinstance(figure, Sheet)
    assert len(figure.panels) == 4  # three points and the scale
    assert "positions" not in cell_figures(cell.tables, title="planted") or True
    (line,) = screen_lines(cell.summary)
    assert line.startswith("Screened: 4 of 36 sites")
    assert screen_lines({}) == []


def test_a_screen_that_is_no_good_is_warned_of():
    screen = {"spearman": 0.1, "n": 20, "missed": 0, "n_left_out": 9, "steps": 0}
    (said,) = screen_warnings({"screen": screen})
    assert "Spearman 0.10 on 20 sites" in said
    assert "screen=integrated" in said
    (said,) = screen_warnings({"screen": screen | {"spearman": 0.9, "missed": 2, "steps": 4}})
    assert said.startswith("2 of 9 sites")
    assert "more screen.steps" in said
    assert screen_warnings({"screen": screen | {"spearman": 0.9}}) == []


def test_agreement_by_hand():
    table = pd.DataFrame(
        {"score": [1.0, -5.0, 2.0, 3.0, 9.0], "effect": [-1.0, 4.0, 3.0, 2.0, None]}
    )
    found = agreement(table, keep=2, how=HOW)
    # ranks of sizes: scores 1 4 2 3, effects 1 4 3 2
    assert found["spearman"] == pytest.approx(0.8)
    assert (found["n"], found["top_k"], found["overlap_by_chance"]) == (4, 2, 0.5)
    assert found["overlap"] == 0.5
    assert agreement(table, keep=10, how=HOW)["top_k"] == 2


class Counted(PlantedModel):
    """Is stopped when it reads out for the nth time."""

    def __init__(self, stop=None):
        super().__init__()
        self.passes, self.stop = 0, stop

    def read_out(self, resid):
        self.passes += 1
        if self.passes == self.stop:
            raise KeyboardInterrupt
        return super().read_out(resid)


class Noting(Checkpoint):
    """Knows how many passes were over when the first work was to be kept."""

    def __init__(self, model):
        super().__init__(Store(None), cell="x")
        self.model, self.before = model, None

    def piece(self, stage, key):
        self.before = self.model.passes if self.before is None else self.before
        return super().piece(stage, key)


def test_an_interrupted_screen_goes_on_to_the_same_numbers(cell, tmp_path):
    """The check of the fast path keeps nothing: it is the first third of the passes here."""
    whole = Counted()
    noting = Noting(whole)
    run(model=whole, checkpoint=noting)
    found = []
    for n_kept in (0, 1, 5, 12, 20):
        own, stop = Store(tmp_path / str(n_kept)), noting.before + n_kept + 1
        with pytest.raises(KeyboardInterrupt):
            run(model=Counted(stop), checkpoint=Checkpoint(own, cell="x", every_s=0.0))
        # It keeps nothing of its own, which it might find too.
        again, rest = Checkpoint(own, cell="x", every_s=inf), Counted()
        result = run(model=rest, checkpoint=again)
        found.append(again.found)
        assert rest.passes <= whole.passes - n_kept
        for name, table in cell.tables.items():
            pd.testing.assert_frame_equal(result.tables[name], table, check_exact=True)
    assert found == sorted(set(found))
    assert found[:2] == [0, 1]


@pytest.mark.slow
def test_a_language_models_layouts_and_heads(tmp_path):
    """The shipped decoder by the command line: heads of z beside whole points, an interchange."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        overrides = (
            "screen=integrated",
            "screen.steps=2",
            "screen.keep=3",
            "screen.sample=10",
            "screen.points=[z,resid_post]",
            "tracing.heads=each",
            "tracing.positions=each",
            "intervention=interchange",
        )
        assert main(monkeypatch, tmp_path, *SMALL, *overrides) == 0
    summary = json.loads(Path(tmp_path, "run", "summary.json").read_text())
    assert summary["screen"]["n_kept"] == 3
    assert summary["cell"]["screen"] == "integrated"
    table = pd.read_parquet(tmp_path / "run" / "screen.parquet")
    assert set(table.loc[table["point"] == "z", "head"]) == {"0", "1", "2", "3"}
    assert bool(table.loc[table["point"] != "z", "head"].isna().all())


REFUSED = {
    ("intervention.save_model=M", "intervention.via=weights"): "expected screen=none with .*save",
    ("screen.keep=0",): "expected screen.keep >= 1, got 0",
    ("screen.keep=99999",): "expected screen.keep up to 56, the sites that",
    ("screen.sample=3",): "expected screen.sample >= 10, got 3",
    ("screen.metric=loss",): "metric",
    ("screen.points=[z,nowhere]",): "nowhere",
    ("screen.points=[z,z]",): "expected distinct screen.points",
    ("screen.points=z",): "expected screen.points all, null or a list of points, got 'z'",
    ("screen=integrated", "screen.steps=0"): "expected screen.steps from 1 to 1000, got 0",
    ("intervention.via=weights", "tracing.positions=last"): "expected screen=none with",
    ("locality.enabled=true", "tracing.positions=last"): "expected screen=none with locality",
    ("engine=full",): "one by one.*set screen=none",
}


FAST = [one for one in REFUSED if one[0] in ("screen.keep=0", "screen.keep=99999", "engine=full")]


def with_mark(overrides):
    marks = () if overrides in FAST else pytest.mark.slow
    return pytest.param(overrides, marks=marks, id=" ".join(overrides))


@pytest.mark.parametrize("overrides", [*map(with_mark, REFUSED)])
def test_bad_input_ends_in_one_line(overrides, tmp_path, monkeypatch, capfd):
    asked = ("screen=attribution", "tracing.positions=each", "problems.n=60", "wandb=disabled")
    fewer = [one for one in asked if one.split("=")[0] not in {o.split("=")[0] for o in overrides}]
    assert main(monkeypatch, tmp_path, *fewer, *overrides) == 1
    said = "\n".join(capfd.readouterr())
    assert "Traceback" not in said
    lines = [one for one in said.splitlines() if re.search(REFUSED[overrides], one)]
    assert len({line.split("expected", 1)[-1] for line in lines}) == 1, said


def test_without_a_screen_nothing_is_added(cell):
    found = run(replace(PLAN, screen=None, positions="last"))
    assert not {"screen", "screen_directions"} & set(found.tables)
    assert "screen" not in found.summary


@pytest.mark.parametrize("metric", [Metric.LOG_PROB, Metric.LOGIT_DIFFERENCE])
def test_a_model_that_writes_is_screened_by_either_metric(metric):
    plan = replace(
        PLAN,
        layers=(2, 3),
        screen=ScreenPlan(keep=2, sample=10, metric=metric, points=("resid_post",)),
    )
    found = run(plan, model=load_arithmetic("arith_decoder"))
    assert set(found.tables["screen"]["metric"]) == {metric.value}
    assert found.summary["screen"]["spearman"] > 0.5
    # Sizes choose, whatever their sign.
    screen = found.tables["screen"]
    kept = screen.loc[screen["kept"], "score"]
    assert kept.abs().min() >= screen.loc[~screen["kept"], "score"].abs().max()
    # What a log-probability of a sure model can only do is fall.
    if metric is Metric.LOGIT_DIFFERENCE:
        assert kept.min() < 0
        assert found.tables["screen"]["effect"].min() < -1
