"""Rival hypotheses on the same pairs: by hand, and on answers that follow one of them."""

import numpy as np
import pytest
import torch

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.evidence.columns import conformed
from mech_arith.evidence.hypotheses import TIE, hypothesis_table, rivalries
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.controls import Arm, Target
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.asked import AskedHypothesis, with_hypotheses
from mech_arith.problems.hypotheses import Hypothesis
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from mech_arith.statistics.paired import sign_p

SITE = Site(2, "resid_post", "last")
HOW = Resampling(n_permutations=20)
PLAN = InterventionPlan(find_edit("interchange"), (1.0,))


def drawn(own: str = "tree", *rivals: str, n: int = 60, least: int = 10) -> ProblemSet:
    template, ranges = build_template("t", "a-(b-c)"), dict.fromkeys("abc", (least, 99))
    plain = draw(template, n=n, ranges=ranges, seed=5)
    asked = [AskedHypothesis(name) for name in (own, *rivals)]
    named = with_hypotheses(template, asked[0], asked[1:], ranges=ranges, operands=plain.operands)
    return ProblemSet.of(named, plain.operands)


@pytest.fixture(scope="module")
def sources() -> Sources:
    found = draw_sources(drawn("tree", "left_to_right"), "b-c", m=3, n_shuffles=2, seed=0)
    assert found is not None
    return found


def run_of(sources: Sources, edited: torch.Tensor) -> InterventionRun:
    m, n = sources.expected.shape
    numbers = edited[None, :, None]
    result = InterventionResult(
        SITE,
        Target((0,), (sources.value,), sources.value),
        (Arm("target", torch.ones(1, 1, 4), ("component 0",)),),
        torch.ones(m, 1, n, 1, dtype=torch.float64),
        torch.zeros(n, 1, dtype=torch.float64),
        sources.rows,
        Answers(numbers, numbers, numbers),
    )
    whole = sources.expected[0]
    ceiling = {(sources.value, SITE): Answers(whole, whole, whole)}
    return InterventionRun([result], {sources.value: sources}, ceiling)


def row_of(sources: Sources, edited: torch.Tensor) -> dict:
    right = torch.from_numpy(sources.base.answers).double()
    scorer = Scorer(Answers(right, right, right), right, 0.0, True, HOW)
    table = hypothesis_table(run_of(sources, edited), PLAN, scorer)
    conformed("hypotheses", table)
    (row,) = table.to_dict(orient="records")
    return row


def by_rival(sources: Sources) -> torch.Tensor:
    """What a model that computes (a-b)+c would answer with a-b from the source: by hand."""
    answers = [
        source.operands["a"] - source.operands["b"] + sources.base.operands["c"]
        for source in sources.problems
    ]
    return torch.from_numpy(np.stack(answers)).double()


def test_the_rivals_expectation_is_its_own_way_to_the_answer(sources: Sources) -> None:
    ((name, pair),) = rivalries(sources, tolerance=0.0, seed=0)
    assert (name, pair.rival) == ("left_to_right", "a-b")
    assert torch.equal(pair.by_rival, by_rival(sources))
    a = torch.from_numpy(sources.base.operands["a"])
    wanted = torch.stack([torch.from_numpy(s.values["b-c"]) for s in sources.problems])
    assert torch.equal(pair.expected, (a - wanted).double())
    assert pair.distinguishing.all()  # such sources are preferred, and there are enough of them


def test_answers_that_follow_one_hypothesis_support_it(sources: Sources) -> None:
    row = row_of(sources, sources.expected)
    assert row["supports"] == "tree"
    assert (row["distinguishing"], row["distinguishing_rival"]) == (1, 0)
    assert (row["difference"], row["n_distinguishing"], row["n_pairs"]) == (1, 180, 180)
    assert row["p_difference"] == pytest.approx(2 * 0.5**60)
    assert row["floor"] < 0.1
    turned = row_of(sources, by_rival(sources))
    assert turned["supports"] == "left_to_right"
    assert turned["difference"] == -1
    assert turned["p_rival"] == pytest.approx(1 / 201)


def test_answers_that_follow_neither_are_a_tie(sources: Sources) -> None:
    far = torch.from_numpy(sources.base.answers).double().expand(3, -1) + 5000
    row = row_of(sources, far)
    assert row["supports"] == TIE
    assert row["difference"] == 0
    assert row["p_difference"] == 1
    half = sources.expected.clone()
    half[:, ::2] = by_rival(sources)[:, ::2]
    assert row_of(sources, half)["supports"] == TIE


def test_answers_that_follow_everything_support_nothing(sources: Sources) -> None:
    """A source is another problem altogether: its own answer is what neither expects."""
    whole = torch.stack([torch.from_numpy(source.answers).double() for source in sources.problems])
    for name in "abc":
        moved = [
            source.operands[name] != sources.base.operands[name] for source in sources.problems
        ]
        assert np.mean(moved) > 0.8
    row = row_of(sources, whole)
    assert (row["distinguishing"], row["distinguishing_rival"]) == (0, 0)
    assert row["supports"] == TIE


def test_pairs_of_one_expectation_do_not_count() -> None:
    base = drawn("tree", "left_to_right")
    found = draw_sources(base, "b-c", m=1, n_shuffles=1, seed=0)
    assert found is not None
    # A source with the base's own c: both expect a - b' + c.
    operands = {**base.operands, "b": np.roll(base.operands["b"], 1)}
    same = Sources("b-c", base, found.rows, (ProblemSet.of(base.template, operands),), found.other)
    row = row_of(same, same.expected)
    assert row["n_distinguishing"] == 0
    assert (row["iia"], row["iia_rival"]) == (1, 1)
    assert np.isnan(row["distinguishing"])
    assert row["supports"] == TIE


def test_values_that_both_have_are_not_compared() -> None:
    base = drawn("tree", "right_to_left")
    found = draw_sources(base, "b-c", m=1, n_shuffles=1, seed=0)
    assert found is not None
    assert not list(rivalries(found, tolerance=0.0, seed=0))


def test_siblings_of_a_digit_are_kept_where_they_can_be() -> None:
    template, ranges = build_template("t", "a+b"), dict.fromkeys("ab", (10, 99))
    plain = draw(template, n=400, ranges=ranges, seed=5)
    named = with_hypotheses(
        template, AskedHypothesis("digits"), [], ranges=ranges, operands=plain.operands
    )
    base = ProblemSet.of(named, plain.operands)
    found = draw_sources(base, "ones_carry", m=2, n_shuffles=1, seed=0)
    assert found is not None
    assert found.siblings_kept > 0.9
    for source in found.problems:
        kept = source.values["ones"] == found.base.values["ones"]
        assert (source.values["ones_carry"] != found.base.values["ones_carry"]).all()
        assert kept.mean() > 0.9
    # By chance one in ten has the same ones.
    assert found.base.hypothesis.siblings("ones_carry") == ("ones",)


@pytest.mark.parametrize(
    ("differences", "p"), [([1.0] * 5, 2 / 32), ([1.0, -1.0], 1.0), ([0.0, 0.0], 1.0)]
)
def test_the_sign_test(differences: list[float], p: float) -> None:
    assert sign_p(torch.tensor(differences, dtype=torch.float64)) == pytest.approx(p)


def test_the_sign_test_of_nothing() -> None:
    assert np.isnan(sign_p(torch.full((3,), torch.nan, dtype=torch.float64)))


def test_pairs_are_looked_at_once_however_often_sources_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems, looked = drawn("digits", "tree", n=40), []
    evaluate = Hypothesis.evaluate

    def counting(hypothesis: Hypothesis, operands: dict[str, np.ndarray]) -> dict:
        looked.append(len(operands["a"]))
        return evaluate(hypothesis, operands)

    monkeypatch.setattr(Hypothesis, "evaluate", counting)

    def looks(n_shuffles: int) -> int:
        looked.clear()
        assert draw_sources(problems, "tens", m=1, n_shuffles=n_shuffles, seed=0) is not None
        return sum(looked)

    assert looks(30) == looks(2)
