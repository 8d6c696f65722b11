"""Subspaces of several directions: laws of their edits, and numbers worked out another way."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.directions.base import find_method
from mech_arith.directions.readings import control_values
from mech_arith.directions.tracing import Splits, trace, value_table
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.correlations import subspace_table
from mech_arith.evidence.effects import intervention_tables
from mech_arith.evidence.locality import locality_tables
from mech_arith.evidence.ranks import rank_summary
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.table import evidence_table
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Controls, arms, choose_targets, frame_of
from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.fold import fold_of
from mech_arith.interventions.locality import LocalityPlan, locality
from mech_arith.interventions.locality.functions import Line
from mech_arith.interventions.run import InterventionPlan, intervene, target_changes
from mech_arith.models.attention import KeysValues
from mech_arith.models.base import Tap, untouched
from mech_arith.problems import draw, split
from mech_arith.problems.sources import draw_sources
from mech_arith.statistics import Resampling
from tests.directions.test_tracing import HOW, TEMPLATE
from tests.tiny import PlantedModel, tiny_pre_norm_encoder

ABC = dict.fromkeys("abc", (100, 999))
SITE = Site(1, "resid_post", "first")
NONE = Controls(random=0, span=0, valueless=0, other=False, shuffled=False)
RANK = 3
N = 10
"""Problems that are edited."""


def prepared(model, site, method, ranks, n=160, n_components=1):
    """Both splits, the trace of one site, and the baseline of the first problems."""
    problems = draw(TEMPLATE, n=n, ranges=ABC, seed=1)
    fit, report = split(problems, fit_share=0.5, seed=1)
    passed = torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, model.encode(fit), model.encode(report), passed)
    session = Session(model, Batching(32))
    found = trace(session, splits, [site], find_method(method, n_components, ranks=ranks), HOW)[
        site
    ]
    edited = report.take(np.arange(N))
    asked = ReferenceAnswers.of_problems(edited)
    baseline = run_baseline(session, model.encode(edited), asked)
    return session, fit, found, Bases(edited, baseline, {site: found}, digits=3)


@pytest.fixture(scope="module")
def known():
    return prepared(tiny_pre_norm_encoder(), SITE, "pls", (1, RANK), n_components=8)


def plan_of(edit, strengths, **options):
    options = {"values": ("b-c",), "ranks": (RANK,), "controls": NONE, "n_sources": 1} | options
    return InterventionPlan(find_edit(edit), strengths, **options)


def activations(session, problems, site=SITE):
    """Of every problem, as the engine captures them."""
    prompts = session.model.encode(problems, digits=3)
    ((_, found),) = capture(replace(session, batching=Batching(1000)), prompts, [site])
    return found[site].double()


def hooked(session, problems, edited):
    """The answers of full passes in which the site's activations are put in place of its own."""
    model = session.model
    prompts = model.encode(problems, digits=3)
    (layout,) = prompts.layouts
    (at,) = prompts.positions(SITE.position)[0]

    def put(activation):
        changed = activation.clone()
        changed[:, at] = edited.float()
        return changed

    read = model.full_pass(prompts.whole(layout), {(SITE.layer, SITE.point): put})
    return read[:, -1, 0].double()


@pytest.mark.parametrize("name", EDITS.names())
@pytest.mark.parametrize("rank", [1, RANK])
def test_the_strength_of_no_change_changes_no_bit(known, name, rank):
    session, _, _, bases = known
    plan = plan_of(name, (find_edit(name).no_change,), ranks=(rank,), values=None)
    done = intervene(session, bases, plan, n_shuffles=1)
    assert done.results
    for one in done.results:
        assert (one.changes == 0).all()
        clean = bases.baseline.answers.of(one.rows).numbers
        assert torch.equal(one.answers.numbers, clean.expand_as(one.answers.numbers))


def by_hand(session, fit, found, bases, name, strength):
    """Activations after an edit of b-c, by numpy from activations of the two splits alone."""
    (target,) = choose_targets(found, values=["b-c"], ranks=[RANK])
    frame = frame_of(found, target).numpy()
    before, own = (activations(session, split).numpy() for split in (fit, bases.problems))
    mean = before.mean(0)
    of_fit, at = (before - mean) @ frame.T, (own - mean) @ frame.T
    value = fit.values["b-c"].astype(float)
    slope = np.array([np.polyfit(value, column, 1)[0] for column in of_fit.T])
    sources = draw_sources(bases.problems, "b-c", m=1, n_shuffles=1, seed=0)
    if name == "scale":
        to = strength * at
    elif name == "ablate":
        to = (1 - strength) * at
    elif name == "shift":
        along = slope / np.linalg.norm(slope)
        to = at + strength * (of_fit @ along).std(ddof=1) * along
    else:
        theirs = (activations(session, sources.problems[0]).numpy() - mean) @ frame.T
        fitted = slope * (sources.wanted[0].numpy()[:, None] - value.mean())
        wanted = fitted if name == "set" else theirs
        to = at + strength * (wanted - at)
    return torch.from_numpy(own + (to - at) @ frame)


@pytest.mark.parametrize("name", EDITS.names())
@pytest.mark.parametrize("strength", [-0.5, 1.5])
def test_an_edit_is_that_of_plain_hooks(known, name, strength):
    session, fit, found, bases = known
    (one,) = intervene(session, bases, plan_of(name, (strength,)), n_shuffles=1).results
    assert one.target.rank == RANK
    assert one.rows.tolist() == list(range(N))
    theirs = hooked(session, bases.problems, by_hand(session, fit, found, bases, name, strength))
    ours = one.answers.numbers[0, 0, 0]
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=1e-3)
    assert (ours - bases.baseline.answers.numbers).abs().max() > 1


def test_interchange_of_all_directions_is_that_of_the_whole_activation():
    width = tiny_pre_norm_encoder().d_model
    session, _, _, bases = prepared(tiny_pre_norm_encoder(), SITE, "pca", (1, width))
    done = intervene(session, bases, plan_of("interchange", (1.0,), ranks=(1, width)), n_shuffles=1)
    small, whole = (one.answers.numbers[0, 0, 0] for one in done.results)
    assert [one.target.rank for one in done.results] == [1, width]
    ceiling = done.ceilings["b-c", SITE].numbers
    torch.testing.assert_close(whole, ceiling, atol=0.05, rtol=1e-3)
    assert (small - ceiling).abs().max() > 1


def rotated(found, components):
    """The same trace, in which the subspace has another orthonormal basis."""
    at = list(components)
    generator = torch.Generator().manual_seed(3)
    turn = torch.eye(len(found.subspace.directions), dtype=torch.float64)
    random = torch.randn(len(at), len(at), generator=generator, dtype=torch.float64)
    turn[np.ix_(at, at)] = torch.linalg.qr(random).Q
    old = found.subspace
    covariance = turn @ old.covariance @ turn.mT
    subspace = replace(old, directions=turn @ old.directions, covariance=covariance)
    with_values = turn @ (found.r_fit * old.sd[:, None]) / subspace.sd[:, None]
    at_turned = found.coordinates @ turn.mT
    return replace(found, subspace=subspace, coordinates=at_turned, r_fit=with_values)


@pytest.mark.parametrize("name", ["scale", "ablate", "shift"])
def test_what_an_edit_adds_does_not_depend_on_the_basis(known, name):
    *_, found, _ = known
    (target,) = choose_targets(found, values=["b-c"], ranks=[RANK])
    other = rotated(found, target.components)
    one, two = (
        target_changes(of, target, plan_of(name, (-1.0, 3.0)), n=N) @ frame_of(of, target)
        for of in (found, other)
    )
    torch.testing.assert_close(one, two)
    assert not torch.allclose(frame_of(found, target), frame_of(other, target))


def test_an_interchange_does_not_depend_on_the_basis(known):
    session, _, found, bases = known
    (target,) = choose_targets(found, values=["b-c"], ranks=[RANK])
    other = rotated(found, target.components)
    one, two = (
        intervene(
            session, replace(bases, traces={SITE: of}), plan_of("interchange", (1.0,)), n_shuffles=1
        )
        .results[0]
        .answers.numbers
        for of in (found, other)
    )
    torch.testing.assert_close(one, two, atol=0.05, rtol=1e-3)


def test_to_ablate_twice_is_to_ablate_once(known):
    session, _, found, bases = known
    (target,) = choose_targets(found, values=["b-c"], ranks=[RANK])
    ablate = fold_of(
        (1, "mlp_out"),
        frame_of(found, target),
        found.subspace.mean,
        find_edit("ablate"),
        1.0,
        sd=found.subspace.sd[list(target.components)],
    )
    own = activations(session, bases.problems)
    once = ablate.of_activation(own)
    torch.testing.assert_close(ablate.of_activation(once), once)
    assert (once - own).norm() > 0.1 * own.norm()
    coordinates = (once - found.subspace.mean) @ frame_of(found, target).mT
    assert coordinates.abs().max() < 1e-9 * own.abs().max() + 1e-9


def test_controls_are_frames_that_move_every_problem_as_far(known):
    *_, found, _ = known
    (target,) = choose_targets(found, values=["b-c"], ranks=[RANK])
    every = {arm.name: arm for arm in arms(found, target, Controls(random=4, span=3), seed=0)}
    assert set(every) == {"target", "control", "span", "valueless", "shuffled"}
    far = target_changes(found, target, plan_of("scale", (2.0,)), n=N)[0]
    for arm in every.values():
        frames = arm.frames.double()
        identity = torch.eye(RANK, dtype=torch.float64).expand(len(frames), -1, -1)
        torch.testing.assert_close(frames @ frames.mT, identity, atol=1e-6, rtol=0)
        moved = (far @ frames).norm(dim=-1)
        torch.testing.assert_close(moved, far.norm(dim=-1).expand_as(moved), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(every["control"].frames[0], every["control"].frames[1])
    spanned = every["span"].frames.double() @ found.subspace.span.mT
    torch.testing.assert_close(
        spanned.norm(dim=2), torch.ones(3, RANK, dtype=torch.float64), atol=1e-6, rtol=0
    )


class DigitsModel(PlantedModel):
    """Keeps b-c as hundreds and as what is left, on a direction each, and reads their sum."""

    name, digest = "digits", "2" * 64

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "n pos d"],
        *,
        tap: Tap = untouched,
        **where: Any,
    ) -> tuple[Float[Tensor, "n at d"], KeysValues]:
        def more(point: str, activation: Tensor) -> Tensor:
            if point == "mlp_out" and layer < 2:
                activation = activation.clone()
                b, c = (resid_pre[:, place] @ self.operand for place in (1, 2))
                if layer == 0:
                    rest = (b - c) % 100
                    activation[:, -1] += torch.outer(rest, self.rest - self.used)
                else:
                    own = resid_pre[:, -1] @ self.rest
                    activation[:, -1] -= torch.outer(own, self.answer_at)
            return tap(point, activation)

        return super().run_block(layer, resid_pre, tap=more, **where)

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        generator = torch.Generator().manual_seed(seed + 1)
        known = torch.stack([self.operand, self.used, self.unused, self.answer_at])
        random = torch.randn(self.d_model, generator=generator)
        rest = random - known.mT @ (known @ random)
        self.rest = rest / rest.norm()


LAST = Site(0, "resid_post", "last")


def test_a_value_kept_in_parts_is_followed_at_the_rank_that_holds_all_of_them():
    """The hundreds vary most, then what is left; a, written beside them, varies more than both."""
    session, _, found, bases = prepared(DigitsModel(), LAST, "pca", (1, 2, 3), n=240)
    how = Resampling(n_resamples=50, n_permutations=50)
    plan = plan_of("interchange", (1.0,), ranks=(1, 2, 3), values=("b-c", "a"), n_sources=2)
    done = intervene(session, bases, plan, n_shuffles=50)
    scorer = Scorer.of_baseline(bases.baseline, tolerance=0.5, written=False, how=how)
    tables = intervention_tables(done, plan, scorer)
    table = tables["counterfactual"].set_index(["value", "rank"])
    assert table.loc[("b-c", 3), "iia"] == 1
    assert table.loc[("b-c", 3), "ceiling"] == 1
    assert table.loc[("b-c", 1), "iia"] < 0.3
    assert table.loc[("b-c", 2), "iia"] < 0.3
    assert table.loc[("a", 3), "iia"] < 0.3  # written and not read
    subspaces = subspace_table({LAST: found}, n_fit=120)
    evidence = evidence_table({**tables, "subspaces": subspaces}, [LAST])
    ranks = rank_summary(evidence)
    assert (ranks["b-c"]["rank_90"], ranks["b-c"]["reason"]) == (3, "")
    assert ranks["a"]["rank_90"] is None
    assert "is not above the floor" in ranks["a"]["reason"]


@pytest.fixture(scope="module")
def planted():
    """Principal components are turned in the plane of what is written, which they span exactly."""
    return prepared(PlantedModel(), LAST, "pca", (1, 2), n=240)


def test_along_the_values_line_the_two_functions_of_locality_agree(planted):
    session, _, _, bases = planted
    plan = LocalityPlan(8, 20, 1.2, 9, ABC, ranks=(2,))
    rows = locality_tables(locality(session, bases, plan))["locality"]
    assert set(rows["rank"]) == {2}
    rows = rows.set_index(["value", "moved_by"])
    for moved_by in ("b", "c"):
        assert rows.loc[("b-c", moved_by), "r2"] > 0.99
    assert rows.loc[("a", "a"), "covered"] < 0.2


def test_a_line_within_a_subspace_is_a_direction_of_the_activations(planted):
    session, _, found, bases = planted
    site = found.site
    line = Line(site, (0, 1), (0.6, -0.8))
    own = activations(session, bases.problems, site)
    direction = line.direction(found)
    assert float(direction.norm()) == pytest.approx(1)
    torch.testing.assert_close(
        (own - found.subspace.mean) @ direction,
        line.coordinate(found.coordinates[:N]),
        atol=1e-3,
        rtol=1e-4,
    )


def test_what_is_read_of_a_value_is_numpys_least_squares(known):
    session, fit, found, _ = known
    problems = draw(TEMPLATE, n=160, ranges=ABC, seed=1)
    _, report = split(problems, fit_share=0.5, seed=1)
    (of_rank,) = (readings for readings in found.readings if readings.rank == RANK)
    for index, value in enumerate(found.values):
        one = of_rank.by_value[index]
        frame = found.subspace.directions[list(one.components)].numpy()
        x, y = (activations(session, split).numpy() @ frame.T for split in (fit, report))
        design, tried = (np.column_stack([np.ones(len(z)), z]) for z in (x, y))
        weights, *_ = np.linalg.lstsq(design, fit.values[value].astype(float), rcond=None)
        right = report.values[value].astype(float)
        residual = right - tried @ weights
        r2 = 1 - (residual @ residual) / ((right - right.mean()) @ (right - right.mean()))
        assert one.r2 == pytest.approx(r2, abs=1e-4)
        r_fit = np.corrcoef(design @ weights, fit.values[value])[0, 1]
        assert one.r_fit == pytest.approx(r_fit, abs=1e-4)


def test_values_that_are_not_there_follow_the_operands_and_nothing_else():
    problems = draw(TEMPLATE, n=120, ranges=dict.fromkeys("abc", (1, 5)), seed=0)
    halves = problems.take(np.arange(80)), problems.take(np.arange(40, len(problems)))
    fit, _ = halves
    drawn = [control_values(fit, half) for half in halves]
    known = {}
    for half, values in zip(halves, drawn, strict=True):
        rows = zip(half.operands["b"], half.operands["c"], values[:, 3].tolist(), strict=True)
        for b, c, number in rows:
            assert known.setdefault((b, c), number) == number
    for index, value in enumerate(TEMPLATE.expression.values):
        assert set(drawn[1][:, index].tolist()) <= set(fit.values[value].tolist())
    assert len(set(known.values())) > 3
    assert not torch.equal(drawn[0], value_table(fit))
