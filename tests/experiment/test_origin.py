"""The questions of scripts/origin.py, on the paper's own figures and on pictures made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mech_arith.evidence.results import RunResult
from scripts.origin import MIDDLE, every_layer, interval, picture, table
from scripts.paper_figure import REFERENCE, VALUES


def correlations(shares: np.ndarray, position: str = "all") -> pd.DataFrame:
    """A table of |R| [values, layers, components], with R on the fit split a little larger."""
    rows = [
        {
            "value": VALUES[value],
            "layer": layer,
            "component": component,
            "rank": 1,
            "position": position,
            "r_fit": -share - 0.001,
            "abs_r": share,
            "r_low": -share - 0.02,
            "r_high": -share + 0.01,
            "explained_variance": 0.1,
        }
        for (value, layer, component), share in np.ndenumerate(shares)
    ]
    return pd.DataFrame(rows)


def run_of(found: pd.DataFrame) -> RunResult:
    training = {"pretrained": None, "shape": {"norm": "pre"}, "learning_rate": 3e-4}
    summary = {
        "provenance": {"training": training},
        "baseline_r2": 0.9999,
        "baseline_median_abs_error": 3.0,
    }
    return RunResult(Path("run"), {"correlations": found}, summary, "")


def test_the_papers_own_figures_say_yes_to_all_three() -> None:
    found = picture(correlations(REFERENCE), ("all",))
    assert found.answers() == {"order": True, "middle": True, "answer": True}
    (middle,) = found.peak(MIDDLE).to_dict(orient="records")
    assert (middle["layer"], middle["abs_r"]) == (2, 0.94)


@pytest.mark.parametrize("question", ["order", "middle", "answer"])
def test_each_question_can_be_answered_no_alone(question: str) -> None:
    shares = REFERENCE.copy()
    if question == "order":
        shares[4, 0, 2] = 1.0  # the answer is there in layer 0 already
        shares[4, 3:, 0] = 0.95
    elif question == "middle":
        shares[3] = np.minimum(shares[3], 0.85)
    else:
        shares[4, 3:] = shares[4, 3:, ::-1]  # the answer is the last of three components
    answers = picture(correlations(shares), ("all",)).answers()
    assert [name for name, yes in answers.items() if not yes] == [question]


def test_the_best_single_position_is_chosen_on_the_fit_split() -> None:
    low, high = 0.5 * REFERENCE, 0.7 * REFERENCE
    both = pd.concat([correlations(low, "0"), correlations(high, "3")], ignore_index=True)
    both.loc[both["position"] == "0", "r_fit"] = -0.99  # clearer there, but for the report split
    found = picture(both, None)
    assert set(found.best["position"]) == {"0"}
    assert found.best["abs_r"].max() == pytest.approx(0.5)


def test_the_interval_of_the_size_of_r() -> None:
    assert interval({"r_low": -0.9, "r_high": -0.8}) == (0.8, 0.9)
    assert interval({"r_low": 0.1, "r_high": 0.3}) == (0.1, 0.3)
    assert interval({"r_low": -0.1, "r_high": 0.3}) == (0.0, 0.3)


def test_tables() -> None:
    parts = [correlations(REFERENCE, position) for position in ("all", "0", "1")]
    run = run_of(pd.concat(parts, ignore_index=True))
    text = table([run])
    assert text.count("random, pre-LN, 0.0003") == 3  # a row per kind of position
    assert "layer 2: 0.940 [0.930, 0.960]" in text
    assert text.count("| 3 |") == 3
    whole = every_layer([run])
    assert len(whole) == 3 * 5 * 6
    assert (whole["low"] <= whole["abs_r"]).all()
    assert (whole["abs_r"] <= whole["high"]).all()
