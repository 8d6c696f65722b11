"""Cells whose sites are heads: no two of them fall together in a table, a figure or the store."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.errors import UserError
from mech_arith.common.store import Store
from mech_arith.directions.base import find_method
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import SITE_COLUMNS
from mech_arith.evidence.results import load_run, save_run
from mech_arith.experiment.api import compose
from mech_arith.experiment.cell import CellPlan, run_cell
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.locality import LocalityPlan
from mech_arith.interventions.run import InterventionPlan
from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.reports.figures import cell_figures
from mech_arith.reports.page.compact import traced
from mech_arith.reports.page.evidence import evidence_rows, specificity_maps
from mech_arith.reports.wandb.metrics import by_layer, by_strength
from mech_arith.statistics import Resampling

ABC = dict.fromkeys("abc", (100, 999))
LAYERS, HEADS, VALUES = (1, 2), (0, 3), ("a", "b", "c", "b-c", "a-(b-c)")
PLAN = CellPlan(
    layers=LAYERS,
    point="z",
    heads=HEADS,
    positions="last",
    position_map=False,
    method=find_method("pca", 3, {}),
    intervention=InterventionPlan(
        find_edit("interchange"),
        (1.0,),
        values=("a", "b-c"),
        n_sources=1,
        controls=Controls(random=2, span=0, valueless=0, other=False, shuffled=False),
    ),
    n_edited=6,
    locality=LocalityPlan(
        n_problems=3, coordinate_points=6, coordinate_span=1.2, value_points=3, ranges=ABC
    ),
    tolerance=None,
    digits=3,
    how=Resampling(n_resamples=100, n_permutations=100),
)


def run(plan, *, store=None):
    problems = draw(build_template("nested", "a-(b-c)"), n=40, ranges=ABC, seed=0)
    fit, report = split(problems, fit_share=0.5, seed=0)
    session = Session(
        load_arithmetic("arith_encoder"),
        Batching(64),
        store or Store(None),
        Checkpoint.nothing(),
    )
    return run_cell(session, fit, report, plan)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """The tables and the summary, as they are read back."""
    result = run(PLAN)
    directory = tmp_path_factory.mktemp("cell") / "run"
    fields = {"positions": "last", "model": "arith_encoder", "expression": "a-(b-c)"}
    summary = {**result.summary, "cell": fields}
    save_run(directory, tables=result.tables, summary=summary, config_yaml="")
    return load_run(directory)


KEYS = {
    "correlations": ("component", "value"),
    "evidence": ("value",),
    "effects": ("component", "target_value", "arm", "strength"),
    "contrasts": ("component", "target_value", "arm"),
    "control_draws": ("component", "target_value", "arm", "draw", "strength"),
    "counterfactual": ("component", "value", "arm", "strength"),
    "site_contrasts": ("component", "value"),
    "specificity": ("component", "direction_of", "changed"),
    "off_distribution": ("component", "target_value", "strength"),
    "locality": ("component", "value", "moved_by"),
}
"""What tells the rows of one site apart."""


@pytest.mark.parametrize("name", KEYS)
def test_every_table_has_the_rows_of_every_head_and_none_twice(cell, name):
    table = cell.tables[name]
    keys = [*SITE_COLUMNS, *KEYS[name]]
    assert not table[keys].duplicated().any()
    places = set(zip(table["layer"], table["head"], strict=True))
    assert places == {(layer, str(head)) for layer in LAYERS for head in HEADS}
    assert set(table["point"]) == {"z"}


def test_heads_have_numbers_and_controls_of_their_own(cell):
    evidence = cell.tables["evidence"].set_index(["layer", "head", "value"])["r"]
    assert evidence.groupby(["layer", "value"]).nunique().min() == len(HEADS)
    draws = cell.tables["control_draws"].groupby(["layer", "head"])["mean_abs_shift"].first()
    assert draws.nunique() > 1


@pytest.mark.slow
def test_a_head_alone_has_the_numbers_that_it_has_among_others(cell):
    """But for what is corrected for all sites."""
    alone = run(replace(PLAN, heads=(3,), locality=None)).tables
    for name in ("correlations", "effects", "counterfactual", "specificity"):
        ours = cell.tables[name]
        ours = ours.loc[ours["head"] == "3"].reset_index(drop=True)
        theirs = alone[name].reset_index(drop=True)
        for column in set(theirs.select_dtypes("number")) - {"p_holm", "p_bh", "p_site_holm"}:
            numbers = [table[column].to_numpy(float) for table in (ours, theirs)]
            np.testing.assert_allclose(*numbers, rtol=1e-12, atol=1e-15, err_msg=column)


@pytest.mark.slow
def test_the_store_keeps_heads_and_whole_points_apart(tmp_path):
    store = Store(tmp_path)
    plain = replace(PLAN, intervention=None, locality=None, layers=(1,))
    plans = [replace(plain, heads=heads) for heads in ((None,), (0,), (1,))]
    tables = [run(plan, store=store).tables["correlations"] for plan in plans]
    fresh = [run(plan).tables["correlations"] for plan in plans]
    for ours, theirs in zip(tables, fresh, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    assert len({float(table["r"].iloc[0]) for table in tables}) == 3


def test_each_head_is_contrasted_with_the_others_of_its_layer(cell):
    evidence = cell.tables["evidence"].set_index(["layer", "head", "value"])["iia"]
    table = cell.tables["site_contrasts"]
    assert set(table["value"]) == {"a", "b-c"}
    for row in table.to_dict(orient="records"):
        (other,) = (str(head) for head in HEADS if str(head) != row["head"])
        own, there = (evidence[row["layer"], head, row["value"]] for head in (row["head"], other))
        assert row["difference"] == pytest.approx(own - there, abs=1e-12)
        assert row["low"] <= row["difference"] <= row["high"]
        assert 0 < row["p"] <= row["p_max"] <= 1


def test_figures_show_every_head_and_the_map_of_layers_and_heads(cell):
    figures = cell_figures(cell.tables, title="t")
    assert {"heads", "correlations_head_0", "correlations_head_3"} <= set(figures)
    assert "correlations" not in figures
    sheet = figures["heads"]
    evidence = cell.tables["evidence"].set_index(["value", "layer", "head"])
    assert len(sheet.rows) == len(LAYERS) * len(HEADS) * len(VALUES)
    for row in sheet.rows:
        there = evidence.loc[(row["value"], row["layer"], row["head"])]
        assert row["r"] == there["r"]
        assert row.get("iia") == there["iia"] or np.isnan(there["iia"])
    titles = [panel.title for panel in sheet.panels if panel.title]
    assert len(titles) == 3 * len(VALUES)
    panels = {panel.title: panel for panel in sheet.panels}
    for layer in range(len(LAYERS)):
        for at, head in enumerate(HEADS):
            shown = panels["b\n|R|"].cells[layer, at]
            assert shown == abs(evidence.loc[("b", LAYERS[layer], str(head)), "r"])
            ceiling = panels["a\nceiling of IIA"].cells[layer, at]
            assert ceiling == evidence.loc[("a", LAYERS[layer], str(head)), "ceiling"]
    assert np.isnan(panels["b\nIIA"].cells).all()  # no edit goes towards b
    locality = figures["locality_example"]
    named = {panel.title.partition(",")[0] for panel in locality.panels}
    assert named == {f"layer {layer} head {head}" for layer in LAYERS for head in HEADS}


def test_the_page_tells_heads_apart(cell):
    page = traced(cell.tables["correlations"], "last")
    assert [site["position"] for site in page["sites"]] == ["last, head 0", "last, head 3"]
    r = cell.tables["correlations"].set_index(["layer", "head", "component", "value"])["r"]
    for site, head in zip(page["sites"], ("0", "3"), strict=True):
        assert site["r"][1][0][2] == pytest.approx(r[1, head, 2, "b"], abs=1e-4)
    rows = evidence_rows(cell.tables["evidence"])
    assert sum(row["best"] for row in rows) == len(LAYERS) * len(VALUES)
    assert {row["head"] for row in rows} == {"0", "3"}
    chosen = {(row["value"], row["layer"]): row for row in rows if row["best"]}
    best = page["best"]
    for row, value in enumerate(best["values"]):
        for column, layer in enumerate(best["layers"]):
            there = chosen[value, layer]
            assert best["position"][row][column] == f"last, head {there['head']}"
            assert best["r"][row][column] == pytest.approx(there["r"], abs=1e-4)
    for found in specificity_maps(cell.tables["specificity"], cell.tables["evidence"]):
        for value, place in zip(found["directions"], found["position"], strict=True):
            assert place == f"last, head {chosen[value, found['layer']]['head']}"


def test_curves_in_wandb_are_of_heads_where_there_are_several(cell):
    names = set().union(*by_strength(cell.tables["effects"]))
    assert {"accuracy_drop/a/layer_1_head_0", "accuracy_drop/a/layer_2_head_3"} <= names
    rows = by_layer(
        *(cell.tables[n] for n in ("correlations", "effects", "evidence")), positions="last"
    )
    assert [row["layer"] for row in rows] == list(LAYERS)


def test_the_map_of_single_positions_is_of_the_best_head(tmp_path):
    plan = replace(PLAN, intervention=None, locality=None, layers=(1,), position_map=True)
    table = run(plan).tables["correlations"]
    save_run(tmp_path / "run", tables={"correlations": table}, summary={}, config_yaml="")
    table = load_run(tmp_path / "run").tables["correlations"]
    single = table.loc[table["position_index"] >= 0]
    assert not single.duplicated([*SITE_COLUMNS, "component", "value"]).any()
    found = traced(table, "last")["map"]
    last = found["positions"][-1]
    best = single.loc[(single["position_index"] == last) & (single["value"] == "b")]
    best = best.loc[best["r_fit"].abs().idxmax()]
    at = found["values"].index("b"), 0, found["positions"].index(last)
    assert found["head"][at[0]][at[1]][at[2]] == best["head"]
    assert found["component"][at[0]][at[1]][at[2]] == best["component"]
    assert found["r"][at[0]][at[1]][at[2]] == pytest.approx(best["r"], abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (("tracing.heads=each",), "point=z with tracing.heads, got 'resid_post', which heads"),
        (("tracing.point=z", "tracing.heads=[]"), r"a list of query heads, .*, got \[\]; set for"),
        (("tracing.point=z", "tracing.heads=all"), "expected tracing.heads each, null or a list"),
        (("tracing.point=z", "tracing.heads=[-1]"), r"query heads, counted from 0, got \[-1\]"),
        (("tracing.point=z", "tracing.heads=[0.5]"), r"query heads, counted from 0, got \[0.5\]"),
        (("tracing.point=z", "tracing.heads=3"), "query heads, counted from 0, got 3"),
        (
            ("tracing.point=z", "tracing.heads=[1,1]"),
            r"expected distinct tracing.heads, got \[1, 1",
        ),
    ],
)
def test_bad_heads_are_refused_before_a_model_is_loaded(overrides, error):
    with pytest.raises(UserError, match=error) as caught:
        compose(*overrides)
    assert "\n" not in str(caught.value)


def test_heads_beyond_the_model_are_refused_before_anything_runs():
    cell = compose("tracing.point=z", "tracing.heads=[2,4]", "problems.n=40")
    with pytest.raises(UserError, match=r"heads from 0 to 3 .* got \[2, 4\]; change it"):
        cell.run()
    with pytest.raises(UserError, match="expected a head from 0 to 3, got 4"):
        cell.activations(layer=1, head=4)


def test_a_head_from_python_is_its_part_of_the_point():
    cell = compose("tracing.point=z", "tracing.positions=last", "problems.n=40")
    whole, head = cell.activations(layer=1), cell.activations(layer=1, head=2)
    width = whole.shape[1] // cell.session.model.n_heads
    assert (head == whole[:, 2 * width : 3 * width]).all()
    assert cell.subspace(layer=1, head=2, rank=4).directions.shape == (4, width)
