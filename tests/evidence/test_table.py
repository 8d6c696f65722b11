import math

import pandas as pd
import pytest

from mech_arith.engine.sites import Site
from mech_arith.evidence.table import evidence_table, headline, no_whole_way
from mech_arith.interventions.edits.base import find_edit

SITES = [Site(1, "resid_post", "all"), Site(2, "resid_post", "all")]
PLACE = SITES[0].columns()


def subspace(value, component, r_fit, r, *, rank=1, **where):
    ends = {"r_low": r - 0.05, "r_high": r + 0.05, "p_holm": 0.001, "least_partial_given": "a"}
    found = {"value": value, "component": component, "rank": rank, "r_fit": r_fit, "r": r}
    return {**PLACE, **ends, **found, "least_partial_r": r, **where}


ARMS = {"control": (0.3, 0.2, 0.004), "span": (0.05, -0.1, 0.3), "valueless": (0.2, 0.1, 0.05)}
"""Excess, low end and p of each."""


TABLES = {
    "subspaces": pd.DataFrame(
        [
            subspace("b", 3, -0.7, -0.6),
            subspace("b-c", 0, 0.5, 0.4),
            subspace("b-c", 0, 0.8, 0.75, layer=2),
            subspace("b-c", 1, 0.99, 0.99, position="4"),
        ]
    ),
    "contrasts": pd.DataFrame(
        [
            {
                **PLACE,
                "component": 3,
                "rank": 1,
                "chosen_for": ("a", "b"),
                "edit": "scale",
                "arm": arm,
                "n": 50,
                "target_drop": 0.4,
                "arm_drop": 0.1,
                "n_directions": 20,
                "n_draws": 20,
                "p_least": 1 / 21,
                "excess_drop": excess,
                "low": low,
                "high": 0.4,
                "p": 0.001,
                "p_max": p_max,
            }
            for arm, (excess, low, p_max) in [*ARMS.items(), ("other", (9.0, 9.0, math.nan))]
        ]
    ),
    "counterfactual": pd.DataFrame(
        [
            {
                **PLACE,
                "layer": 2,
                "component": 0,
                "rank": 1,
                "value": "b-c",
                "arm": arm,
                "strength": strength,
                "iia": iia,
                "iia_low": iia - 0.1,
                "p": 0.01,
                "p_holm": 0.02,
                "slope": iia,
                "slope_low": iia - 0.1,
                "ceiling_high": 1.0,
                "floor": 0.02,
                "ceiling": 0.97,
            }
            for arm, strength, iia in (
                ("target", 1.0, 0.8),
                ("target", 0.5, 0.3),
                ("target", 2.0, 0.1),
                ("control", 1.0, 0.1),
            )
        ]
    ),
}


def test_each_value_is_read_in_the_component_that_is_best_on_the_fit_split():
    found = evidence_table(TABLES, SITES).set_index(["value", "layer"])
    assert set(found.index) == {("b", 1), ("b-c", 1), ("b-c", 2)}
    b = found.loc[("b", 1)]
    assert (b["component"], b["r"], b["r_fit"]) == (3, -0.6, -0.7)
    # Of three kinds of directions that which the target exceeds with the least certainty.
    assert (b["excess_drop"], b["control_drop"], b["excess_p_max"]) == (0.05, 0.1, 0.3)
    assert b["excess_against"] == "span"
    assert [b[f"excess_{arm}_drop"] for arm in ("random", "span", "valueless")] == [0.3, 0.05, 0.2]
    assert b["excess_p_least"] == 1 / 21
    assert not b["excess_counts"]
    assert b["held"]
    assert not b["used"]
    assert math.isnan(b["iia"])
    whole_way = found.loc[("b-c", 2)]
    assert (whole_way["iia"], whole_way["floor"], whole_way["ceiling"]) == (0.8, 0.02, 0.97)
    assert whole_way["iia_p_holm"] == 0.02
    assert whole_way["slope_random"] == 0.1
    assert whole_way["used"]
    assert math.isnan(found.loc[("b-c", 1), "excess_drop"])


def test_the_headline_is_where_the_fit_split_says():
    best = headline(evidence_table(TABLES, SITES))
    assert {value: row["layer"] for value, row in best.items()} == {"b": 1, "b-c": 2}
    assert best["b"]["excess_drop"] == 0.05


def test_a_drop_beyond_every_kind_of_directions_counts():
    beyond = TABLES["contrasts"].assign(low=0.01, p_max=0.048)
    found = evidence_table({**TABLES, "contrasts": beyond}, SITES[:1]).set_index("value")
    assert found.loc["b", "excess_counts"]
    assert found.loc["b", "used"]


def test_the_untrained_twin_is_a_floor():
    found = evidence_table(TABLES, SITES[:1], untrained={(SITES[0], "b"): 0.58})
    row = found.set_index("value").loc["b"]
    assert row["untrained_abs_r"] == 0.58  # above the end .55 of the interval of |R|
    assert not row["held"]


def test_an_edit_that_never_arrives_is_said_to_leave_no_iia():
    (warning,) = no_whole_way(find_edit("interchange"), (-1.0, 0.5))
    assert "[-1.0, 0.5] of interchange do not hold 1, the whole way" in warning
    assert no_whole_way(find_edit("interchange"), (0.5, 1.0)) == []
    assert no_whole_way(find_edit("scale"), (0.5,)) == []


def test_without_an_intervention_there_is_the_tracing_alone():
    found = evidence_table({"subspaces": TABLES["subspaces"]}, SITES[:1])
    assert found["excess_drop"].isna().all()
    assert found["iia"].isna().all()
    assert list(found["r"]) == pytest.approx([-0.6, 0.4])
