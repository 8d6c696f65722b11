"""The one rule that says what counts."""

import math
from typing import Any

import pytest

from mech_arith.evidence.verdicts import (
    contrast_counts,
    excess_counts,
    iia_counts,
    judged,
    layers_text,
    r_counts,
    slope_counts,
    strictest,
    unable,
    verdicts,
)

HELD = {"r_low": -0.9, "r_high": -0.8, "p_holm": 0.001, "least_partial_r": 0.7}
FOLLOWED = {"iia": 0.1, "iia_low": 0.05, "iia_p_holm": 0.04, "floor": 0.02}
COSTS = {"edit": "scale", "excess_drop": 0.2, "excess_low": 0.1, "excess_p_max": 0.048}
SLOPE = {"slope": 0.5, "slope_low": 0.4, "slope_random": 0.01, "slope_valueless": 0.2}


def row(**changes: Any) -> dict[str, Any]:
    place = {"layer": 0, "position": "all", "value": "b", "r_fit": 0.8, "least_partial_given": "a"}
    found = place | HELD | {"excess_reason": "nothing was edited"} | changes
    return found | judged(found)


@pytest.mark.parametrize(
    ("rule", "counts", "breaking"),
    [
        (r_counts, HELD, [{"p_holm": 0.06}, {"r_high": 0.1}, {"p_holm": math.nan}]),
        (iia_counts, FOLLOWED, [{"iia_p_holm": 0.06}, {"iia_low": 0.02}]),
        (
            excess_counts,
            COSTS,
            [{"excess_p_max": 0.06}, {"excess_low": -0.01}, {"excess_span_low": 0.0}],
        ),
        (slope_counts, SLOPE, [{"slope_low": 0.1}, {"slope_valueless": 0.45}]),
        (
            unable,
            {"ceiling_high": 0.1, "floor": 0.0},
            [{"ceiling_high": 0.3}, {"ceiling_high": None}],
        ),
    ],
)
def test_p_and_interval_must_agree(rule, counts, breaking):
    assert rule(counts)
    for change in breaking:
        assert not rule(counts | change), change


def test_a_value_is_held_by_the_whole_interval_and_above_the_untrained_twin():
    assert row()["held"]
    assert not row(r_low=-0.6, r_high=-0.4)["held"]
    assert not row(untrained_abs_r=0.85)["held"]
    assert row(untrained_abs_r=math.nan)["held"]


def test_a_value_that_another_one_explains_is_shared():
    assert row(least_partial_r=-0.4)["shared_with"] == "a"
    assert row(least_partial_r=-0.6)["shared_with"] == ""
    assert row(least_partial_r=math.nan)["shared_with"] == ""
    assert row(p_holm=1.0, least_partial_r=0.1)["shared_with"] == ""


def test_use_is_told_by_answers_where_these_go_towards_values_and_else_by_their_price():
    assert row(**COSTS)["used"]
    assert row(**COSTS | {"excess_p_max": 0.2})["used"] is False
    assert row(**COSTS | FOLLOWED | {"excess_p_max": 0.9})["used"]
    assert row(**COSTS | FOLLOWED | {"iia_p_holm": 1.0})["used"] is False
    assert row(**FOLLOWED | {"iia_p_holm": 1.0} | SLOPE)["used"]
    assert row(**COSTS | HELD | {"p_holm": 1.0})["used"] is False  # nothing is held there


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({}, "nothing was edited"),
        ({"excess_reason": "no strength moves it"}, "no strength moves it"),
        (
            COSTS | {"excess_p_max": 1 / 6, "excess_p_least": 1 / 6},
            "so few control directions give no p below 0.17",
        ),
        (
            FOLLOWED | {"iia_p_holm": 1.0, "ceiling": 0.01, "ceiling_high": 0.05},
            "even the whole activation does not carry it to the answer (ceiling 0.01)",
        ),
    ],
)
def test_what_cannot_be_told_says_why(found, why):
    said = row(**found)
    assert said["used"] is None
    assert said["untold"] == why


def test_a_verdict_names_the_layers_of_everything():
    rows = [
        row(layer=layer, r_fit=0.5 + layer / 10, **FOLLOWED, **HELD | {"least_partial_r": least})
        for layer, least in enumerate((0.1, 0.7, 0.7, 0.7))
    ]
    rows[3] |= judged(rows[3] | {"iia_p_holm": 1.0})
    (found,) = verdicts(rows)
    assert found.text == "b: held in layers 1-3; shared with a in layer 0; used in layers 0-2"
    assert found.best["layer"] == 2  # of those in which it is used the clearest on the fit split


def test_a_verdict_says_where_nothing_is_held_and_where_nothing_can_be_told():
    nowhere, untold = row(value="a", p_holm=1.0), row(value="b", layer=4, position="last")
    texts = [found.text for found in verdicts([nowhere, untold])]
    assert texts == [
        "a: held nowhere",
        "b: held in layer 4 at last; it cannot be told whether it is used in layer 4 at last: "
        "nothing was edited",
    ]


def test_layers_read_as_a_person_would_write_them():
    assert layers_text([3]) == "layer 3"
    assert layers_text([5, 0, 1, 2, 2]) == "layers 0-2, 5"


def test_of_all_kinds_of_drawn_directions_the_strictest_is_read():
    kinds = [
        {"arm": "control", "p_max": 0.01, "low": 0.2, "excess_drop": 0.1},
        {"arm": "span", "p_max": 0.04, "low": -0.1, "excess_drop": 0.3},
        {"arm": "valueless", "p_max": 0.04, "low": 0.1, "excess_drop": 0.2},
    ]
    assert strictest(kinds)["arm"] == "valueless"  # of equal p the smaller excess
    assert strictest([*kinds, {"arm": "?", "p_max": math.nan, "excess_drop": 9.0}])["arm"] == "?"
    assert strictest([]) == {}
    assert [contrast_counts(kind) for kind in kinds] == [True, False, True]


def test_an_edit_towards_values_is_never_judged_by_its_price():
    said = row(**COSTS | {"edit": "interchange"}, iia_reason="no strength goes all the way")
    assert said["used"] is None
    assert said["untold"] == "no strength goes all the way"
