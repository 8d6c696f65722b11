import pandas as pd

from mech_arith.evidence.summary import largest_drops


def test_largest_drops_by_hand():
    head = {
        "point": "resid_post",
        "position": "all",
        "head": "",
        "component": 1,
        "rank": 1,
        "chosen_for": ("a", "b"),
        "target_value": "",
        "baseline_accuracy": 0.9,
        "accuracy_drop_passed": 0.5,
        "n": 50,
    }
    effects = pd.DataFrame(
        [
            {**head, "layer": 0, "arm": "target", "strength": 0.0, "accuracy_drop": 0.3},
            {**head, "layer": 0, "arm": "control", "strength": 0.0, "accuracy_drop": 0.1},
            {**head, "layer": 1, "arm": "target", "strength": 2.0, "accuracy_drop": 0.6},
            {**head, "layer": 1, "arm": "control", "strength": 2.0, "accuracy_drop": 0.2},
            {**head, "layer": 1, "arm": "control", "strength": 0.0, "accuracy_drop": 0.9},
        ]
    )
    drops = largest_drops(effects, ["a", "c"])
    assert set(drops) == {"a"}
    assert drops["a"]["layer"] == 1
    assert drops["a"]["accuracy_drop"] == 0.6
    assert drops["a"]["control_drop"] == 0.2
    assert drops["a"]["baseline_accuracy"] == 0.9
