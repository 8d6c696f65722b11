"""The names and numbers that a W&B run holds."""

import pandas as pd
import pytest

from mech_arith.reports.wandb.metrics import by_layer, by_strength, headline, x_axes
from tests.wandb_runs import HEADLINE, SUMMARY, correlations, effects, evidence


def test_the_headline_is_flat() -> None:
    assert headline(SUMMARY) == HEADLINE
    assert headline(HEADLINE) == HEADLINE


def test_the_headline_of_a_cell_without_edits_has_no_drop() -> None:
    assert headline({"largest_drop": {}, "baseline_accuracy": 0.5}) == {"baseline_accuracy": 0.5}


def test_a_row_per_strength() -> None:
    rows = by_strength(effects())
    assert [row["strength"] for row in rows] == [-1.0, 0.0, 2.0]
    # At layer l the target's drop is |strength| (l + 1) / 10, the control's a tenth of it.
    expected = {
        "accuracy_drop/{}/layer_0": 0.1,
        "control_accuracy_drop/{}/layer_0": 0.01,
        "accuracy_drop/{}/layer_1": 0.2,
        "control_accuracy_drop/{}/layer_1": 0.02,
        "drop_by_strength/{}": 0.2,
        "control_drop_by_strength/{}": 0.02,
    }
    of_values = {
        name.format(value): drop for name, drop in expected.items() for value in ("b", "a_div_b")
    }
    assert rows[0] == pytest.approx({"strength": -1.0} | of_values)


def test_a_row_per_layer() -> None:
    rows = by_layer(correlations(), effects(), evidence(), positions="all")
    assert rows[1] == pytest.approx(
        {
            "layer": 1.0,
            # Component 1 is best on the fit split, and so it is although 0 has the larger |R|.
            "best_abs_r/b": 0.21,
            "best_abs_r/a_div_b": 0.21,
            "drop_by_layer/b": 0.4,
            "control_drop_by_layer/b": 0.04,
            "drop_by_layer/a_div_b": 0.4,
            "control_drop_by_layer/a_div_b": 0.04,
            # At the position that is best on the fit split, although the other has more.
            **{f"excess_drop/{value}": 0.6 for value in ("b", "a_div_b")},
            **{f"iia/{value}": 0.8 for value in ("b", "a_div_b")},
            **{f"floor/{value}": 0.1 for value in ("b", "a_div_b")},
            **{f"ceiling/{value}": 1.0 for value in ("b", "a_div_b")},
        }
    )
    assert [row["layer"] for row in rows] == [0.0, 1.0]


def test_what_was_not_asked_has_no_curve() -> None:
    table = evidence().drop(columns="iia").assign(floor=None, ceiling=float("nan"))
    (row, _) = by_layer(correlations(), pd.DataFrame(), table, positions="all")
    assert set(row) == {
        "layer",
        *(f"{curve}/{v}" for curve in ("best_abs_r", "excess_drop") for v in ("b", "a_div_b")),
    }


def test_single_positions_count_where_they_are_what_is_traced() -> None:
    (first, _) = by_layer(correlations(), pd.DataFrame(), pd.DataFrame(), positions="each")
    assert first == pytest.approx({"layer": 0.0, "best_abs_r/b": 0.9, "best_abs_r/a_div_b": 0.9})


def test_single_positions_of_the_answer_count_where_they_are_what_is_traced() -> None:
    # Beside them 'all' stays, and is no position that was asked for.
    table = correlations().replace({"position": {"3": "answer.1"}})
    (first, _) = by_layer(table, pd.DataFrame(), pd.DataFrame(), positions="answer.each")
    assert first == pytest.approx({"layer": 0.0, "best_abs_r/b": 0.9, "best_abs_r/a_div_b": 0.9})


def test_how_all_steps_do_together_is_a_headline() -> None:
    together = {"telling": 0.9, "floor": 0.1, "supported": True, "places": "ones: layer 1"}
    assert headline({"alignments": {"digits": together}}) == {
        "alignment/digits/telling": 0.9,
        "alignment/digits/floor": 0.1,
        "alignment/digits/supported": True,
    }


def test_values_without_a_correlation_have_no_point() -> None:
    table = correlations()
    table.loc[table["value"] == "b", ["r_fit", "abs_r"]] = float("nan")
    rows = by_layer(table, pd.DataFrame(), pd.DataFrame(), positions="all")
    assert all(set(row) == {"layer", "best_abs_r/a_div_b"} for row in rows)


def test_positions_are_named_where_there_are_several() -> None:
    table = pd.concat([effects(chosen_for=()), effects(chosen_for=(), position="last")])
    (row, *_) = by_strength(table)
    assert "control_accuracy_drop/component_2/layer_1_last" in row
    assert len(row) == 1 + 2 * 4 + 2 * 2


def test_nothing_edited_is_no_error() -> None:
    assert by_strength(pd.DataFrame()) == []


def test_failed_rows_are_left_out() -> None:
    table = effects()
    table.loc[table["strength"] == 2, "status"] = "failed"
    assert [row["strength"] for row in by_strength(table)] == [-1.0, 0.0]
    (row, _) = by_layer(correlations(), table, pd.DataFrame(), positions="all")
    assert row["drop_by_layer/b"] == pytest.approx(0.1)


def test_shares_of_rival_hypotheses_are_curves_over_layers() -> None:
    best = evidence().assign(point="resid_post")
    place = best.loc[(best["value"] == "a//b") & (best["position"] == "last")].iloc[[0]]
    rows = place.assign(
        strength=1.0,
        rank=1,
        hypothesis="tree",
        rival="left_to_right",
        rival_value="a-b",
        distinguishing=0.25,
        distinguishing_rival=0.125,
    )
    found = by_layer(correlations(), pd.DataFrame(), best, positions="all", hypotheses=rows)
    points = {name: row[name] for row in found for name in row if name.startswith("as_expected")}
    pair = "as_expected/a_div_b_or_a_minus_b"
    assert points == {f"{pair}/tree": 0.25, f"{pair}/left_to_right": 0.125}
    assert x_axes()["as_expected"] == "layer"
