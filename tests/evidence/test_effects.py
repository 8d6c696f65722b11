"""Tables of edits, from answers whose right p-values are known."""

import pytest
import torch

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.evidence.effects import contrast_table, contrasts_of, effect_tables
from mech_arith.evidence.outcomes import outcomes_of
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.summary import largest_drop_p
from mech_arith.interventions.controls import CONTROL, TARGET, Arm, Target
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.statistics import Resampling

HOW = Resampling()


def answers(numbers: torch.Tensor) -> Answers:
    unknown = torch.full_like(numbers, torch.nan)
    return Answers(numbers, unknown, unknown)


def results(wrong: torch.Tensor) -> tuple[InterventionResult, Scorer]:
    """One target, first, and its controls, whose edits make some answers wrong: [k, m, s, n]."""
    k, m, s, n = wrong.shape
    right = torch.arange(n, dtype=torch.float64)
    frames = torch.eye(k)[:, None]
    one = InterventionResult(
        Site(0, "resid_post", "all"),
        Target((0,), ("b-c",)),
        (
            Arm(TARGET, frames[:1], ("target",)),
            Arm(CONTROL, frames[1:], tuple(map(str, range(k - 1)))),
        ),
        torch.ones(m, s, n, 1, dtype=torch.float64),
        right[:, None],
        torch.arange(n),
        answers(right + wrong.double()),
    )
    return one, Scorer(answers(right), right, 0.0, True, HOW)


def contrast(wrong: torch.Tensor) -> dict:
    one, scorer = results(wrong)
    (row,) = contrast_table(contrasts_of(one, find_edit("shift"), scorer)).to_dict(orient="records")
    return row


def losing(counts: list[int], n: int) -> torch.Tensor:
    """Each direction costs so many of the first answers."""
    return (torch.arange(n) < torch.tensor(counts)[:, None])[:, None, None]


def test_a_draw_that_costs_as_much_counts_against_the_target():
    # One of 60 is .01666..., of which float32 makes less: one draw of 20 costs the same.
    row = contrast(losing([1, 1] + [0] * 19, 60))
    assert row["p"] == pytest.approx(2 / 21)
    assert row["p_max"] == pytest.approx(2 / 21)


@pytest.mark.parametrize(("m", "s"), [(3, 1), (1, 3), (1, 5), (3, 5)])
def test_what_is_lost_to_other_sources_and_strengths_is_lost_as_well(m: int, s: int):
    """The same number of answers in all, in another order: a tie, whatever the order of sums."""
    generator = torch.Generator().manual_seed(m + s)
    for _ in range(40):
        target = torch.rand(m * s * 30, generator=generator) < 0.1
        as_much = [target[torch.randperm(len(target), generator=generator)] for _ in range(9)]
        wrong = torch.stack([target, *as_much]).view(10, m, s, 30)
        row = contrast(wrong)
        assert (row["p"], row["p_max"]) == (1, 1)


@pytest.mark.slow
def test_of_sparse_drops_few_targets_seem_to_cost_more_than_others():
    """Two thirds of all directions cost nothing, and the others an answer or two."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        counts = torch.poisson(torch.full((21,), 0.4), generator=generator).int().tolist()
        row = contrast(losing(counts, 60))
        found.append([row["p"], row["p_max"]])
    for p in torch.tensor(found, dtype=torch.float64).T:
        # At most 1 / 21, and with so many ties less.
        assert 0 < float((p <= 0.05).double().mean()) <= 0.045


def test_the_largest_drop_is_compared_with_ties():
    """A direction that costs as many answers of three sources each, in another order."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(8):
        target = torch.rand(93, generator=generator) < 0.2
        as_much = target[torch.randperm(93, generator=generator)]
        one, scorer = results(torch.stack([target, as_much, target & False]).view(3, 3, 1, 31))
        tables = effect_tables([one], find_edit("shift"), (1.0,), scorer)
        found.append(largest_drop_p(tables["effects"], tables["control_draws"]))
    assert found == [pytest.approx(2 / 3)] * 8


def test_results_are_averaged_together_as_each_by_itself(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    made = [results(torch.rand(4, 2, 3, 30, generator=generator) < share) for share in (0.1, 0.6)]
    few, _ = results(torch.rand(3, 2, 3, 30, generator=generator) < 0.5)  # other arms
    some, scorer = [made[0][0], few, made[1][0]], made[0][1]
    each = [found for one in some for found in outcomes_of([one], scorer)]

    def same(together):
        for found, alone in zip(together, each, strict=True):
            torch.testing.assert_close(found.against, alone.against, equal_nan=True)
            torch.testing.assert_close(found.by_arm, alone.by_arm, equal_nan=True)

    same(outcomes_of(some, scorer))
    monkeypatch.setattr("mech_arith.evidence.outcomes.ENTRIES", 1)
    same(outcomes_of(some, scorer))
