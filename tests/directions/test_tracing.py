from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from mech_arith import compose
from mech_arith.common.store import Store
from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits, _shuffled, trace, value_table
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.best import best_on_fit
from mech_arith.evidence.correlations import correlation_table
from mech_arith.models.attention import NOTHING
from mech_arith.models.base import run_blocks
from mech_arith.problems import draw, split
from mech_arith.problems.templates import build_template
from mech_arith.statistics import (
    Resampling,
    benjamini_hochberg,
    correlation_interval,
    correlation_p,
    holm,
    infer,
    partial_correlation,
    pearson,
    shapley_shares,
)
from tests.tiny import PlantedModel

TEMPLATE = build_template("nested", "a-(b-c)")
FIRST = torch.zeros(20, dtype=torch.int64)
"""The first component, chosen for every value."""

STORE = Store(None)
HOW = Resampling(n_resamples=200, n_permutations=200)


def traced(
    model,
    fit,
    report,
    sites,
    *,
    n_components,
    batch_size,
    store=STORE,
    passed=None,
    method="pca",
    options=None,
):
    """Trace both splits of problems as the model reads them."""
    passed = torch.ones(len(report), dtype=torch.bool) if passed is None else passed
    splits = Splits(fit, report, model.encode(fit), model.encode(report), passed)
    session = Session(model, Batching(batch_size), store)
    return trace(session, splits, sites, find_method(method, n_components, options), HOW)


def clean_resid(model, problems, layer):
    """The residual stream behind a layer at the last position."""
    tokens = model.encode(problems).layouts[0].tokens
    resid, _ = run_blocks(model, model.embed(tokens), start=0, pasts=[NOTHING] * model.n_layers)
    return resid[layer + 1][:, -1]


@cache
def planted(position="last", batch_size=64, n=400):
    model = PlantedModel()
    problems = draw(TEMPLATE, n=n, ranges=dict.fromkeys("abc", (100, 999)), seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    sites = [Site(layer, "resid_post", position) for layer in range(3)]
    traces = traced(model, fit, report, sites, n_components=3, batch_size=batch_size)
    return model, fit, report, sites, traces


def test_planted_values_are_found_where_they_are_written():
    model, _, report, sites, traces = planted()
    for site in sites[:1]:
        found = traces[site]
        for value, direction in (("b-c", model.used), ("a", model.unused)):
            component = found.best_component(value)
            r = float(found.r[component, found.values.index(value)])
            assert abs(r) >= 0.99
            cosine = float(found.subspace.directions[component] @ direction.double())
            assert abs(cosine) >= 0.99
    in_layer_0 = traces[sites[0]]
    answer = in_layer_0.values.index("a-(b-c)")
    assert float(in_layer_0.r[:, answer].abs().max()) < 0.9
    assert torch.equal(value_table(report)[:, answer].long(), torch.from_numpy(report.answers))


def test_coordinates_and_correlations_do_not_depend_on_batches():
    *_, sites, whole = planted(batch_size=1000)
    *_, batched = planted(batch_size=7)
    for site in sites:
        torch.testing.assert_close(whole[site].r, batched[site].r, atol=1e-6, rtol=1e-6)


def test_numbers_come_from_the_report_split():
    model, _, report, sites, traces = planted()
    found = traces[sites[0]]
    resid = clean_resid(model, report, 0)
    coordinates = found.subspace.project(resid).numpy()
    expected = np.corrcoef(coordinates[:, 0], report.values["a"])[0, 1]
    assert float(found.r[0, found.values.index("a")]) == pytest.approx(expected, abs=1e-6)
    centred = resid.double() - resid.double().mean(0)
    total = centred.square().sum() / (len(report) - 1)
    share = coordinates.var(axis=0, ddof=1) / float(total)
    np.testing.assert_allclose(found.explained_variance, share, rtol=1e-6)
    assert abs(float(found.explained_variance_fit.sum()) - 1) < 1e-6


def test_the_table_has_a_row_per_site_component_and_value():
    model, _, report, _, traces = planted()
    prompts = model.encode(report)
    table = correlation_table(traces, prompts=prompts, n_fit=200)
    assert len(table) == sum(trace.r.numel() for trace in traces.values())
    assert set(table["token"]) == {"="}
    assert set(table["position_index"]) == {3}
    np.testing.assert_allclose(table["abs_r"], table["r"].abs())
    best = best_on_fit(table.loc[table["chosen"].astype(bool)]).set_index("value")
    assert best.loc["b-c", "abs_r"] > 0.99


def test_values_are_read_together_as_each_by_itself():
    *_, traces = planted()
    for found in traces.values():
        for value, one in enumerate(found.fitted.readings(1)):
            assert one is not None
            alone = found.fitted.reading(one.components, value)
            assert alone.components == one.components == (int(found.chosen[value]),)
            torch.testing.assert_close(one.read, alone.read)
            assert (one.r2, one.r_fit) == (pytest.approx(alone.r2), pytest.approx(alone.r_fit))


def test_positions_that_never_vary_have_no_rows():
    model = PlantedModel()
    *_, traces = planted()
    assert not any(found.is_constant for found in traces.values())
    problems = draw(TEMPLATE, n=50, ranges=dict.fromkeys("abc", (100, 999)), seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    site = Site(0, "resid_pre", "last")  # the planted prompt ends on a constant token
    constant = traced(model, fit, report, [site], n_components=2, batch_size=50)
    assert constant[site].is_constant
    assert correlation_table(constant, prompts=model.encode(report), n_fit=25).empty


def test_r_of_both_splits_is_numpys():
    model, fit, report, sites, traces = planted(batch_size=37)
    found = traces[sites[1]]
    for problems, r in ((fit, found.r_fit), (report, found.r)):
        coordinates = found.subspace.project(clean_resid(model, problems, 1)).numpy()
        for index, value in enumerate(found.values):
            expected = np.corrcoef(coordinates[:, 0], problems.values[value])[0, 1]
            assert float(r[0, index]) == pytest.approx(expected, abs=1e-6)


def test_r_of_the_problems_answered_right_is_of_those_alone():
    model, fit, report, sites, _ = planted()
    passed = torch.arange(len(report)) % 3 == 0
    asked = {"n_components": 3, "batch_size": 64, "passed": passed}
    found = traced(model, fit, report, sites[:1], **asked)[sites[0]]
    few = found.coordinates[passed, 0].numpy()
    expected = np.corrcoef(few, report.values["a"][passed.numpy()])[0, 1]
    assert float(found.r_passed[0, found.values.index("a")]) == pytest.approx(expected, abs=1e-6)
    assert found.r_passed[0, 0] != found.r[0, 0]


def test_what_the_store_has_is_not_computed_again(tmp_path, monkeypatch):
    model, fit, report, sites, _ = planted()
    asked = {"n_components": 3, "batch_size": 64}
    first = traced(model, fit, report, sites[:2], store=Store(tmp_path), **asked)
    captured = []

    def embed(tokens, *, start=0):
        captured.append(len(tokens))
        return PlantedModel.embed(model, tokens, start=start)

    monkeypatch.setattr(model, "embed", embed)
    again = traced(model, fit, report, sites[:2], store=Store(tmp_path), **asked)
    assert captured == []
    for site in sites[:2]:
        assert torch.equal(first[site].r, again[site].r)
        assert torch.equal(first[site].coordinates, again[site].coordinates)
        assert torch.equal(first[site].subspace.directions, again[site].subspace.directions)
    # other strengths or values do not matter; other problems, components or weights do
    traced(model, fit, report, sites, store=Store(tmp_path), **asked)
    assert captured != []
    captured.clear()
    traced(model, report, fit, sites[:2], store=Store(tmp_path), **asked)
    assert captured != []
    captured.clear()
    traced(model, fit, report, sites[:2], store=Store(tmp_path), method="pls", **asked)
    assert captured != []
    captured.clear()
    model.digest = "1" * 64
    traced(model, fit, report, sites[:2], store=Store(tmp_path), **asked)
    assert captured != []


def test_the_place_of_a_value_is_on_the_line_that_numpy_fits():
    model, fit, _, sites, traces = planted()
    found = traces[sites[1]]
    coordinates = found.subspace.project(clean_resid(model, fit, 1)).numpy()
    wanted = torch.tensor([[-500.0, 0.0], [1.0, 900.0]], dtype=torch.float64)
    for value in found.values:
        for component in range(2):
            line = np.polyfit(fit.values[value], coordinates[:, component], 1)
            np.testing.assert_allclose(
                found.predicted_coordinate(component, value, wanted),
                np.polyval(line, wanted),
                atol=1e-4,
            )


def test_shuffled_directions_are_fitted_on_values_in_another_order():
    model, fit, _, sites, traces = planted()
    found = traces[sites[1]]
    values = value_table(fit)
    shuffled = _shuffled(values)
    assert torch.equal(shuffled.sort(0).values, values.sort(0).values)
    resid = clean_resid(model, fit, 1).double()
    covariance = (resid - resid.mean(0)).mT @ (shuffled - shuffled.mean(0))
    expected = (covariance / covariance.norm(dim=0)).mT
    torch.testing.assert_close(found.shuffled, expected, atol=1e-5, rtol=1e-5)
    # Each value has an order of its own, and none is the values' own.
    assert pearson(shuffled, values).abs().max() < 0.3
    assert pearson(shuffled, shuffled).fill_diagonal_(0).abs().max() < 0.3
    assert torch.equal(_shuffled(values), shuffled)
    assert not torch.equal(_shuffled(values + 1), shuffled + 1)


def test_a_value_that_is_constant_has_no_shuffled_direction():
    model = PlantedModel()
    ranges = {"a": (100, 999), "b": (500, 500), "c": (100, 999)}
    problems = draw(TEMPLATE, n=80, ranges=ranges, seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    site = Site(1, "resid_post", "last")
    found = traced(model, fit, report, [site], n_components=2, batch_size=80)[site]
    assert found.shuffled[1].isnan().all()
    assert torch.allclose(found.shuffled[[0, 2]].norm(dim=1), torch.ones(2, dtype=torch.float64))
    assert found.inference.p_site[1].isnan()
    table = correlation_table({site: found}, prompts=model.encode(report), n_fit=40)
    of_b = table[table["value"] == "b"]
    assert set(of_b["partial_r_undefined"]) == {"b is constant"}
    assert of_b["partial_r"].isna().all()
    assert set(of_b["least_partial_given"]) == {""}


def test_the_table_says_how_sure_each_r_is_and_how_far_it_is_the_values_own():
    """Every column against the statistics called for one site alone; p corrected over all."""
    model, _, report, sites, traces = planted()
    table = correlation_table(traces, prompts=model.encode(report), n_fit=200)
    values, names = value_table(report), list(TEMPLATE.expression.values)
    by_site = [correlation_p([traces[site].coordinates], values, HOW) for site in sites]
    p_site = torch.cat([p.site for p in by_site])
    best = torch.stack([traces[site].r_fit.abs().argmax(0) for site in sites])
    tested = torch.stack([p.own[0] for p in by_site]).gather(1, best[:, None])[:, 0]
    for row, site in enumerate(sites):
        x = traces[site].coordinates
        rows = table[table["layer"] == site.layer].set_index(["component", "value"])
        low, high = correlation_interval(x, values, HOW)
        pairs = [
            partial_correlation(x, values, given=[given]).index_fill(1, torch.tensor(given), np.nan)
            for given in range(5)
        ]
        each = torch.stack(pairs, dim=2).numpy()
        for (k, v), of_all in np.ndenumerate(low.numpy()):
            of_row = rows.loc[(k, names[v])]
            assert of_row["r_low"] == pytest.approx(of_all)
            assert of_row["r_high"] == pytest.approx(float(high[k, v]))
            assert of_row["r_low"] <= of_row["r"] <= of_row["r_high"]
            for name, of_site in (("p_site", p_site), ("p_site_holm", holm(p_site))):
                assert of_row[name] == pytest.approx(float(of_site[row, v]))
            assert of_row["p"] == pytest.approx(float(by_site[row].own[0, k, v]))
            assert of_row["chosen"] == (k == best[row, v])
            for name, adjusted in (("p_holm", holm(tested)), ("p_bh", benjamini_hochberg(tested))):
                expected = float(adjusted[row, v]) if of_row["chosen"] else np.nan
                assert of_row[name] == pytest.approx(expected, nan_ok=True)
            least = np.nanargmin(np.abs(each[k, v]))
            assert of_row["least_partial_r"] == pytest.approx(each[k, v, least])
            assert of_row["least_partial_given"] == names[least]
            assert of_row["shapley"] == pytest.approx(float(shapley_shares(x, values)[k, v]))
            assert np.isnan(of_row["partial_r"])
    said = table.drop_duplicates("value").set_index("value")["partial_r_undefined"]
    assert said["b-c"] == "b-c = b - c"
    assert said["a"] == "a = (b-c) + (a-(b-c))"


def test_values_without_relations_have_a_partial_r():
    template = build_template("product", "a*b")
    problems = draw(template, n=200, ranges=dict.fromkeys("ab", (1, 99)), seed=1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    values = value_table(problems)
    x[:, 0] += values[:, 2] / 1000
    (found,) = infer([x], values, template.expression.values, HOW, chosen=[FIRST[:3]])
    assert found.relations == ("", "", "")
    torch.testing.assert_close(found.partial_r, partial_correlation(x, values, given=[0, 1, 2]))
    assert found.partial_r[0, 2] > 0.3
    # The product is the coordinate's own; a and b are in it only by way of the product.
    assert found.shapley[0].argmax() == 2
    assert found.partial_r[0, :2].abs().max() < 0.3


def test_without_sites_nothing_is_inferred():
    assert infer([], torch.ones(5, 2), ["a", "b"], HOW, chosen=[]) == []


def test_beyond_a_dozen_values_no_share_is_said():
    values = torch.randn(60, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [f"v{i}" for i in range(13)]
    (found,) = infer([values[:, :2] + 1], values, names, HOW, chosen=[FIRST[:13]])
    assert found.shapley.isnan().all()
    # Each coordinate is a value: nothing of it is left beside that.
    assert found.partial_r[0, 1:].isnan().all()


def test_a_coordinate_that_values_make_up_is_said_to_be_one():
    model, _, report, sites, traces = planted()
    found = traces[sites[0]]
    x = found.coordinates.clone()
    x[:, 0] = value_table(report)[:, 0]
    (inference,) = infer([x], value_table(report)[:, :3], "abc", HOW, chosen=[FIRST[:3]])
    exact = replace(
        found,
        values=("a", "b", "c"),
        inference=inference,
        shuffled=found.shuffled[:3],
        values_report=found.values_report[:, :3],
        **{name: getattr(found, name)[..., :3] for name in ("r", "r_fit", "r_passed")},
        **{name: getattr(found, name)[:3] for name in ("value_mean", "value_sd")},
    )
    table = correlation_table({sites[0]: exact}, prompts=model.encode(report), n_fit=200)
    said = table[table["component"] == 0].set_index("value")["partial_r_undefined"]
    assert said["b"] == "the other values make up the coordinate"


def test_a_value_that_goes_with_another_one_perfectly_is_not_told_from_it():
    values = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.stack([values[:, 0], 2 * values[:, 0] + 1, values[:, 1]], dim=1)
    (found,) = infer([values[:, :1] + 0.1 * values[:, 2:]], values, "abc", HOW, chosen=[FIRST[:3]])
    assert found.least_partial_r[0, 0] == 0
    assert found.least_partial_given[0, :2].tolist() == [1, 0]


def test_a_control_task_that_finds_no_direction_has_no_coordinates():
    # At a position of the map where activations never vary there is nothing to find.
    cell = compose(
        *("template=sum_of_two", "hypothesis=digits", "tracing=mean_difference", "layers=[1]"),
        *("problems.n=60", "intervention=none", "inference.permutations=100"),
        *("inference.resamples=100", "store.enabled=false"),
    )
    assert not cell.run()["correlations"].empty
