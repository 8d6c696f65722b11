import math
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, linregress

from mech_arith.evidence.counterfactual import iia, line, lines
from mech_arith.problems import ProblemSet, draw
from mech_arith.problems.expressions import parse_constraint
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling, averaged

sources_of = partial(draw_sources, n_shuffles=1)
HOW = Resampling(n_resamples=200, n_permutations=200)
TEMPLATE = build_template("nested", "a-(b-c)")
PROBLEMS = draw(TEMPLATE, n=40, ranges=dict.fromkeys("abc", (100, 999)), seed=3)


def rows(*rows_of_numbers: list[float]) -> torch.Tensor:
    return torch.tensor(rows_of_numbers, dtype=torch.float64)


def problems(expression: str, **operands: list[int]) -> ProblemSet:
    columns = {name: np.array(numbers) for name, numbers in operands.items()}
    return ProblemSet.of(build_template("mine", expression), columns)


def drawn(value: str, **options) -> Sources:
    found = sources_of(PROBLEMS, value, **{"m": 3, "seed": 1, **options})
    assert found is not None
    return found


@cache
def with_chance(value: str) -> Sources:
    """Also drawn anew as often as the chance floor needs it."""
    return drawn(value, n_shuffles=50)


@pytest.mark.parametrize("value", TEMPLATE.expression.values)
def test_a_source_differs_in_the_value_and_in_what_follows_from_it(value):
    sources = drawn(value)
    inside = TEMPLATE.expression.hypothesis.operands_of(value)
    assert len(sources.rows) == 40
    for source, wanted, expected in zip(
        sources.problems, sources.wanted, sources.expected, strict=True
    ):
        assert (source.values[value] != PROBLEMS.values[value]).all()
        for name, numbers in source.operands.items():
            assert name in inside or (numbers == PROBLEMS.operands[name]).all()
        assert wanted.tolist() == source.values[value].tolist()
        assert expected.tolist() == source.answers.tolist()
    assert sources.replaces_the_value_alone


def test_sources_follow_the_seed_and_differ_between_draws():
    first, again, other = (drawn("b-c", seed=seed).wanted for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_sources_are_the_same_whether_pairs_are_judged_once_or_as_they_are_drawn(monkeypatch):
    problems_ = problems("a//b", a=[7, 8, 9, 14, 30], b=[1, 2, 3, 7, 4])
    constraints = (parse_constraint("a > b"),)
    once = sources_of(problems_, "b", m=2, n_shuffles=20, seed=3, constraints=constraints)
    monkeypatch.setattr("mech_arith.problems.sources.KNOWN_PAIRS", 0)
    drawn_ = sources_of(problems_, "b", m=2, n_shuffles=20, seed=3, constraints=constraints)
    assert once is not None
    assert drawn_ is not None
    assert torch.equal(once.other, drawn_.other)
    for one, other in zip(once.problems, drawn_.problems, strict=True):
        assert one.operands["b"].tolist() == other.operands["b"].tolist()


def test_sources_keep_the_constraints():
    kept = draw(
        TEMPLATE,
        n=40,
        ranges=dict.fromkeys("abc", (1, 20)),
        constraints=[parse_constraint("b > c")],
        seed=0,
    )
    sources = sources_of(kept, "c", m=4, seed=0, constraints=[parse_constraint("b > c")])
    assert sources is not None
    for source in sources.problems:
        assert (source.operands["b"] > source.operands["c"]).all()


def test_problems_without_a_partner_are_left_out():
    found = sources_of(problems("a-b", a=[5, 5, 7], b=[1, 2, 3]), "a", m=2, seed=0)
    assert found is not None
    assert found.rows.tolist() == [0, 1, 2]
    # 5 > b holds for no other a of the third problem, whose b is 6.
    few = problems("a-b", a=[5, 4, 7], b=[1, 2, 6])
    found = sources_of(few, "a", m=2, seed=0, constraints=[parse_constraint("a > b")])
    assert found is not None
    assert found.rows.tolist() == [0, 1]
    assert sources_of(problems("a-b", a=[5, 5], b=[1, 2]), "a", m=2, seed=0) is None


def test_an_operand_that_stands_outside_the_value_too_is_noticed():
    found = sources_of(problems("(a+b)*a", a=[2, 3, 4], b=[5, 7, 9]), "a+b", m=1, seed=0)
    assert found is not None
    assert not found.replaces_the_value_alone
    # (a+b) alone is another number: a, which multiplies it, is as it was.
    assert (found.expected[0] == found.wanted[0] * torch.tensor([2.0, 3.0, 4.0])).all()


def test_iia_of_answers_that_follow_and_of_answers_that_do_not():
    sources = with_chance("b-c")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    followed = iia(sources.expected[None], clean, sources, tolerance=0.0, how=HOW)
    assert followed.iia == 1
    assert followed.slope == pytest.approx(1)
    assert followed.r2_change == pytest.approx(1)
    assert followed.monotonicity == 1
    assert followed.wrong_way == 0
    assert followed.own_slope_50 == pytest.approx(1)
    assert followed.floor < 0.05
    assert followed.p == pytest.approx(1 / 51)
    assert followed.iia_low > 0.85
    stayed = iia(clean.expand(1, 3, -1), clean, sources, tolerance=0.0, how=HOW)
    assert stayed.iia == 0
    assert stayed.floor == 0  # no source asks for the answer that is there already
    assert stayed.slope == 0
    assert math.isnan(stayed.r2_change)
    assert stayed.monotonicity == 0
    assert stayed.p == 1
    opposite = iia((2 * clean - sources.expected)[None], clean, sources, tolerance=0.0, how=HOW)
    assert opposite.slope == pytest.approx(-1)
    assert opposite.monotonicity == -1
    assert opposite.wrong_way == 1


def test_iia_by_hand():
    """Two problems a-b, 9-1 and 7-2, each with the other's a."""
    base = problems("a-b", a=[9, 7], b=[1, 2])
    sources = sources_of(base, "a", m=1, n_shuffles=50, seed=0)
    assert sources is not None
    assert sources.expected.tolist() == [[6, 7]]  # 7-1 and 9-2
    clean = torch.tensor([8.0, 5.0], dtype=torch.float64)
    found = iia(rows([6, 5])[None], clean, sources, tolerance=0.0, how=HOW)
    assert found.iia == 0.5
    for name in ("slope", "r2_change", "monotonicity", "wrong_way", "own_slope_50"):
        assert math.isnan(getattr(found, name)), name  # of two problems with one source each
    # Each problem has but one other to take its a from: chance expects just the same.
    assert found.floor == 0.5
    assert found.p == 1
    within = iia(rows([6, 5])[None], clean, sources, tolerance=2.0, how=HOW)
    assert within.iia == 1


def test_directions_are_averaged():
    sources = with_chance("a")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    both = torch.stack([sources.expected, clean.expand(3, -1)])
    found = iia(both, clean, sources, tolerance=0.0, how=HOW, drawn=True)
    assert found.iia == 0.5
    assert found.slope == pytest.approx(0.5)
    assert found.monotonicity == 0.5
    assert found.iia_low < 0.1  # two directions say little of others that might be drawn


def test_no_number_is_no_iia_and_no_slope():
    sources = with_chance("a")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    nothing = torch.full((1, 3, 40), torch.nan, dtype=torch.float64)
    found = iia(nothing, clean, sources, tolerance=5.0, how=HOW)
    assert found.iia == 0
    for name in ("slope", "slope_low", "r2_change", "monotonicity", "wrong_way", "own_slope_50"):
        assert math.isnan(getattr(found, name)), name


numbers = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20, unique=True
).filter(lambda pairs: len({x for x, _ in pairs}) > 1 and len({y for _, y in pairs}) > 1)


def following_edits(sources: Sources, clean: torch.Tensor, *, seed: int = 0) -> dict:
    """Answers under edits of which it is known how far they follow the source -> that share."""
    generator = torch.Generator().manual_seed(seed)
    shape, right = sources.expected.shape, torch.from_numpy(sources.base.answers).double()
    order = torch.randperm(len(right), generator=generator)
    inside = sources.base.hypothesis.operands_of(sources.value)
    operands = {
        name: np.full_like(numbers, numbers.mean()) if name in inside else numbers
        for name, numbers in sources.base.operands.items()
    }
    without = ProblemSet.of(sources.base.template, operands).answers
    noise = torch.randn(shape, generator=generator, dtype=torch.float64) * right.std()
    given_ = {
        "follows": (sources.expected, 1.0),
        "does nothing": (clean, 0.0),
        "destroys the answer: its mean": (right.mean(), 0.0),
        "destroys the answer: noise": (right.mean() + noise, 0.0),
        "destroys the answer: another problem's": (right[order], 0.0),
        "destroys the value alone: its mean": (torch.from_numpy(without).double(), 0.0),
        "half way": (clean + (sources.expected - right) / 2, 0.5),
        "half way, and noise": (clean + (sources.expected - right) / 2 + noise, 0.5),
        "the wrong way": (clean - (sources.expected - right), -1.0),
    }
    return {name: (answers.expand(shape), share) for name, (answers, share) in given_.items()}


CASES = [("a-(b-c)", "b-c"), ("a-(b-c)", "b"), ("a-(b-c)", "a-(b-c)"), ("a*(b+c)", "b+c")]


@pytest.mark.parametrize(("expression", "value"), CASES)
def test_a_slope_is_0_where_the_answer_does_not_follow_and_1_where_it_does(expression, value):
    """Also where it is destroyed; without noise, to a digit."""
    template = build_template("mine", expression)
    base = draw(template, n=60, ranges=dict.fromkeys("abc", (1, 99)), seed=5)
    sources = draw_sources(base, value, m=3, n_shuffles=80, seed=1)
    assert sources is not None
    clean = torch.from_numpy(sources.base.answers).double()
    clean[::7] += 30  # not all answers are right
    for name, (edited, share) in following_edits(sources, clean).items():
        wide = Resampling(level=0.9999)
        found = iia(edited[None], clean, sources, tolerance=0.0, how=wide)
        if name != "does nothing":
            assert found.slope_low - 0.02 <= share <= found.slope_high + 0.02, name
        if "noise" not in name and "another" not in name:
            assert found.slope == pytest.approx(share, abs=0.02), name
        if "mean" in name:
            assert found.wrong_way == 0, name
            assert found.own_slope_50 == pytest.approx(0), name


def test_a_slopes_interval_excludes_0_for_a_destroyed_answer_as_seldom_as_it_says():
    base = draw(TEMPLATE, n=60, ranges=dict.fromkeys("abc", (100, 999)), seed=6)
    clean, held = torch.from_numpy(base.answers).double(), []
    sources = draw_sources(base, "b-c", m=3, n_shuffles=60, seed=0)
    assert sources is not None
    for seed in range(120):
        edits = following_edits(sources, clean, seed=seed)
        for name in ("destroys the answer: noise", "destroys the answer: another problem's"):
            found = iia(edits[name][0][None], clean, sources, tolerance=0.0, how=HOW)
            held.append(found.slope_low <= 0 <= found.slope_high)
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(("n_moved", "is_known"), [(0, False), (1, False), (9, False), (10, True)])
def test_a_slope_that_few_answers_make_has_no_interval(n_moved, is_known):
    sources = with_chance("b-c")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    moves = torch.arange(40) < n_moved
    edited = torch.where(moves, sources.expected, clean)[None]
    found = iia(edited, clean, sources, tolerance=0.0, how=HOW)
    assert found.slope == pytest.approx(n_moved / 40, abs=0.1)
    assert math.isfinite(found.slope_low) is math.isfinite(found.slope_high) is is_known


def test_a_slope_that_the_base_problem_determines_is_undefined():
    """With two numbers to choose from, the other one is no news."""
    base = problems("a-b", a=[1, 2] * 10, b=list(range(20)))
    sources = sources_of(base, "a", m=2, seed=0)
    assert sources is not None
    clean = torch.from_numpy(base.answers).double()
    found = iia(sources.expected[None], clean, sources, tolerance=0.0, how=HOW)
    assert found.iia == 1
    assert math.isnan(found.slope)
    assert math.isnan(found.slope_low)


def test_answers_that_differ_by_rounding_have_not_moved():
    sources = with_chance("b-c")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    generator = torch.Generator().manual_seed(0)
    rounding = 1e-5 * torch.randn(1, 3, 40, generator=generator, dtype=torch.float64)
    found = iia(clean + rounding, clean, sources, tolerance=0.5, how=HOW)
    assert (found.slope, found.wrong_way, found.monotonicity) == (0, 0, 0)
    moved = iia(clean - 1.0 + 0 * rounding, clean, sources, tolerance=0.5, how=HOW)
    assert moved.wrong_way == 0
    assert moved.slope == pytest.approx(0)


@given(numbers)
def test_the_line_is_that_of_scipy(pairs):
    x, y = rows(*[[float(number) for number in column] for column in zip(*pairs, strict=True)])
    theirs = linregress(x.numpy(), y.numpy())
    ours = line(x[None], y[None])
    ends = averaged(ours.by_problem[None], HOW, drawn=False)
    assert ours.slope == pytest.approx(theirs.slope, abs=1e-9)
    assert ours.r2 == pytest.approx(theirs.rvalue**2, abs=1e-9)
    assert ends.mean == ours.slope
    assert ends.low - 1e-9 <= ours.slope <= ends.high + 1e-9


def test_the_slopes_interval_is_that_of_clustered_errors():
    statsmodels = pytest.importorskip("statsmodels.api")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 200, generator=generator, dtype=torch.float64)
    own = torch.randn(200, generator=generator, dtype=torch.float64)
    y = 0.7 * x + own * x + torch.randn(4, 200, generator=generator, dtype=torch.float64)
    groups = torch.arange(200).expand(4, -1).flatten().numpy()
    design = statsmodels.add_constant(x.flatten().numpy())
    theirs = statsmodels.OLS(y.flatten().numpy(), design).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    ours = averaged(line(x, y).by_problem[None], HOW, drawn=False)
    assert ours.mean == pytest.approx(theirs.params[1])
    half = float(ours.high - ours.low) / 2
    assert half == pytest.approx(1.97 * theirs.bse[1], rel=0.02)


def test_a_line_with_numbers_held_fixed_is_that_of_a_regression_on_all():
    statsmodels = pytest.importorskip("statsmodels.api")
    generator = torch.Generator().manual_seed(0)
    fixed = torch.randn(2, 150, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 150, generator=generator, dtype=torch.float64)
    x = fixed[0] - fixed[1] + torch.randn(3, 150, generator=generator, dtype=torch.float64)
    y = 0.4 * x + 2 * fixed[0] + 1e3 + noise
    y[1, ::9], y[:, 4] = torch.nan, torch.inf
    known = torch.isfinite(y)
    every = torch.stack([x, *(one.expand(3, -1) for one in fixed)])[:, known].T.numpy()
    groups = torch.arange(150).expand(3, -1)[known].numpy()
    theirs = statsmodels.OLS(y[known].numpy(), statsmodels.add_constant(every)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    # One more that follows from the others changes nothing.
    found = line(x, y, fixed=[*fixed, fixed.sum(0) - 1])
    assert found.slope == pytest.approx(theirs.params[1])
    assert int(found.by_problem.isnan().sum()) == 1
    ours = averaged(found.by_problem[None], HOW, drawn=False)
    half = float(ours.high - ours.low) / 2
    assert half == pytest.approx(1.976 * theirs.bse[1], rel=0.02)


def test_many_lines_are_each_the_one_of_its_own_numbers():
    generator = torch.Generator().manual_seed(0)
    x, ys = torch.randn(2, 12, generator=generator), torch.randn(5, 2, 12, generator=generator)
    x, ys = x.double(), ys.double()
    fixed = [torch.randn(12, generator=generator, dtype=torch.float64)]
    ys[1, 0, 3] = ys[3, :, 5] = torch.nan
    ys[2] = 4.0
    ys[4] = fixed[0]
    for y, together in zip(ys, lines(x, ys, fixed=fixed), strict=True):
        alone = line(x, y, fixed=fixed)
        torch.testing.assert_close(together.by_problem, alone.by_problem, equal_nan=True)
        assert together.r2 == pytest.approx(alone.r2, nan_ok=True)


def test_monotonicity_is_kendalls_tau_of_a_problem():
    base = problems("a-b", a=[9, 7, 5, 3, 1], b=[1, 1, 1, 1, 1])
    sources = sources_of(base, "a", m=6, seed=0)
    assert sources is not None
    edited = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    clean = torch.from_numpy(base.answers).double()
    found = iia(edited[None], clean, sources, tolerance=0.0, how=HOW)
    concordant = compared = 0.0
    for asked, given_ in zip(sources.expected.T, edited.T, strict=True):
        pairs = sum(float(asked[i] != asked[j]) for i in range(6) for j in range(i + 1, 6))
        # Without ties in the answers, tau-b is concordance over sqrt(pairs * compared pairs).
        tau = kendalltau(asked.numpy(), given_.numpy()).statistic
        concordant += tau * math.sqrt(pairs * 15)
        compared += pairs
    assert found.monotonicity == pytest.approx(concordant / compared)


def test_slopes_of_drawn_directions_are_as_unsure_as_their_draws():
    sources = with_chance("b-c")
    clean = torch.from_numpy(PROBLEMS.answers).double()
    change = sources.expected - clean
    spread = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64)
    edited = clean + (0.4 + spread)[:, None, None] * change
    fixed, sampled = (
        iia(edited, clean, sources, tolerance=0.0, how=HOW, drawn=of) for of in (False, True)
    )
    assert fixed.slope == pytest.approx(0.4)
    assert sampled.slope == pytest.approx(0.4)
    assert sampled.slope_high - sampled.slope_low > 0.3
    assert fixed.slope_high - fixed.slope_low < 0.01


def test_answers_that_have_nothing_to_do_with_the_value_agree_as_chance_has_it():
    """Small operands, where a random answer is often the expected one."""
    small = draw(build_template("sum", "a+b"), n=60, ranges=dict.fromkeys("ab", (0, 9)), seed=0)
    sources = sources_of(small, "a", m=2, n_shuffles=50, seed=0)
    assert sources is not None
    clean = torch.from_numpy(small.answers).double()
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(150):
        answers = torch.randint(19, (1, 2, 60), generator=generator).double()
        found.append(iia(answers, clean, sources, tolerance=0.0, how=HOW).p)
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)
