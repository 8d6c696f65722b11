"""IIA of each token of the answer, by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.evidence.answer_tokens import Spelling, answer_token_table, token_summary
from mech_arith.evidence.columns import conformed
from mech_arith.interventions.controls import Arm, Target
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.models.arithmetic.tokens import AnswerFormat
from mech_arith.models.prompts import NO_TOKEN
from mech_arith.problems import ProblemSet
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling
from tests.tiny import tiny_decoder, tiny_encoder

SITE = Site(2, "resid_post", "answer")
DIFFERENCE = build_template("d", "a-b")
OPERANDS = {"a": np.array([10, 20, 31, 47, 52]), "b": np.array([3, 25, 11, 9, 60])}
PROBLEMS = ProblemSet.of(DIFFERENCE, OPERANDS)
"""7, -5, 20, 38, -8."""
SIGNED = Spelling(AnswerFormat(width=2).tokens, ("sign", "10^0", "10^1"))


def written(numbers, spelling=SIGNED):
    """Answers [k, m, s, n] that were written."""
    numbers = torch.as_tensor(numbers, dtype=torch.float64)
    return Answers(numbers, numbers, numbers, spelling.tokens(numbers))


def run_of(edited, ceiling, sources, arms=None, spelling=SIGNED):
    """A run with one result."""
    arms = arms or (Arm("target", torch.ones(1, 1, 4), ("component 0",)),)
    m, n = sources.expected.shape
    result = InterventionResult(
        SITE,
        Target((0,), ("b",), "b"),
        arms,
        torch.ones(m, 1, n, 1, dtype=torch.float64),
        torch.zeros(n, 1, dtype=torch.float64),
        sources.rows,
        written(edited, spelling),
    )
    return InterventionRun([result], {"b": sources}, {("b", SITE): written(ceiling, spelling)})


PLAN = InterventionPlan(find_edit("interchange"), (1.0,))
HOW = Resampling(n_permutations=7)


@pytest.fixture(scope="module")
def sources():
    found = draw_sources(PROBLEMS, "b", m=2, n_shuffles=400, seed=0)
    assert found is not None
    return found


def rows_of(run, spelling=SIGNED):
    table = answer_token_table(run, PLAN, spelling, HOW)
    conformed("answer_tokens", table)
    return table


def test_a_run_that_follows_wholly_has_every_token(sources):
    table = rows_of(run_of(sources.expected[None, :, None], sources.expected[0], sources))
    assert table["token_name"].tolist() == ["sign", "10^0", "10^1"]
    for name in ("iia", "iia_changed", "ceiling", "ceiling_changed"):
        assert table[name].tolist() == [1, 1, 1]
    assert (table["iia_low"] < 1).all()
    assert (table["floor"] < 1).all()
    assert table["n"].tolist() == [5, 5, 5]


def test_tokens_by_hand(sources):
    """The right answers: only tokens follow that need not change."""
    right = torch.from_numpy(PROBLEMS.answers).double()
    edited = right.expand(1, 2, 1, 5)
    table = rows_of(run_of(edited, sources.expected[0], sources)).set_index("token_name")
    for place, power in (("10^0", 1), ("10^1", 10)):
        same = (right.abs() // power % 10) == (sources.expected.abs() // power % 10)
        assert table.loc[place, "iia"] == pytest.approx(float(same.double().mean()))
        assert table.loc[place, "n_changed"] == int((~same).any(0).sum())
        others = sources.other.abs() // power % 10
        by_chance = float((others == right.abs() // power % 10).double().mean())
        assert table.loc[place, "floor"] == pytest.approx(by_chance)
    same = (right < 0) == (sources.expected < 0)
    assert table.loc["sign", "iia"] == pytest.approx(float(same.double().mean()))
    assert (table["iia_changed"].dropna() == 0).all()
    assert (table["ceiling"] == 1).all()


def test_the_ceiling_is_of_the_first_source(sources):
    table = rows_of(run_of(sources.expected[None, :, None], sources.expected[1], sources))
    units = (sources.expected[0].abs() % 10) == (sources.expected[1].abs() % 10)
    assert table.set_index("token_name").loc["10^0", "ceiling"] == float(units.double().mean())


def test_directions_of_an_arm_are_averaged(sources):
    right = torch.from_numpy(PROBLEMS.answers).double().expand(2, 1, 5)
    both = torch.stack([sources.expected[:, None], right])
    arms = (
        Arm("target", torch.ones(1, 1, 4), ("component 0",)),
        Arm("control", torch.ones(2, 1, 4), ("random 0", "random 1")),
    )
    edited = torch.cat([right[None], both])
    table = rows_of(run_of(edited, sources.expected[0], sources, arms))
    target, control = (table.loc[table["arm"] == arm] for arm in ("target", "control"))
    expected = (1 + target["iia"].to_numpy()) / 2
    np.testing.assert_allclose(control["iia"].to_numpy(), expected)
    assert set(control["n_directions"]) == {2}


def test_answers_that_end_early_or_are_no_number_follow_in_none_of_the_tokens_they_lack(sources):
    """As a language model writes: from the front, as many digits as there are."""
    plain = Spelling(lambda number: tuple(map(ord, str(number))), ("token 0", "token 1", "token 2"))
    table = rows_of(
        run_of(sources.expected[None, :, None], sources.expected[0], sources, spelling=plain), plain
    )
    longest = max(len(str(int(number))) for number in sources.expected.flatten())
    lengths = np.vectorize(lambda number: len(str(int(number))))(sources.expected.numpy())
    assert table["n"].tolist() == [int((lengths > t).any(0).sum()) for t in range(3)]
    assert table["iia"].tolist()[:longest] == [1.0] * longest
    nothing = torch.full((1, 2, 1, 5), torch.nan, dtype=torch.float64)
    table = rows_of(run_of(nothing, sources.expected[0], sources, spelling=plain), plain)
    assert table["iia"].tolist()[:longest] == [0.0] * longest
    assert table["floor"].tolist()[:longest] == [0.0] * longest


def test_there_is_no_ceiling_where_a_source_differs_in_more_than_the_value():
    twice = ProblemSet.of(build_template("t", "a-b+b"), OPERANDS)
    found = draw_sources(twice, "b", m=2, n_shuffles=9, seed=0)
    assert found is not None
    if found.replaces_the_value_alone:
        found = draw_sources(twice, "a-b", m=2, n_shuffles=9, seed=0)
    assert found is not None
    assert not found.replaces_the_value_alone
    run = run_of(found.expected[None, :, None], found.expected[0], found)
    table = rows_of(run)
    assert table["ceiling"].isna().all()
    assert set(table["ceiling_reason"]) == {"a source differs in more than the value"}


def test_a_spelling_is_that_of_the_model():
    decoder = tiny_decoder()
    spelling = Spelling.of(decoder, 5)
    assert spelling is not None
    assert spelling.names == ("sign", "10^0", "10^1", "10^2", "10^3")
    numbers = torch.tensor([[-37.0, 5.0], [torch.nan, 5.0]], dtype=torch.float64)
    tokens = spelling.tokens(numbers)
    assert tuple(tokens[0, 0].tolist()) == decoder.reader.tokens(-37)
    assert tuple(tokens[1, 1].tolist()) == decoder.reader.tokens(5)
    assert (tokens[1, 0] == NO_TOKEN).all()
    assert Spelling.of(tiny_encoder(), 0) is None
    assert Spelling.of(decoder, 2).names == ("sign", "10^0")


def test_the_summary_is_read_at_the_place_of_the_headline(sources):
    table = rows_of(run_of(sources.expected[None, :, None], sources.expected[0], sources))
    place = {**SITE.columns(), "component": 0, "rank": 1}
    found = token_summary(table, {"b": place, "a": place})
    assert list(found) == ["b"]
    assert found["b"]["component"] == 0
    assert found["b"]["10^0"]["iia"] == 1
    assert token_summary(table, {"b": {**place, "component": 1}}) == {}
    assert token_summary(pd.DataFrame(), {"b": place}) == {}


def test_p_of_each_token_is_its_rank_among_draws_by_hand(sources):
    """A run that follows the sign alone: its other digits are those of the right answer."""
    sizes = torch.from_numpy(PROBLEMS.answers).double().abs()
    edited = torch.where(sources.expected < 0, -sizes, sizes)
    table = rows_of(run_of(edited[None, :, None], sources.expected[0], sources))
    table = table.set_index("token_name")
    for name, of in (("sign", lambda n: n < 0), ("10^0", lambda n: n.abs() % 10)):
        agreed = (of(edited) == of(sources.expected)).sum()
        draws = (of(edited) == of(sources.other)).sum((1, 2))
        by_hand = (1 + int((draws >= agreed).sum())) / (1 + len(draws))
        assert table.loc[name, "p"] == pytest.approx(by_hand)
    assert table.loc["sign", "p"] < 0.1 < table.loc["10^0", "p"]
    assert (table["p_max"] >= table["p"]).all()
    assert table.loc["sign", "p_max"] <= 0.2


def test_p_is_corrected_for_all_tokens_of_all_targets(sources):
    """Beside a second target each p is as large or larger; another strength is another family."""
    right = torch.from_numpy(PROBLEMS.answers).double().expand(1, 2, 1, 5)
    alone = run_of(right, sources.expected[0], sources)
    other = run_of(sources.expected[None, :, None], sources.expected[0], sources)
    both = InterventionRun([*alone.results, *other.results], alone.sources, alone.ceilings)
    single, joint = rows_of(alone), rows_of(both).iloc[:3]
    np.testing.assert_array_equal(single["p"], joint["p"])
    assert (joint["p_max"] >= single["p_max"]).all()
    assert (joint["p_max"] > single["p_max"]).any()


def test_controls_have_no_p_and_tokens_that_no_answer_has_none_either(sources):
    arms = (
        Arm("target", torch.ones(1, 1, 4), ("component 0",)),
        Arm("control", torch.ones(1, 1, 4), ("random 0",)),
    )
    edited = sources.expected[:, None].expand(2, *sources.expected[:, None].shape)
    plain = Spelling(lambda number: tuple(map(ord, str(number))), tuple(map(str, range(6))))
    run = run_of(edited, sources.expected[0], sources, arms, spelling=plain)
    table = rows_of(run, plain)
    assert table.loc[table["arm"] == "control", ["p", "p_max"]].isna().all(axis=None)
    target = table.loc[table["arm"] == "target"].set_index("token_name")
    assert target.loc["0", "p"] < 0.05
    assert target.loc["5", ["p", "p_max"]].isna().all()


def test_where_neither_answer_has_a_token_nothing_agrees(sources):
    """As a language model writes: the third token is there in some answers alone."""
    plain = Spelling(lambda number: tuple(map(ord, str(number))), ("0", "1", "2"))
    right = torch.from_numpy(PROBLEMS.answers).double().expand(2, 5)
    run = run_of(right[None, :, None], sources.expected[0], sources, spelling=plain)
    third = rows_of(run, plain).set_index("token_name").loc["2"]
    written = [[str(int(n))[2:3] for n in row] for row in right]
    found = _same(written, sources.expected)
    draws = np.array([_same(written, other) for other in sources.other])
    assert third["p"] == pytest.approx((1 + (draws >= found).sum()) / (1 + len(draws)))


def _same(written, numbers):
    """How many third characters are there and are the same."""
    return sum(
        there != "" and there == str(int(number))[2:3]
        for row, of_row in zip(written, numbers, strict=True)
        for there, number in zip(row, of_row.tolist(), strict=True)
    )


def test_draws_that_know_nothing_are_small_as_often_as_p_says():
    """Answers drawn as the sources' answers are: p at most .1 in about a tenth of the cases."""
    drawn = draw_sources(PROBLEMS, "b", m=2, n_shuffles=100, seed=1)
    assert drawn is not None
    found = [
        rows_of(run_of(drawn.other[draw][None, :, None], drawn.expected[0], drawn))["p_max"].min()
        for draw in range(60)
    ]
    assert np.mean(np.array(found) <= 0.1) <= 0.2
