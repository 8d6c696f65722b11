import numpy as np
import pytest
import torch

from mech_arith.problems import draw, split
from mech_arith.sites import Site
from mech_arith.templates import build_template
from mech_arith.tracing import best_rows, correlation_table, trace, value_table
from tests.tiny import PlantedSolver

TEMPLATE = build_template("nested", "a-(b-c)")
LAST = (3,)


def traced(solver, fit, report, sites, *, n_components, batch_size):
    """Trace both splits of problems as the solver reads them."""
    prompts = solver.encode(fit), solver.encode(report)
    return trace(
        solver, *prompts, fit, report, sites, n_components=n_components, batch_size=batch_size
    )


def planted(position="last", indices=LAST, batch_size=64, n=400):
    solver = PlantedSolver()
    problems = draw(TEMPLATE, n=n, ranges=dict.fromkeys("abc", (100, 999)), seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    sites = [Site(layer, "resid_post", position, indices) for layer in range(3)]
    traces = traced(solver, fit, report, sites, n_components=3, batch_size=batch_size)
    return solver, fit, report, sites, traces


def test_planted_values_are_found_where_they_are_written():
    solver, _, report, sites, traces = planted()
    for site in sites[:1]:
        found = traces[site]
        for value, direction in (("b-c", solver.used), ("a", solver.unused)):
            component = found.best_component(value)
            r = float(found.r[component, found.values.index(value)])
            assert abs(r) >= 0.99
            cosine = float(found.components.directions[component] @ direction.double())
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
    solver, _, report, sites, traces = planted()
    found = traces[sites[0]]
    resid = solver.run(solver.encode(report).tokens).resid[1][:, 3]
    coordinates = found.components.project(resid).numpy()
    expected = np.corrcoef(coordinates[:, 0], report.values["a"])[0, 1]
    assert float(found.r[0, found.values.index("a")]) == pytest.approx(expected, abs=1e-6)
    centred = resid.double() - resid.double().mean(0)
    total = centred.square().sum() / (len(report) - 1)
    share = coordinates.var(axis=0, ddof=1) / float(total)
    np.testing.assert_allclose(found.explained_variance, share, rtol=1e-6)
    assert abs(float(found.explained_variance_fit.sum()) - 1) < 1e-6


def test_the_table_has_a_row_per_site_component_and_value():
    *_, traces = planted()
    table = correlation_table(traces, labels=("a", "b", "c", "="), n_fit=200, n_report=200)
    assert len(table) == sum(trace.r.numel() for trace in traces.values())
    assert set(table["token"]) == {"="}
    assert set(table["position_index"]) == {3}
    np.testing.assert_allclose(table["abs_r"], table["r"].abs())
    best = best_rows(table).set_index("value")
    assert best.loc["b-c", "abs_r"] > 0.99


def test_positions_that_never_vary_have_no_rows():
    solver = PlantedSolver()
    *_, traces = planted("first token of nothing", (3,))
    assert not any(found.is_constant for found in traces.values())
    problems = draw(TEMPLATE, n=50, ranges=dict.fromkeys("abc", (100, 999)), seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    site = Site(0, "resid_pre", "last", LAST)  # the planted prompt ends on a constant token
    constant = traced(solver, fit, report, [site], n_components=2, batch_size=50)
    # resid_pre is tapped by `run`, before any block has written
    assert constant[site].is_constant
    assert correlation_table(constant, labels=("",) * 4, n_fit=25, n_report=25).empty
