"""The calibration's parts, smaller: is the tool right when it says how sure it is?"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from mech_arith.models.planted.planted import Plant
from mech_arith.statistics import Interval, pearson
from tests.thinned import thinned

SCRIPTS = Path(__file__).parents[1] / "scripts" / "benchmarks"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module that stands beside the script, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module
    for path in SCRIPTS.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 10])
def test_what_is_planted_is_found_and_what_is_read_is_told_apart(load: Load, seed: int):
    recovery, plant = load("recovery"), Plant.drawn(seed)
    found = recovery.recover(plant, n_problems=2500)
    assert found.accuracy == 1
    assert found.read_at == (plant.read.layer, plant.read.position)
    assert found.unread_at == (plant.unread.layer, plant.unread.position)
    assert found.absent < 0.9
    assert found.read.iia >= 0.99
    assert found.unread.iia <= found.unread.floor
    # Of sums or differences of two numbers 0..4, two are the same with chance 85 / 625.
    assert found.read.floor == pytest.approx(85 / 625, abs=0.03)
    assert found.read.excess_drop > 0
    assert not found.unread.costs_more
    assert all(row.met for row in recovery.rows_of([found]))


def test_a_plant_that_is_not_recovered_misses_its_bars(load: Load):
    recovery, plant = load("recovery"), Plant.drawn(0)
    follows = recovery.Interchanged(iia=1.0, floor=0.1, excess_drop=0.8, p=0.001)
    stays = recovery.Interchanged(iia=0.0, floor=0.1, excess_drop=-0.1, p=0.8)
    at = [(written.layer, written.position) for written in (plant.read, plant.unread)]
    whole = recovery.Recovered(plant, 1.0, *at, 0.7, follows, stays)
    assert [row.verdict for row in recovery.rows_of([whole]) if row.bar] == ["ok"] * 7
    for missed, change in (
        ("answers", {"accuracy": 0.99}),
        (", read: |R|", {"read_at": (at[0][0] + 1, at[0][1])}),
        ("not read: |R|", {"unread_at": None}),
        ("not written", {"absent": 0.995}),
        (", read: iia", {"read": replace(follows, iia=0.98)}),
        ("not read: iia", {"unread": replace(stays, iia=0.11)}),
    ):
        rows = recovery.rows_of([replace(whole, **change)])
        assert [row.verdict for row in rows if missed in row.what] == ["MISSED"]
        assert sum(not row.met for row in rows) == 1


@pytest.mark.slow
def test_planted_subspaces_are_found_by_the_methods_that_can(load: Load):
    subspaces = load("subspaces")
    subspaces.RANKS = (1, 5)
    found = subspaces.measured([7])
    assert [row.what for row in subspaces.rows_of(found) if not row.met] == []
    # And by no others, beside what is louder.
    for label in ("pca", "pls", "ridge", "fourier of other periods"):
        for kind in (5, subspaces.HELIX):
            assert found[label, kind][0].angle > 20
            assert found[label, kind][0].iia < 0.9
    for kind in (1, 5, subspaces.HELIX):
        assert found["das", kind][0].iia >= 0.99


def test_a_subspace_that_is_not_found_misses_its_bar(load: Load):
    subspaces = load("subspaces")
    kinds = (*subspaces.RANKS, subspaces.HELIX)
    found, lost = subspaces.Found(8.0, 0.99), subspaces.Found(60.0, 0.2)
    right = {
        (one.label, kind): [lost if kind in one.misses else found] * 2
        for one in subspaces.CONTENDERS
        for kind in kinds
    }
    assert all(row.met for row in subspaces.rows_of(right))
    tilted, loose = subspaces.Found(8.2, 0.99), subspaces.Found(8.0, 0.98)
    for label, kind, missed, what in (
        ("ridge", 1, tilted, "subspace of rank 1, ridge"),
        ("ridge", 1, loose, "subspace of rank 1, ridge"),
        ("mean_difference", 8, tilted, "subspace of rank 8, mean_difference"),
        ("fourier of its periods", subspaces.HELIX, tilted, "helix of rank 6, fourier of its"),
        ("das", 4, loose, "subspace of rank 4, das"),
        ("pca", 3, tilted, "subspace of rank 3, pca"),
        ("pls", 2, loose, "subspace of rank 2, pls"),
    ):
        rows = subspaces.rows_of(right | {(label, kind): [right[label, kind][0], missed]})
        (row,) = [row for row in rows if not row.met]
        assert row.what.startswith(what)
    # Of a subspace that carries the answer it does not matter what else it has.
    assert all(row.met for row in subspaces.rows_of(right | {("das", 7): [tilted, found]}))
    # A small tilt lets in what is louder: for the class means the angle alone is asked for.
    kept = right | {("mean_difference", 2): [loose, loose]}
    assert all(row.met for row in subspaces.rows_of(kept))


def test_the_largest_angle_between_subspaces(load: Load):
    subspaces, eye = load("subspaces"), torch.eye(4, dtype=torch.float64)
    assert subspaces.largest_angle(eye[:2], eye[:2].flip(0)) == pytest.approx(0, abs=1e-5)
    assert subspaces.largest_angle(eye[:2], eye[1:3]) == pytest.approx(90)
    tilted = torch.stack([eye[0], (eye[1] * 3**0.5 + eye[2]) / 2])
    assert subspaces.largest_angle(tilted, eye[:2]) == pytest.approx(30)
    assert subspaces.largest_angle(eye[:1], eye[:2]) == 90


@pytest.mark.slow
def test_random_networks_hold_no_check_digit(load: Load):
    nulls, bars = load("nulls"), load("bars")
    found = [nulls.trace_null(seed) for seed in range(4)]
    row = bars.at_most("", sum(one.corrected <= bars.ALPHA for one in found), len(found))
    assert row.met, row.found
    # So many are looked at that something seems to be there.
    assert all(one.uncorrected <= bars.ALPHA for one in found)
    assert all(one.n_tests == 3 * (1 + 14) * 5 for one in found)


def test_random_networks_hold_their_operands(load: Load, monkeypatch: pytest.MonkeyPatch):
    """Else it would say little that they hold no check digit."""
    nulls = load("nulls")
    monkeypatch.setattr(nulls, "with_check_digits", lambda problems, seed: problems)
    found = nulls.trace_null(0)
    assert found.corrected < 1e-6
    assert found.largest_r > 0.6


def test_a_check_digit_goes_with_no_digit(load: Load):
    nulls = load("nulls")
    problems = nulls.draw(nulls.TEMPLATE, n=5000, ranges=nulls.RANGES, seed=0)
    checked = nulls.with_check_digits(problems, seed=3)
    assert checked.operands == problems.operands
    numbers = np.stack(list(problems.operands.values()), axis=1)
    digits = (numbers[..., None] // 10 ** np.arange(3) % 10).reshape(len(numbers), -1)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(digits), 10).flatten(1).double()
    checks = torch.from_numpy(np.stack(list(checked.values.values()), axis=1)).double()
    assert set(checks.unique().tolist()) == set(range(10))
    r = pearson(one_hot, checks)
    assert float(r.nan_to_num(0).abs().max()) < 5 / 5000**0.5


@pytest.mark.slow
def test_a_random_direction_is_one_of_many(load: Load):
    nulls, bars = load("nulls"), load("bars")
    found = [nulls.contrast_null(seed) for seed in range(10)]
    assert np.mean([one.drop for one in found]) > 0.1, "edits that cost nothing say nothing"
    for p in ("p", "p_max"):
        row = bars.at_most(p, sum(getattr(one, p) <= bars.ALPHA for one in found), len(found))
        assert row.met, (p, row.found)


def test_intervals_hold_the_truth_as_often_as_they_say(load: Load):
    rows = load("covering").coverage_rows(500, seed=0)
    assert [row.what for row in rows if not row.met] == []
    assert all(row.n >= 500 for row in rows)


def test_intervals_that_are_too_narrow_or_too_wide_are_noticed(load: Load):
    covering = load("covering")

    def scaled(by: float) -> Callable[..., tuple[Interval, torch.Tensor]]:
        def case(*arguments: object) -> tuple[Interval, torch.Tensor]:
            interval, truth = covering.drops(*arguments)
            middle = (interval.low + interval.high) / 2
            reach = by * (interval.high - middle)
            return Interval(middle - reach, middle + reach), truth

        return case

    covering.CASES = {"narrow": scaled(0.8), "wide": scaled(1.3)}
    covering.SAFE_CASES = covering.CASES
    found = [row.verdict for row in covering.coverage_rows(500, seed=0)]
    assert found == ["MISSED", "MISSED", "MISSED", "ok"]


@pytest.mark.slow
def test_ties_and_destroyed_answers_are_no_findings(load: Load):
    simulated = load("simulated")
    simulated.N_SETS = 2
    rows = [*simulated.tie_rows(300, seed=0), *simulated.slope_rows(1500, seed=0)]
    assert [row.what for row in rows if not row.met] == []


def test_ties_that_are_broken_are_noticed(load: Load, monkeypatch: pytest.MonkeyPatch):
    simulated = load("simulated")

    def broken(*arguments: torch.Tensor) -> object:
        target, controls, _ = arguments
        below = (controls.mean(2) > target.mean(1)[:, None] + 1e-9).sum(1)
        return SimpleNamespace(p=(1 + below) / (1 + controls.shape[1]))

    monkeypatch.setattr(simulated, "excess", broken)
    assert not all(row.met for row in simulated.tie_rows(100, seed=0))


def test_draws_that_stop_leave_p_and_the_first_mean_right(load: Load):
    stopping = load("stopping")
    rows = list(stopping._made_up_rows(300, seed=0))
    assert [row.what for row in rows if not row.met] == []
    # The mean over all draws leans towards those that stopped them.
    (of_five,) = (row for row in rows if "of all, stopped after 5" in row.what)
    first, every = map(float, of_five.found.split(";"))
    assert every > abs(first) + 0.004


def test_a_p_that_stops_where_it_is_small_is_noticed(load: Load, monkeypatch: pytest.MonkeyPatch):
    stopping = load("stopping")

    def peeking(found: torch.Tensor, draws: torch.Tensor, *, stop_after: int) -> object:
        as_large = (draws >= found[:, None]).cumsum(1)
        p = ((1 + as_large) / (2 + torch.arange(draws.shape[1]))).amin(1)
        return SimpleNamespace(p=p, n_draws=torch.full_like(as_large[:, 0], stop_after))

    monkeypatch.setattr(stopping, "sequential_p", peeking)
    missed = [row.what for row in stopping._made_up_rows(600, seed=0) if not row.met]
    assert sum("p <= 0.05" in what for what in missed) == len(stopping.STOPS)


@pytest.mark.slow
def test_directions_like_their_controls_are_drawn_by_the_whole_way(load: Load):
    stopping = load("stopping")
    found = stopping.null_draws(0)
    assert len(found) == 3 * stopping.N_COMPONENTS
    assert {one.most for one in found} == {stopping.MOST}
    p = torch.stack([one.of_mean.p for one in found])
    assert 0.3 < float(p.mean()) < 0.8
    assert float(torch.stack([one.of_target.mean() for one in found]).mean()) > 0.1


def test_bars_by_hand(load: Load):
    bars = load("bars")
    # Of 200 tests at .05, 16 or fewer are significant by chance in 97.5 of 100 runs or more.
    assert bars.at_most("", 16, 200).met
    assert not bars.at_most("", 17, 200).met
    assert bars.at_most("", 16, 200).bar == "<= 16 (0.080)"
    assert bars.at_most("", 29, 2000, alpha=0.01).met
    assert not bars.at_most("", 30, 2000, alpha=0.01).met
    assert bars.covering("", 465, 500).met
    assert not bars.covering("", 464, 500).met
    assert not bars.covering("", 486, 500).met
    assert bars.at_least("", 100, 100).met
    assert not bars.at_least("", 99, 100).met
    assert bars.at_least("", 9, 10).verdict == "MISSED"
    assert bars.shown("", 1, "7").verdict == ""
    assert bars.never("", 0, 10).met
    assert bars.never("", 1, 10).verdict == "MISSED"


@pytest.mark.parametrize(("level", "code"), [(0.95, 0), (0.5, 1)])
def test_the_program_exits_with_1_where_a_bar_is_missed(
    load: Load, level: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calibration, covering = load("calibration"), load("covering")
    monkeypatch.setattr(covering, "HOW", replace(covering.HOW, level=level))
    path = tmp_path / "table.json"
    arguments = ["calibration.py", "--only", "coverage", "--cases", "500", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert calibration.main() == code
    rows = json.loads(path.read_text())
    assert {row["met"] for row in rows} == {code == 0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--only", "nulls"],
            "expected some of planted,subspaces,null,coverage,ties,stopping,slopes,das,rivals,"
            "grokking, got 'nulls'",
        ),
        (["--plants", "0"], "expected a whole number of 1 or more, got '0'"),
        (["--seed", "-1"], "expected a whole number of 0 or more, got '-1'"),
        (["--json", "/nowhere/table.json"], "expected a file that can be written, got '/nowhere/"),
    ],
)
def test_bad_arguments_end_in_one_line(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
):
    monkeypatch.setattr(sys, "argv", ["calibration.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        load("calibration").main()
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_trained_rotation_finds_what_is_planted_and_no_more_than_its_control(load: Load):
    alignments = load("alignments")
    assert alignments.planted_iia(2) >= alignments.FOUND
    own, control = alignments.null_hits(0)
    assert own.shape == control.shape == (200,)
    assert not alignments.beats(own, control)
    assert alignments.beats(torch.arange(200) < 60, torch.arange(200) < 40)
    assert not alignments.beats(torch.arange(200) < 60, torch.arange(200) < 57)
    assert not alignments.beats(own, own)


def test_the_hypothesis_by_which_a_plant_computes_wins(load: Load) -> None:
    rivals = load("rivals")
    for place, hypothesis in enumerate(rivals.RIVALS):
        found = rivals.of_rivals(5, place)
        (read,), (unread,) = found.read, found.unread
        assert (read.supports, read.iia, read.wrong) == (hypothesis, 1, 0)
        assert read.n_apart > 0.3
        # Written and not read: nothing follows, whatever is expected.
        assert (unread.supports, unread.iia, unread.wrong) == (rivals.TIE, 0, 0)


@pytest.mark.parametrize("seed", thinned([0, 6], 1))
def test_digit_by_digit_is_told_from_the_tree(load: Load, seed: int) -> None:
    rivals = load("rivals")
    found = [rivals.of_digits(seed, place) for place in range(2)]
    # The sum of two beside each of ones, carry and tens; and these three beside it.
    assert [one.right for plant in found for one in plant.read] == ["tree"] * 3 + ["digits"] * 3
    for plant in found:
        assert plant.is_right
        assert min(one.iia for one in plant.read) > 0.9
        assert max(one.wrong for one in plant.read) == 0
        assert min(one.n_apart for one in (*plant.read, *plant.unread)) > 0.3
        assert {(one.supports, one.iia, one.wrong) for one in plant.unread} == {(rivals.TIE, 0, 0)}


def test_all_steps_together_are_those_of_the_right_hypothesis(load: Load) -> None:
    together = load("together")
    for place in range(2):
        found = together.of_plant(0, place)
        assert (found.right, found.wrong) == (True, False)
        assert found.share > 0.9


def test_a_rival_that_wins_misses_its_bars(load: Load) -> None:
    rivals = load("rivals")
    right = rivals.Compared("digits", "digits", 1.0, 0.0, 1.0, 0.6)
    tie = replace(right, supports=rivals.TIE)
    whole, nothing = rivals.Judged([right] * 3, [tie], [tie]), [rivals.TIE] * 12

    def missed(plant: object, tests: Sequence[str] = nothing) -> list[str]:
        return [row.what for row in rivals.rows_of("", [plant], tests) if not row.met]

    wrong = [replace(right, supports="tree")] * 3
    above = [replace(right, p_wrong=0.01)] * 3
    assert missed(whole) == []
    assert missed(replace(whole, read=[right, right, tie])) == [
        ": the right hypothesis wins where its steps are read"
    ]
    for what, plant in (
        ("the wrong one wins, where its step or the other is written", wrong),
        ("the wrong one above its floor, by p", above),
    ):
        assert missed(replace(whole, unread=plant)) == [f": {what}"]
    assert missed(whole, ["tree"] * 12) == [": random networks, either hypothesis wins at a site"]


@pytest.mark.slow
def test_random_networks_support_no_hypothesis(load: Load) -> None:
    rivals = load("rivals")
    found = [rivals.left_to_right_null(3), rivals.digits_null(3)]
    assert [len(tests) for tests in found] == [6, 6], (
        "of three layers, either step beside the other"
    )
    assert {one for tests in found for one in tests} == {rivals.TIE}
    assert load("together").of_nothing(3) == [False, False]


def test_the_frequencies_of_modular_addition_are_found(load: Load):
    grokking = load("grokking")
    found = grokking.measured(7, n_problems=400)
    rows = [*grokking.truth_rows(), *grokking.rows_of([found])]
    assert {row.verdict for row in rows if row.bar} == {"ok"}
    keys = grokking.key_frequencies(grokking.spectrum(grokking.embedding()))
    # What an edit moves is only what it is said to move: two of three frequencies do not suffice.
    assert found.iia["all but the strongest"] < 0.5
    assert found.iia["sum before the MLP"] < 0.2
    assert min(found.as_predicted[k] for k in keys) > 0.6
    assert found.floor < 0.05
    for missed in (
        replace(found, frequencies={**found.frequencies, "a": [1, 2, 3]}),
        replace(found, iia={**found.iia, "das": 0.9}),
    ):
        assert [row.verdict for row in grokking.rows_of([missed])].count("MISSED") == 1


def test_a_spectrum_is_that_of_known_waves(load: Load):
    grokking = load("grokking")
    numbers = np.arange(grokking.P)
    waves = [
        size * np.cos(2 * np.pi * k * numbers / grokking.P + phase)
        for k, size, phase in ((5, 3.0, 0.3), (40, 1.0, 1.0), (5, 3.0, 2.0))
    ]
    shares = grokking.spectrum(np.stack(waves, axis=1) + 7)
    assert shares[[4, 39]] == pytest.approx([18 / 19, 1 / 19])
    assert grokking.key_frequencies(shares) == [5]
    # Two frequencies that vote for one sum are answered with it.
    votes = {5: np.array([3, 96]), 40: np.array([3, 96])}
    assert grokking.predicted(votes, shares).tolist() == [3, 96]
