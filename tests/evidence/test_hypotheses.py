"""Rival hypotheses on the same pairs: by hand, and on answers that follow one of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import COMPONENT_COLUMNS, Site
from mech_arith.evidence.columns import conformed
from mech_arith.evidence.counterfactual import iia
from mech_arith.evidence.hypotheses import TIE, hypothesis_table, rivalries
from mech_arith.evidence.hypothesis_summary import hypothesis_summary
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.controls import Arm, Target
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.asked import AskedHypothesis, with_hypotheses
from mech_arith.problems.expressions import parse_constraint
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
    (row,) = table_of(sources, edited).to_dict(orient="records")
    return row


def table_of(sources: Sources, edited: torch.Tensor) -> pd.DataFrame:
    right = torch.from_numpy(sources.base.answers).double()
    scorer = Scorer(Answers(right, right, right), right, 0.0, True, HOW)
    table = hypothesis_table(run_of(sources, edited), PLAN, scorer)
    conformed("hypotheses", table)
    return table


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


def with_operand(sources: Sources, name: str) -> torch.Tensor:
    """The answers of a-(b-c) with one operand from the source: by hand."""
    answers = []
    for source in sources.problems:
        a, b, c = ({**sources.base.operands, name: source.operands[name]}[one] for one in "abc")
        answers.append(a - (b - c))
    return torch.from_numpy(np.stack(answers)).double()


def said_of(table: pd.DataFrame) -> dict:
    evidence = table[["value", *COMPONENT_COLUMNS]].drop_duplicates().assign(r_fit=0.5)
    (pair,) = hypothesis_summary({"hypotheses": table, "evidence": evidence}).values()
    return pair


def test_a_rival_without_inner_steps_expects_one_operand_each() -> None:
    found = draw_sources(drawn("tree", "at_once"), "b-c", m=3, n_shuffles=2, seed=0)
    assert found is not None
    for name, pair in rivalries(found, tolerance=0.0, seed=0):
        assert name == "at_once"
        assert torch.equal(pair.by_rival, with_operand(found, pair.rival))
        assert pair.distinguishing.all()
    table = table_of(found, found.expected).set_index("rival_value")
    assert list(table.index) == ["a", "b", "c"]
    assert set(table["supports"]) == {"tree"}
    table = table_of(found, with_operand(found, "b")).set_index("rival_value")
    assert table["supports"].to_dict() == {"a": TIE, "b": "at_once", "c": TIE}
    assert table.loc["b", ["distinguishing", "distinguishing_rival"]].tolist() == [0, 1]


def test_a_step_wins_where_it_beats_every_value_of_the_rival() -> None:
    found = draw_sources(drawn("tree", "at_once"), "b-c", m=3, n_shuffles=2, seed=0)
    assert found is not None
    pair = said_of(table_of(found, found.expected))
    assert pair["text"].startswith("tree, and not at_once: b-c in")
    assert (pair["n_ties"], pair["n_comparisons"]) == (0, 1)
    # As often b alone: that b-c is right more often than a and c does not make it a step.
    half = found.expected.clone()
    half[:, ::2] = with_operand(found, "b")[:, ::2]
    table = table_of(found, half).set_index("rival_value")
    assert table["supports"].to_dict() == {"a": TIE, "b": TIE, "c": TIE}
    assert table["others_rival"].round(1).to_dict() == {"a": 0.5, "b": 0, "c": 0.5}
    assert said_of(table.reset_index())["text"].startswith("a tie")
    pair = said_of(table_of(found, with_operand(found, "c")))
    assert pair["text"].startswith("at_once, and not tree: c in")


def test_the_clearest_place_has_pairs_that_tell(sources: Sources) -> None:
    """A row without them has no difference, and stands before the others here."""
    half = sources.expected.clone()
    half[:, ::2] = by_rival(sources)[:, ::2]
    row = table_of(sources, half)
    nothing = row.assign(layer=1, n_distinguishing=0, difference=np.nan, distinguishing=np.nan)
    pair = said_of(pd.concat([nothing, row], ignore_index=True))
    assert pair["supports"] == TIE
    assert (pair["clearest"]["layer"], pair["clearest"]["n_distinguishing"]) == (SITE.layer, 180)
    assert said_of(nothing)["clearest"]["n_distinguishing"] == 0


def test_a_rival_wins_where_it_beats_every_step_of_the_hypothesis() -> None:
    """Where the tens move, they go with a+b: asked for the ones, that is not the tree's."""
    template, ranges = build_template("t", "a+b+c"), dict.fromkeys("abc", (0, 19))
    plain = draw(template, n=120, ranges=ranges, seed=5)
    asked = [AskedHypothesis("digits"), AskedHypothesis("tree")]
    named = with_hypotheses(template, asked[0], asked[1:], ranges=ranges, operands=plain.operands)
    base = ProblemSet.of(named, plain.operands)
    found = draw_sources(base, "ones", m=3, n_shuffles=2, seed=0)
    assert found is not None
    ((_, pair),) = rivalries(found, tolerance=0.0, seed=0)
    assert row_of(found, pair.by_rival)["supports"] == "tree"
    tens = torch.stack(
        [
            torch.from_numpy(
                found.base.hypothesis.expected("tens", s.values["tens"], found.base.operands)
            )
            for s in found.problems
        ]
    )
    partly = torch.where(torch.arange(tens.shape[1]) % 3 == 0, pair.by_rival, tens)
    row = row_of(found, partly)
    assert row["distinguishing_rival"] > row["distinguishing"]
    assert row["p_holm"] <= 0.05
    assert row["others"] > row["distinguishing_rival"]
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


def of_digits(n: int, *rivals: str) -> ProblemSet:
    template, ranges = build_template("t", "a+b"), dict.fromkeys("ab", (10, 99))
    plain = draw(template, n=n, ranges=ranges, seed=5)
    others = [AskedHypothesis(name) for name in rivals]
    named = with_hypotheses(
        template, AskedHypothesis("digits"), others, ranges=ranges, operands=plain.operands
    )
    return ProblemSet.of(named, plain.operands)


def test_siblings_of_a_digit_are_kept_where_they_can_be() -> None:
    base = of_digits(400)
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


def test_chance_of_a_value_of_two_numbers_is_another_problems_source() -> None:
    """Every source of a carry has the other one: were that chance, what is perfect would be."""
    found = draw_sources(of_digits(400), "ones_carry", m=1, n_shuffles=200, seed=0)
    assert found is not None
    clean = torch.from_numpy(found.base.answers).double()
    followed = iia(found.expected[None], clean, found, tolerance=0.0, how=HOW)
    assert (followed.iia, followed.p) == (1, pytest.approx(1 / 201))
    carried = float((found.wanted == 0).double().mean())
    assert followed.floor == pytest.approx(carried**2 + (1 - carried) ** 2, abs=0.02)
    assert np.isnan(followed.slope)  # the other number is no news
    kept = iia(clean.expand(1, 1, -1), clean, found, tolerance=0.0, how=HOW)
    assert (kept.iia, kept.p) == (0, 1)


def test_chance_of_a_digit_is_another_problems_source() -> None:
    """A problem's own digit too: sources that are drawn for it never have that one."""
    found = draw_sources(of_digits(400), "ones", m=1, n_shuffles=200, seed=0)
    assert found is not None
    base = torch.from_numpy(found.base.answers).double()
    assert not (found.other == base).any()
    assert float((found.by_chance == base).double().mean()) == pytest.approx(0.1, abs=0.02)
    followed = iia(found.expected[None], base, found, tolerance=0.0, how=HOW)
    assert followed.floor == pytest.approx(0.1, abs=0.01)  # one of ten, and not of nine
    assert torch.equal(replace(found).by_chance, found.by_chance)
    assert not torch.equal(replace(found, seed=1).by_chance, found.by_chance)


@pytest.mark.parametrize(("most", "numbers"), [(19, [0, 1]), (20, [0, 1, 2])])
def test_chance_of_nearly_two_numbers_is_that_of_two(most: int, numbers: list[int]) -> None:
    """A third number of the carry that few problems have does not change what chance is."""
    template, ranges = build_template("t", "a+b+c"), dict.fromkeys("abc", (0, 9))
    small = [parse_constraint(f"a+b+c <= {most}")]
    plain = draw(template, n=300, ranges=ranges, constraints=small, seed=5)
    named = with_hypotheses(
        template, AskedHypothesis("digits"), [], ranges=ranges, operands=plain.operands
    )
    base = ProblemSet.of(named, plain.operands)
    found = draw_sources(base, "ones_carry", m=1, n_shuffles=50, seed=0, constraints=small)
    assert found is not None
    carries = found.wanted[0].long().bincount().double() / len(found.base)
    assert [*np.unique(found.base.values["ones_carry"])] == numbers
    clean = torch.from_numpy(found.base.answers).double()
    followed = iia(found.expected[None], clean, found, tolerance=0.0, how=HOW)
    assert followed.floor == pytest.approx(float(carries.square().sum()), abs=0.02)


@pytest.mark.parametrize("value", ["a", "b-c"])
def test_chance_of_a_value_of_the_tree_is_what_was_drawn(value: str) -> None:
    problems = drawn(least=90)  # of ten numbers each
    assert len(np.unique(problems.values["a"])) == 10
    found = draw_sources(problems, value, m=2, n_shuffles=5, seed=0)
    assert found is not None
    assert found.by_chance is found.other


@pytest.mark.parametrize("value", ["ones", "ones_carry", "a"])
def test_pairs_that_are_judged_once_give_the_same_sources(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = of_digits(40, "tree")

    def found() -> Sources:
        drawn = draw_sources(
            base, value, m=2, n_shuffles=3, seed=0, constraints=[parse_constraint("a+b >= 40")]
        )
        assert drawn is not None
        return drawn

    kept = found()
    monkeypatch.setattr("mech_arith.problems.sources.KNOWN_PAIRS", 40 * 40 - 1)
    judged_anew = found()
    assert torch.equal(kept.rows, judged_anew.rows)
    assert torch.equal(kept.wanted, judged_anew.wanted)
    assert torch.equal(kept.other, judged_anew.other)


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
