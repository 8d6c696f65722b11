"""Runs of many values at once: the same numbers as one value at a time, and as whole passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mech_arith.batching import Batching
from mech_arith.controls import Target
from mech_arith.counterfactual import Sources, draw_sources, following
from mech_arith.effects import Judge
from mech_arith.engine import Asked, SiteEdits, run_baseline, run_edits
from mech_arith.interchange import (
    Bench,
    Direction,
    ceilings,
    source_coordinates,
    specificity_rows,
)
from mech_arith.metrics import exact
from mech_arith.sites import Site
from mech_arith.statistics import Resampling
from mech_arith.unfinished import Unfinished
from tests.test_tracing import planted, traced
from tests.tiny import tiny_encoder

HOW = Resampling(n_resamples=50, n_permutations=30)
N = 15
"""Problems that are edited."""


@pytest.fixture(scope="module", params=["planted", "encoder"])
def known(request):
    """A bench, its problems, and sources of several values, of which one leaves problems out."""
    solver, fit, report, sites, traces = planted(n=120)
    if request.param == "encoder":
        solver = tiny_encoder()
        sites = [Site(layer, "resid_post", "b-c") for layer in (0, 1)]
        sites.append(Site(1, "resid_post", "first"))  # where the answer is read
        traces = traced(solver, fit, report, sites, n_components=3, batch_size=50)
    problems = report.take(np.arange(N))
    baseline = run_baseline(
        solver, solver.encode(problems), Asked.of_problems(problems), batching=Batching(9)
    )
    bench = Bench(solver, baseline, traces, 3, Batching(7), Unfinished.nothing())
    every = {}
    for value in ("a", "b-c", "a-(b-c)"):
        sources = draw_sources(problems, value, m=2, n_shuffles=5, seed=1)
        assert sources is not None
        every[value] = sources
    every["b-c"] = some_of(every["b-c"], torch.arange(0, N, 3))
    return bench, problems, every, sites


def some_of(sources: Sources, rows: torch.Tensor) -> Sources:
    """As if the others had none."""
    at = rows.numpy()
    return Sources(
        sources.value,
        sources.base.take(at),
        rows,
        tuple(problems.take(at) for problems in sources.problems),
        sources.other[..., rows],
    )


def test_ceilings_of_all_values_are_those_of_one_value_at_a_time(known):
    bench, _, every, sites = known
    together = ceilings(bench, every, sites)
    assert set(together) == {(value, site) for value in every for site in sites}
    for value, sources in every.items():
        for site in sites:
            alone = ceilings(bench, {value: sources}, [site])[value, site]
            assert together[value, site].shape == (len(sources.rows),)
            torch.testing.assert_close(together[value, site], alone, atol=0.01, rtol=1e-4)


def test_the_whole_activation_of_a_source_is_that_of_a_whole_pass_with_hooks(known):
    """Each problem by itself: its source's activation is read by a hook, and put in by a hook."""
    bench, problems, every, sites = known
    solver = bench.solver
    found = ceilings(bench, every, sites)
    unlike = 0
    for (value, site), numbers in found.items():
        sources = every[value]
        for index, row in enumerate(sources.rows.tolist()):
            own = solver.encode(problems.take(np.array([row])), digits=3)
            theirs = solver.encode(sources.problems[0].take(np.array([index])), digits=3)
            answer = interchanged(solver, own, theirs, site)
            assert float(numbers[index]) == pytest.approx(answer, rel=1e-3, abs=0.05)
            clean = float(bench.baseline.answers.numbers[row])
            unlike += abs(float(numbers[index]) - clean) > 1
    assert unlike > 20


def interchanged(solver, own, theirs, site: Site) -> float:
    """The answer with the whole activation taken from another prompt, all by full passes."""
    (positions,) = own.positions(site.position)
    kept = []

    def read(activation):
        kept.append(activation[:, list(positions)].clone())
        return activation

    def put(activation):
        changed = activation.clone()
        changed[:, list(positions)] = kept[0]
        return changed

    place = (site.layer, site.point)
    solver.full_pass(theirs.whole(theirs.layouts[0]), {place: read})
    tokens = own.whole(own.layouts[0])
    return float(solver.full_pass(tokens, {place: put}))


def test_specificity_of_all_pairs_is_that_of_one_pair_at_a_time(known):
    bench, _, every, sites = known
    judge = Judge(
        bench.baseline.answers,
        bench.baseline.asked.right,
        30.0,
        not bench.solver.regresses,
        HOW,
    )
    directions = [
        Direction(site, Target(k, ()), bench.traces[site].components.directions[k])
        for site in sites
        for k in (0, 1)
        if k < len(bench.traces[site].components.directions)
    ]
    places = {value: source_coordinates(bench, sources) for value, sources in every.items()}
    together = specificity_rows(bench, directions, every, places, judge)
    assert len(together) == len(directions) * len(every)
    by_pair = {
        (row["layer"], row["position"], row["component"], row["changed"]): row for row in together
    }
    for one in directions:
        for value, sources in every.items():
            row = by_pair[one.site.layer, one.site.position, one.target.component, value]
            edited = by_hand(bench, one, sources, places[value][one.site])
            hits = exact(edited, sources.expected, tolerance=30.0).double()
            assert row["agreement"] == pytest.approx(float(hits.mean()))
            clean = judge.clean.numbers[sources.rows]
            slope = following(edited, clean, sources).slope
            assert row["slope"] == pytest.approx(slope, abs=1e-4, nan_ok=True)
            assert (row["n"], row["n_sources"]) == (len(sources.rows), 2)
            if one.target.component:
                continue
            (alone,) = specificity_rows(bench, [one], {value: sources}, places, judge)
            for name in ("slope_low", "slope_high", "r2_change", "agreement_low"):
                assert row[name] == pytest.approx(alone[name], abs=1e-4, nan_ok=True), name


def by_hand(bench, one: Direction, sources: Sources, to: torch.Tensor) -> torch.Tensor:
    """Answers towards each source, one run each, [m, n]."""
    own = bench.traces[one.site].coordinates[sources.rows, one.target.component]
    found = []
    for of_source in to[..., one.target.component]:
        changes = torch.zeros(1, len(bench.baseline), dtype=torch.float64)
        changes[0, sources.rows] = of_source - own
        edits = SiteEdits(one.site, one.along[None], changes)
        (answers,) = run_edits(bench.solver, bench.baseline, [edits], batching=Batching(5))
        found.append(answers.numbers[0, sources.rows])
    return torch.stack(found)


def test_sites_that_do_not_fit_together_are_run_in_turns(known, monkeypatch):
    bench, _, every, sites = known
    together = ceilings(bench, every, sites)
    monkeypatch.setattr("mech_arith.interchange.AT_ONCE", 1)
    runs = []
    counted = replace(bench)
    ran = Bench.run

    def run(self, moves, **said):
        runs.append([one.site for one in moves])
        return ran(self, moves, **said)

    monkeypatch.setattr(Bench, "run", run)
    in_turns = ceilings(counted, every, sites)
    assert runs == [[site] for site in sites]
    for place, numbers in together.items():
        torch.testing.assert_close(in_turns[place], numbers, atol=0.01, rtol=1e-4)
