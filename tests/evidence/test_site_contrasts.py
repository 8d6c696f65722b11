"""The IIA of a head beside that of the layer's other heads, by hand."""

import numpy as np
import pytest
import torch

from mech_arith.engine.answers import Answers
from mech_arith.engine.sites import Site
from mech_arith.evidence.columns import conformed
from mech_arith.evidence.scorer import Scorer
from mech_arith.evidence.site_contrasts import site_contrast_table
from mech_arith.interventions.controls import Arm, Target
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.interventions.run import InterventionPlan, InterventionRun
from mech_arith.problems import ProblemSet
from mech_arith.problems.sources import draw_sources
from mech_arith.problems.templates import build_template
from mech_arith.statistics import Resampling

N = 40
DIFFERENCE = build_template("d", "a-b")
OPERANDS = {"a": np.arange(100, 100 + N), "b": np.arange(N)[::-1].copy() * 3}
PROBLEMS = ProblemSet.of(DIFFERENCE, OPERANDS)
RIGHT = torch.from_numpy(PROBLEMS.answers).double()
PLAN = InterventionPlan(find_edit("interchange"), (0.5, 1.0))
SOURCES = draw_sources(PROBLEMS, "b", m=1, n_shuffles=9, seed=0)


def answers(numbers):
    return Answers(numbers, numbers, numbers, None)


SCORER = Scorer(answers(RIGHT), RIGHT, 0.0, True, Resampling(n_permutations=999))


def head(number, share, *, layer=1, chosen_for=("b",), components=(0,)):
    """A head whose edit carries b to the answer in that share of the problems, and a control."""
    follows = torch.arange(N) < share * N
    there = torch.where(follows, SOURCES.expected[0], RIGHT)
    half = RIGHT  # half the way no answer follows
    numbers = torch.stack([half, there])[None, None]
    arms = (
        Arm("target", torch.ones(1, 1, 4), ("component",)),
        Arm("control", torch.ones(1, 1, 4), ("random 0",)),
    )
    wanted = SOURCES.expected[0].expand(1, 1, 2, N)  # a control that follows is no target
    return InterventionResult(
        Site(layer, "z", "last", number),
        Target(components, chosen_for, "b"),
        arms,
        torch.ones(1, 2, N, 1, dtype=torch.float64),
        torch.zeros(N, 1, dtype=torch.float64),
        SOURCES.rows,
        answers(torch.cat([numbers, wanted])),
    )


def table_of(*results):
    table = site_contrast_table(InterventionRun(list(results), {"b": SOURCES}, {}), PLAN, SCORER)
    if len(table):
        conformed("site_contrasts", table)
    return table


def test_each_head_is_compared_with_the_mean_of_the_others():
    table = table_of(head(0, 0.75), head(1, 0.25), head(2, 0.0)).set_index("head")
    assert table["iia"].tolist() == [0.75, 0.25, 0.0]
    assert table["others_iia"].tolist() == pytest.approx([0.125, 0.375, 0.5])
    assert table["difference"].tolist() == pytest.approx([0.625, -0.125, -0.5])
    assert (table["n_others"] == 2).all()
    assert (table["n"] == N).all()
    assert ((table["low"] < table["difference"]) & (table["difference"] < table["high"])).all()
    assert table.loc["0", "p_max"] < 0.01
    assert table.loc["0", "low"] > 0 > table.loc["2", "high"]


def test_heads_that_do_the_same_do_not_differ():
    table = table_of(head(0, 0.5), head(1, 0.5))
    assert (table["difference"] == 0).all()
    assert (table["p_max"] == 1).all()
    assert ((table["low"] < 0) & (table["high"] > 0)).all()


def test_layers_are_not_mixed_and_a_single_site_has_no_contrast():
    table = table_of(head(0, 1.0, layer=1), head(1, 0.0, layer=1), head(0, 0.5, layer=2))
    assert set(table["layer"]) == {1}
    assert table_of(head(0, 1.0), head(0, 0.5, layer=2)).empty


def test_ranks_and_components_of_no_value_are_kept_apart():
    table = table_of(
        head(0, 1.0),
        head(1, 0.0),
        head(0, 1.0, components=(0, 1)),
        head(1, 1.0, components=(0, 1)),
        head(1, 1.0, chosen_for=("a",)),
    )
    assert table.loc[table["rank"] == 1, "difference"].tolist() == [1.0, -1.0]
    assert table.loc[table["rank"] == 2, "difference"].tolist() == [0.0, 0.0]


def test_without_the_whole_way_there_is_nothing_to_compare():
    done = InterventionRun([head(0, 1.0), head(1, 0.0)], {"b": SOURCES}, {})
    half = InterventionPlan(find_edit("interchange"), (0.5,))
    assert site_contrast_table(done, half, SCORER).empty
