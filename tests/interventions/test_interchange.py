"""Runs of many values at once: the same numbers as one value at a time, and as whole passes."""

import numpy as np
import pytest
import torch

from mech_arith.engine.batching import Batching
from mech_arith.engine.run import ReferenceAnswers, SiteEdits, run_baseline, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.counterfactual import following
from mech_arith.evidence.metrics import exact
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.specificity import specificity_table
from mech_arith.interventions import interchange
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Target
from mech_arith.interventions.interchange import (
    Direction,
    ceilings,
    cross,
    source_coordinates,
)
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.statistics import Resampling
from tests.directions.test_tracing import planted, traced
from tests.tiny import tiny_encoder

HOW = Resampling(n_resamples=50, n_permutations=30)
N = 15
"""Problems that are edited."""


@pytest.fixture(scope="module", params=["planted", "encoder"])
def known(request):
    """A session, base problems, and sources of several values; those of b-c are not for all."""
    model, fit, report, sites, traces = planted(n=120)
    if request.param == "encoder":
        model = tiny_encoder()
        sites = [Site(layer, "resid_post", "b-c") for layer in (0, 1)]
        sites.append(Site(1, "resid_post", "first"))  # where the answer is read
        traces = traced(model, fit, report, sites, n_components=3, batch_size=50)
    problems = report.take(np.arange(N))
    baseline = run_baseline(
        Session(model, Batching(9)), model.encode(problems), ReferenceAnswers.of_problems(problems)
    )
    session, bases = Session(model, Batching(7)), Bases(problems, baseline, traces, digits=3)
    every = {}
    for value in ("a", "b-c", "a-(b-c)"):
        sources = draw_sources(problems, value, m=2, n_shuffles=5, seed=1)
        assert sources is not None
        every[value] = sources
    every["b-c"] = some_of(every["b-c"], torch.arange(0, N, 3))
    return session, bases, every, sites


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
    session, bases, every, sites = known
    together = ceilings(session, bases, every, sites)
    assert set(together) == {(value, site) for value in every for site in sites}
    for value, sources in every.items():
        for site in sites:
            alone = ceilings(session, bases, {value: sources}, [site])[value, site].numbers
            found = together[value, site].numbers
            assert found.shape == (len(sources.rows),)
            torch.testing.assert_close(found, alone, atol=0.01, rtol=1e-4)


def test_the_whole_activation_of_a_source_is_that_of_a_whole_pass_with_hooks(known):
    """Each problem by itself: its source's activation is read by a hook, and put in by a hook."""
    session, bases, every, sites = known
    model, problems = session.model, bases.problems
    found = ceilings(session, bases, every, sites)
    unlike = 0
    for (value, site), answers in found.items():
        sources, numbers = every[value], answers.numbers
        for index, row in enumerate(sources.rows.tolist()):
            own = model.encode(problems.take(np.array([row])), digits=3)
            theirs = model.encode(sources.problems[0].take(np.array([index])), digits=3)
            answer = interchanged(model, own, theirs, site)
            assert float(numbers[index]) == pytest.approx(answer, rel=1e-3, abs=0.05)
            clean = float(bases.baseline.answers.numbers[row])
            unlike += abs(float(numbers[index]) - clean) > 1
    assert unlike > 20


def interchanged(model, own, theirs, site: Site) -> float:
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
    model.full_pass(theirs.whole(theirs.layouts[0]), {place: read})
    tokens = own.whole(own.layouts[0])
    return float(model.full_pass(tokens, {place: put}))


def test_specificity_of_all_pairs_is_that_of_one_pair_at_a_time(known):
    session, bases, every, sites = known
    scorer = Scorer.of_baseline(
        bases.baseline, tolerance=30.0, written=not session.model.regresses, how=HOW
    )
    directions = [
        Direction(site, Target((k,), ()), bases.traces[site].subspace.directions[[k]])
        for site in sites
        for k in (0, 1)
        if k < len(bases.traces[site].subspace.directions)
    ]
    places = {
        value: source_coordinates(session, bases, sources) for value, sources in every.items()
    }

    def rows(some, of):
        crossed = cross(session, bases, some, of, places)
        return specificity_table(crossed, of, scorer).to_dict(orient="records")

    together = rows(directions, every)
    assert len(together) == len(directions) * len(every)
    by_pair = {
        (row["layer"], row["position"], row["component"], row["changed"]): row for row in together
    }
    for one in directions:
        for value, sources in every.items():
            row = by_pair[one.site.layer, one.site.position, one.target.component, value]
            edited = by_hand(session.model, bases, one, sources, places[value][one.site])
            hits = exact(edited, sources.expected, tolerance=30.0).double()
            assert row["iia"] == pytest.approx(float(hits.mean()))
            clean = scorer.clean.numbers[sources.rows]
            slope = following(edited, clean, sources).slope
            assert row["slope"] == pytest.approx(slope, abs=1e-4, nan_ok=True)
            assert (row["n"], row["n_sources"]) == (len(sources.rows), 2)
            if one.target.component:
                continue
            (alone,) = rows([one], {value: sources})
            for name in ("slope_low", "slope_high", "r2_change", "iia_low"):
                assert row[name] == pytest.approx(alone[name], abs=1e-4, nan_ok=True), name


def by_hand(model, bases, one: Direction, sources: Sources, to: torch.Tensor) -> torch.Tensor:
    """Answers towards each source, one run each, [m, n]."""
    at = list(one.target.components)
    own = bases.traces[one.site].coordinates[sources.rows][:, at]
    found = []
    for of_source in to[..., at]:
        changes = torch.zeros(1, len(bases.baseline), len(at), dtype=torch.float64)
        changes[0, sources.rows] = of_source - own
        edits = SiteEdits(one.site, one.frame[None], changes)
        (answers,) = run_edits(Session(model, Batching(5)), bases.baseline, [edits])
        found.append(answers.numbers[0, sources.rows])
    return torch.stack(found)


def test_sites_that_do_not_fit_together_are_run_in_turns(known, monkeypatch):
    session, bases, every, sites = known
    together = ceilings(session, bases, every, sites)
    monkeypatch.setattr("mech_arith.interventions.interchange.AT_ONCE", 1)
    runs = []
    ran = interchange.run_all

    def run(session, baseline, moves, **said):
        runs.append([one.site for one in moves])
        return ran(session, baseline, moves, **said)

    monkeypatch.setattr(interchange, "run_all", run)
    in_turns = ceilings(session, bases, every, sites)
    assert runs == [[site] for site in sites]
    for place, answers in together.items():
        found = in_turns[place].numbers
        torch.testing.assert_close(found, answers.numbers, atol=0.01, rtol=1e-4)
