"""Trained rotations: planted truth, the control task, what a kill and little memory leave."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.errors import UserError
from mech_arith.common.store import Store
from mech_arith.directions.base import LEARNING, Drawing, FitTask, Subspace, find_method
from mech_arith.directions.methods import das
from mech_arith.directions.pairs import draw_pairs, open_pairs
from mech_arith.directions.readings import control_values
from mech_arith.directions.rotation import Schedule, train_rotation
from mech_arith.directions.tracing import Splits, fit_directions, trace, value_table
from mech_arith.engine.batching import Batching
from mech_arith.engine.capture import capture
from mech_arith.engine.gradients import Suffix
from mech_arith.engine.run import ReferenceAnswers, SiteEdits, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.controls import SHUFFLED, Controls, arms, choose_targets
from mech_arith.models.planted.codes import CodedModel
from mech_arith.models.planted.model import PlantedModel as WrittenModel
from mech_arith.models.planted.planted import Plant
from mech_arith.problems import draw, split
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template
from tests.directions.test_tracing import HOW
from tests.experiment.test_cell import plan
from tests.experiment.test_cell import run as run_planned
from tests.tiny import PlantedModel, tiny_decoder

TEMPLATE = build_template("nested", "a-(b-c)")
LAST = Site(0, "resid_post", "last")
FEW = {"steps": 4, "pairs": 20, "batch": 8}


def problems_of(n=200, low=1, high=99, seed=0):
    drawn = draw(TEMPLATE, n=n, ranges=dict.fromkeys("abc", (low, high)), seed=seed)
    return split(drawn, fit_share=0.5, seed=0)


def task_of(model, fit, site=LAST, rows=64, ranks=(), **more):
    values = value_table(fit)
    return FitTask(
        Session(model, Batching(rows)), fit, model.encode(fit), site, values, ranks, **more
    )


def fitted(task, **options):
    """A fitter that has seen the task's problems, and what it finds."""
    fitter: Any = find_method("das", 1, options, ranks=task.ranks).fitter(task)
    for layout, found in capture(task.session, task.prompts, [task.site]):
        fitter.update(found[task.site], task.values[layout.rows])
    return fitter, fitter.fit()


def interchanged(model, problems, value, site, frame, *, tolerance):
    """The iia of interchanges within the span of a frame's rows, on problems with sources."""
    sources = draw_sources(problems, value, m=1, n_shuffles=1, seed=7)
    assert sources is not None

    def coordinates(some):
        found = torch.zeros(len(some), len(frame), dtype=torch.float64)
        for layout, captured in capture(Session(model), model.encode(some), [site]):
            found[layout.rows] = captured[site].double() @ frame.mT
        return found

    moved = coordinates(sources.problems[0]) - coordinates(sources.base)
    asked = ReferenceAnswers.of_problems(sources.base)
    baseline = run_baseline(Session(model), model.encode(sources.base), asked)
    edits = SiteEdits(site, frame[None], moved[None])
    numbers = edited_answers(Session(model), baseline, edits).numbers[0]
    return float(((numbers - sources.expected[0]).abs() <= tolerance).double().mean())


class CircleModel(PlantedModel):
    """Keeps b-c on a circle, which no single direction holds, and reads the angle.

    a is not there: it is read at its own position.
    """

    PERIOD = 400

    def run_block(self, layer, resid_pre, **options):
        operands = [resid_pre[:, place] @ self.operand for place in range(3)]
        written, tap = torch.zeros_like(resid_pre), options.get("tap", lambda _, x: x)
        if layer == 0:
            angle = (operands[1] - operands[2]) * (2 * torch.pi / self.PERIOD)
            circle = torch.stack([angle.cos(), angle.sin()], dim=1)
            written[:, -1] = 50 * circle @ torch.stack([self.used, self.unused])
        if layer == 1:
            last = resid_pre[:, -1]
            angle = torch.atan2(last @ self.unused, last @ self.used)
            value = angle * (self.PERIOD / (2 * torch.pi))
            # What was there of the answer is cleared: no edit reaches it but through the angle.
            answer = operands[0] - value - last @ self.answer_at
            written[:, -1] = torch.outer(answer, self.answer_at)
        resid = tap("resid_post", resid_pre + tap("mlp_out", written))
        nothing = super().run_block(layer, resid_pre, **{**options, "tap": lambda _, x: x})[1]
        return resid[:, options.get("at", slice(None))], nothing


@cache
def of_circle(steps=6):
    """The frames of rank 1 and 2 of b-c on a circle; few steps do where they need not be good."""
    model, (fit, report) = CircleModel(), problems_of()
    fitter, found = fitted(task_of(model, fit, ranks=(1, 2)), steps=steps, lr=0.1)
    return model, fit, report, fitter, found


@pytest.mark.slow
def test_a_planted_circle_is_found_by_a_rank_of_two_and_not_of_one():
    model, _, report, _, found = of_circle(steps=80)
    index = TEMPLATE.expression.values.index("b-c")
    iia = {}
    for rank in (1, 2):
        frame = found.directions[list(found.frame(index, rank))]
        assert frame.shape == (rank, 16)
        eye = torch.eye(rank, dtype=torch.float64)
        torch.testing.assert_close(frame @ frame.mT, eye, atol=1e-10, rtol=0)
        iia[rank] = interchanged(model, report, "b-c", LAST, frame, tolerance=0.5)
    assert iia[2] >= 0.99
    assert iia[1] < 0.3


def test_what_is_found_belongs_to_values_and_ranks():
    *_, fitter, found = of_circle()
    of_value, of_rank = found.of_value, found.of_rank
    assert of_value is not None
    assert of_rank is not None
    assert of_value.tolist() == [index for index in (1, 2, 3, 4) for _ in range(3)]
    assert of_rank.tolist() == [1, 2, 2] * 4
    curves = fitter.learning()
    assert curves.shape[1] == len(LEARNING)
    by_training = {tuple(row[:3].tolist()) for row in curves}
    assert by_training == {(index, rank, 0) for index in (1, 2, 3, 4) for rank in (1, 2)}
    kept = curves[curves[:, 6] == 1]
    assert len(kept) == 8
    for index, rank, _, _, _, loss, _ in kept.tolist():
        own = curves[(curves[:, 0] == index) & (curves[:, 1] == rank)]
        assert loss == float(own[:, 5].min())


def test_its_coordinates_are_uncorrelated_within_a_frame_and_of_the_fit_split():
    model, fit, _, _, found = of_circle()
    captured = dict.fromkeys([LAST], torch.zeros(0))
    for _, part in capture(Session(model, Batching(1000)), model.encode(fit), [LAST]):
        captured |= part
    at = found.project(captured[LAST])
    torch.testing.assert_close(found.covariance, torch.cov(at.mT), atol=1e-8, rtol=1e-6)
    frame = list(found.frame(3, 2))
    assert abs(float(found.covariance[frame[0], frame[1]])) < 1e-6 * found.total_variance
    assert float(found.variance[frame[0]]) >= float(found.variance[frame[1]])
    assert found.total_variance == pytest.approx(float(captured[LAST].double().var(0).sum()))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_planted_direction_is_found_where_it_is_written(seed):
    plant = Plant.drawn(seed)
    model, read = WrittenModel(plant), plant.read
    fit, report = split(plant.problems(300), fit_share=0.5, seed=0)
    site = Site(read.layer, "resid_post", str(read.position))
    task = task_of(model, fit, site)
    drawn = draw_pairs(task, plant.template.expression.values.index(read.value), n=150)
    assert drawn is not None
    pairs = open_pairs(task, drawn, holdout=0.2)
    assert pairs is not None
    frame, curve = train_rotation(pairs, rank=1, schedule=Schedule(100, 32, 0.1, 5), seed=0)
    assert interchanged(model, report, read.value, site, frame, tolerance=0.5) >= 0.99
    assert float(curve[:, 2].min()) < 0.01 * float(curve[0, 2])


def test_a_frame_is_of_what_sources_and_bases_are_apart():
    """In this plant the model also reads directions in which nothing varies where the value is."""
    plant = Plant.drawn(4)
    model, read = WrittenModel(plant), plant.read
    fit = plant.problems(200)
    task = task_of(model, fit, Site(read.layer, "resid_post", str(read.position)))
    drawn = draw_pairs(task, plant.template.expression.values.index(read.value), n=100)
    assert drawn is not None
    pairs = open_pairs(task, drawn, holdout=0.2)
    assert pairs is not None
    apart = torch.linalg.svd(pairs.apart[pairs.trained].double(), full_matrices=False)
    span = apart.Vh[1e-4 * apart.S[0] < apart.S]
    assert len(span) < 10 < pairs.width
    frame, _ = train_rotation(pairs, rank=1, schedule=Schedule(20, 100, 0.1, 5), seed=1)
    assert float((frame @ span.mT).norm()) == pytest.approx(1, abs=1e-6)
    # A frame of more directions has others beside them.
    wider, _ = train_rotation(pairs, rank=12, schedule=Schedule(2, 100, 0.1, 5), seed=0)
    torch.testing.assert_close(wider @ wider.mT, torch.eye(12).double(), atol=1e-6, rtol=0)
    own = torch.linalg.matrix_norm(span - span @ wider.mT @ wider)
    assert float(own) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "rank"), [(1000, 8), (1002, 5)])
def test_a_loud_coordinate_does_not_keep_it_from_several_dimensions(seed, rank):
    model = CodedModel.drawn(seed, rank)
    fit, report = split(model.plant.problems(1000), fit_share=0.75, seed=seed)
    site = Site(model.plant.read.layer, "resid_post", "last")
    task = task_of(model, fit, site, rows=300, ranks=(rank,))
    index = fit.template.expression.values.index(model.plant.read.value)
    fitter: Any = find_method("das", 1, ranks=(rank,)).fitter(task)
    frame = fitter.frames(index)[rank]
    value = model.plant.read.value
    assert interchanged(model, report, value, site, frame, tolerance=0.5) >= 0.99


def test_it_is_the_same_again_and_however_problems_are_batched():
    model, (fit, _) = PlantedModel(), problems_of(80)
    _, one = fitted(task_of(model, fit), **FEW)
    _, again = fitted(task_of(model, fit), **FEW)
    _, batched = fitted(task_of(model, fit, rows=5), **FEW)
    assert torch.equal(one.directions, again.directions)
    torch.testing.assert_close(one.directions, batched.directions, atol=1e-4, rtol=1e-4)


def test_several_trainings_start_elsewhere_and_the_best_is_kept():
    model, (fit, _) = PlantedModel(), problems_of(80)
    fitter, found = fitted(task_of(model, fit), seeds=3, **FEW)
    curves = fitter.learning()
    lowest, n_ends = {}, []
    for index in range(5):
        ends = [
            float(curves[(curves[:, 0] == index) & (curves[:, 2] == seed), 5].min())
            for seed in range(3)
        ]
        n_ends.append(len(set(ends)))
        lowest[index] = ends.index(min(ends))
        (kept,) = curves[(curves[:, 0] == index) & (curves[:, 6] == 1), 2].tolist()
        assert kept == lowest[index]
    # Where sources and bases are apart along one direction, there is nothing to turn.
    assert max(n_ends) == 3
    assert len(found.directions) == 5


def test_training_ends_where_nothing_is_gained():
    model, (fit, _) = PlantedModel(), problems_of(80)
    fitter, _ = fitted(task_of(model, fit), steps=400, lr=1e-7, pairs=20, patience=2)
    assert set(fitter.learning()[:, 3].tolist()) == {0, 10, 20}


def test_pairs_differ_in_the_value_and_want_the_answer_with_it_replaced():
    fit, _ = problems_of(60)
    task = task_of(PlantedModel(), fit)
    drawn = draw_pairs(task, 3, n=45)
    assert drawn is not None
    bases, sources = drawn.bases, drawn.sources
    assert len(drawn.wanted) == 45
    assert (bases.values["b-c"] != sources.values["b-c"]).all()
    assert (bases.values["a"] == sources.values["a"]).all()
    expected = bases.values["a"] - sources.values["b-c"]
    np.testing.assert_array_equal(drawn.wanted, expected)
    pairs = open_pairs(task, drawn, holdout=0.2)
    assert pairs is not None
    held_out, trained = (
        set(drawn.of_base[part].tolist()) for part in (pairs.held_out, pairs.trained)
    )
    assert len(held_out) == 6
    assert not held_out & trained
    assert len(held_out | trained) == 30


def test_the_control_task_wants_a_random_function_of_the_sources_operands():
    fit, _ = problems_of(60)
    values = control_values(fit, fit)
    task = replace(task_of(PlantedModel(), fit), values=values, is_control=True)
    drawn = draw_pairs(task, 3, n=30)
    own = draw_pairs(task_of(PlantedModel(), fit), 3, n=30)
    assert drawn is not None
    assert own is not None
    theirs = control_values(fit, drawn.sources)[:, 3]
    assert torch.equal(drawn.wanted, torch.from_numpy(drawn.bases.values["a"]).double() - theirs)
    assert set(theirs.tolist()) <= set(fit.values["b-c"].tolist())
    assert (drawn.bases.operands["a"] == own.bases.operands["a"]).all()
    assert float((drawn.wanted != own.wanted).double().mean()) > 0.9


def test_numbers_that_make_a_divisor_0_are_left_out():
    template = build_template("quotient", "a//(b-c)")
    fit = draw(
        template,
        n=60,
        ranges={"a": (1, 99), "b": (1, 5), "c": (1, 5)},
        constraints=[parse_constraint("b != c")],
        seed=0,
    )

    class Reads(PlantedModel):
        def encode(self, problems, *, digits=0):
            return PlantedModel().encode(type(fit).of(TEMPLATE, problems.operands), digits=digits)

    index = template.expression.values.index("c")
    values = control_values(fit, fit)
    task = replace(task_of(Reads(), fit), values=values, is_control=True)
    drawn = draw_pairs(task, index, n=60)
    assert drawn is not None
    assert 0 < len(drawn.wanted) < 60
    assert torch.isfinite(drawn.wanted).all()


def test_sources_keep_the_constraints():
    rule = parse_constraint("b > c")
    drawn = draw(TEMPLATE, n=60, ranges=dict.fromkeys("abc", (1, 20)), constraints=[rule], seed=0)
    for constraints, all_kept in (((rule,), True), ((), False)):
        task = task_of(PlantedModel(), drawn, drawing=Drawing(constraints))
        found = draw_pairs(task, 1, n=60)
        assert found is not None
        kept = found.sources.operands["b"] > found.sources.operands["c"]
        assert bool(kept.all()) == all_kept


def test_a_value_that_is_not_seen_at_a_site_has_no_frame():
    model = tiny_decoder()
    fit, _ = problems_of(40, 100, 999)
    site = Site(1, "resid_post", "a.last")
    fitter, found = fitted(task_of(model, fit, site), **FEW)
    names = TEMPLATE.expression.values
    assert found.of_value is not None
    assert [names[index] for index in found.of_value.tolist()] == ["a", "a-(b-c)"]
    assert found.frame(names.index("c"), 1) == ()
    assert set(fitter.learning()[:, 0].tolist()) == {0, 4}


def test_frames_are_trained_for_the_values_that_are_listed():
    fit, _ = problems_of(60)
    task = task_of(PlantedModel(), fit, ranks=(1, 2))
    every, found = (fitted(task, **FEW, **some)[1] for some in ({}, {"values": ["b-c", "a"]}))
    for value in range(5):
        at = every.frame(value, 2) if value in (0, 3) else ()
        mine = found.frame(value, 2)
        torch.testing.assert_close(found.directions[list(mine)], every.directions[list(at)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["b-d"], "unknown value in tracing.options.values 'b-d'; expected one of: a, b, c, b-c"),
        ([], "expected values to learn for in tracing.options.values, got none"),
    ],
)
def test_values_that_are_not_there(values, message):
    with pytest.raises(UserError, match=message):
        find_method("das", 1, {"values": values}).check(problems_of(20)[0])


def checkpointed(tmp_path, fit):
    checkpoint = Checkpoint(Store(tmp_path), cell="one", every_s=0.0)
    model = PlantedModel()
    task = task_of(model, fit)
    return replace(task, session=Session(model, Batching(64), checkpoint=checkpoint))


def test_a_killed_fit_goes_on_behind_the_last_training(tmp_path, monkeypatch):
    fit, _ = problems_of(60)
    done = []
    real = das.train_rotation

    def killed(*args, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(options)
        return real(*args, **options)

    monkeypatch.setattr(das, "train_rotation", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted(checkpointed(tmp_path, fit), **FEW)
    again = []
    monkeypatch.setattr(
        das, "train_rotation", lambda *args, **options: again.append(0) or real(*args, **options)
    )
    fitter, found = fitted(checkpointed(tmp_path, fit), **FEW)
    assert len(again) == 2
    monkeypatch.undo()
    whole, expected = fitted(task_of(PlantedModel(), fit), **FEW)
    assert torch.equal(found.directions, expected.directions)
    torch.testing.assert_close(fitter.learning(), whole.learning(), equal_nan=True)
    # The control task's trainings are others.
    task = replace(checkpointed(tmp_path, fit), is_control=True, values=control_values(fit, fit))
    _, control = fitted(task, **FEW)
    assert not torch.allclose(control.directions, found.directions)


@pytest.mark.parametrize("fits", [3, 0])
def test_memory_that_runs_out_halves_the_batch_or_ends_in_one_line(fits, monkeypatch, caplog):
    fit, _ = problems_of(60)
    task, real = task_of(PlantedModel(), fit), Suffix.read_outs
    expected = fitted(task, **FEW)[1] if fits else None

    def lacking(self, some, edit):
        if len(some) > fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, some, edit)

    monkeypatch.setattr(Suffix, "read_outs", lacking)
    if expected is not None:
        _, found = fitted(task, **FEW)
        torch.testing.assert_close(found.directions, expected.directions, atol=1e-4, rtol=1e-4)
        assert "going on with half as many" in caplog.text
        return
    with pytest.raises(UserError, match="expected memory for gradients at layer 0") as said:
        fitted(task, **FEW)
    assert "lower tracing.options.pairs" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_model_that_gives_no_gradient_is_named():
    class Closed(PlantedModel):
        def run_block(self, layer, resid_pre, **options):
            with torch.no_grad():
                return super().run_block(layer, resid_pre, **options)

    fit, _ = problems_of(40)
    with pytest.raises(UserError, match="expected gradients through the blocks of planted, got"):
        fitted(task_of(Closed(), fit), **FEW)


def test_losses_that_are_not_finite_are_an_error():
    class Huge(PlantedModel):
        def read_out(self, resid):
            return super().read_out(resid) * torch.inf

    fit, _ = problems_of(40)
    with pytest.raises(UserError, match="expected finite losses of planted at layer 0, got"):
        fitted(task_of(Huge(), fit), **FEW)


def test_a_model_that_is_not_replayed_is_refused_before_the_baseline(monkeypatch):
    model = PlantedModel()
    model.replays = False
    fit, report = problems_of(60)
    ran = []
    monkeypatch.setattr("mech_arith.experiment.cell.stored_baseline", lambda *_: ran.append(0))
    said = "expected a model whose blocks can be run one by one"
    with pytest.raises(UserError, match=said) as error:
        run_planned(model, fit, report, plan(method="das", digits=0))
    assert "\n" not in str(error.value)
    assert not ran
    task = task_of(PlantedModel(), fit)
    method, task = find_method("das", 1), replace(task, session=task.session.of(model))
    with pytest.raises(UserError, match=said):
        method.fitter(task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "tracing.options.steps >= 1, got 0"),
        ({"batch": 0}, "tracing.options.batch >= 1, got 0"),
        ({"seeds": -1}, "tracing.options.seeds >= 1, got -1"),
        ({"patience": 0}, "tracing.options.patience >= 1, got 0"),
        ({"pairs": 1}, "tracing.options.pairs >= 2, got 1"),
        ({"lr": 0.0}, "tracing.options.lr above 0, got 0.0"),
        ({"lr": float("nan")}, "tracing.options.lr above 0, got nan"),
        ({"holdout": 1.0}, "tracing.options.holdout above 0 and below 1, got 1.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        find_method("das", 1, options)


def test_ranks_and_constraints_are_part_of_the_key():
    assert find_method("das", 1, ranks=(1, 2)).key != find_method("das", 1, ranks=(2,)).key
    assert find_method("das", 1).n_components == 1
    names = {module.__name__ for module in find_method("das", 1).code}
    assert {"mech_arith.engine", "mech_arith.models", "mech_arith.directions.rotation"} <= names


@cache
def of_cell():
    """A trace of both ranks with the control task, of a model that uses b-c."""
    model, (fit, report) = PlantedModel(), problems_of(120)
    passed = torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, model.encode(fit), model.encode(report), passed)
    method = find_method("das", 1, {"steps": 40, "lr": 0.1, "pairs": 60}, ranks=(1, 2))
    return model, trace(Session(model, Batching(64)), splits, [LAST], method, HOW)[LAST]


def test_the_value_is_read_from_its_frame_and_the_control_from_none():
    _, found = of_cell()
    assert [readings.rank for readings in found.readings] == [1, 2]
    answer = found.values.index("a-(b-c)")
    for readings in found.readings:
        one = readings.by_value[answer]
        assert one is not None
        assert one.r2 > 0.9
        assert readings.control_r2[answer] < 0.3
    assert set(found.learning) == {"", "control_"}


def test_its_shuffled_control_is_the_frame_of_the_control_task():
    _, found = of_cell()
    assert found.control is not None
    for target in choose_targets(found, values=["b-c"], ranks=(1, 2)):
        (arm,) = [
            arm
            for arm in arms(found, target, Controls(0, 0, 0, other=False), seed=0)
            if arm.name == SHUFFLED
        ]
        of_control = found.control.subspace
        frame = of_control.directions[list(of_control.frame(3, target.rank))]
        overlap = torch.linalg.svdvals(arm.frames[0].double() @ frame.mT)
        torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-6, rtol=0)


def test_a_frame_is_kept_and_read_back():
    model, (fit, _) = PlantedModel(), problems_of(60)
    method = find_method("das", 1, FEW, ranks=(2,))
    found = fit_directions(Session(model), fit, model.encode(fit), [LAST], method)[LAST]
    again = Subspace.of_tensors(found)
    assert again.frame(3, 2) == (6, 7)
    assert again.frame(3, 1) == ()
    assert found["learning"].shape[1] == found["control_learning"].shape[1] == len(LEARNING)
