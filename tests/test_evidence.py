import math

import pandas as pd
import pytest

from mech_arith.evidence import evidence_table, headline

PLACE = {"layer": 1, "point": "resid_post", "position": "all"}


def correlation(value, component, r_fit, r, **where):
    return {**PLACE, "value": value, "component": component, "r_fit": r_fit, "r": r, **where}


TABLES = {
    "correlations": pd.DataFrame(
        [
            correlation("b", 0, 0.2, 0.9),
            correlation("b", 3, -0.7, -0.6),
            correlation("b-c", 0, 0.5, 0.4),
            correlation("b-c", 0, 0.8, 0.75, layer=2),
            correlation("b-c", 1, 0.99, 0.99, position="4"),
            correlation("c", 2, math.nan, math.nan),
        ]
    ),
    "contrasts": pd.DataFrame(
        [
            {
                **PLACE,
                "component": 3,
                "chosen_for": "a | b",
                "edit": "scale",
                "arm": arm,
                "n": 50,
                "target_drop": 0.4,
                "arm_drop": 0.1,
                "excess_drop": excess,
                "low": 0.2,
                "high": 0.4,
                "p": 0.001,
                "p_max": 0.004,
            }
            for arm, excess in (("span", 0.05), ("control", 0.3))
        ]
    ),
    "counterfactual": pd.DataFrame(
        [
            {
                **PLACE,
                "layer": 2,
                "component": 0,
                "value": "b-c",
                "arm": arm,
                "strength": strength,
                "agreement": agreement,
                "p": 0.01,
                "floor": 0.02,
                "ceiling": 0.97,
            }
            for arm, strength, agreement in (
                ("target", 1.0, 0.8),
                ("target", 0.5, 0.3),
                ("target", 2.0, 0.1),
                ("control", 1.0, 0.1),
            )
        ]
    ),
}


def test_each_value_is_read_in_the_component_that_is_best_on_the_fit_split():
    found = evidence_table(TABLES, [(1, "all"), (2, "all")]).set_index(["value", "layer"])
    assert set(found.index) == {("b", 1), ("b-c", 1), ("b-c", 2)}
    b = found.loc[("b", 1)]
    assert (b["component"], b["r"], b["r_fit"]) == (3, -0.6, -0.7)
    assert (b["excess_drop"], b["control_drop"], b["excess_p_max"]) == (0.3, 0.1, 0.004)
    assert math.isnan(b["agreement"])
    whole_way = found.loc[("b-c", 2)]
    assert (whole_way["agreement"], whole_way["floor"], whole_way["ceiling"]) == (0.8, 0.02, 0.97)
    assert whole_way["agreement_p"] == 0.01
    assert math.isnan(found.loc[("b-c", 1), "excess_drop"])


def test_the_headline_is_where_the_fit_split_says():
    best = headline(evidence_table(TABLES, [(1, "all"), (2, "all")]))
    assert {value: row["layer"] for value, row in best.items()} == {"b": 1, "b-c": 2}
    assert best["b"]["excess_drop"] == 0.3


def test_without_an_intervention_there_is_the_tracing_alone():
    found = evidence_table({"correlations": TABLES["correlations"]}, [(1, "all")])
    assert found["excess_drop"].isna().all()
    assert found["agreement"].isna().all()
    assert list(found["r"]) == pytest.approx([-0.6, 0.4])
