"""The number that a search is given, on evidence made by hand."""

import pandas as pd
import pytest

from mech_arith.common.errors import UserError
from mech_arith.evidence.columns import Column, register_column
from mech_arith.evidence.columns.base import NUMBER
from mech_arith.evidence.objective import (
    find_objective,
    objective_metrics,
    objective_names,
    read_objective,
)

VALUES = ("b", "b-c")


def evidence() -> pd.DataFrame:
    """Of b-c layer 1 is the best on the fit split, and layer 0 the better one on the report split;
    of b nothing was edited.
    """
    rows = [
        ("b-c", 0, 1, 0.5, 0.99, 0.7, ""),
        ("b-c", 1, 1, -0.9, -0.8, 0.25, ""),
        ("b-c", 1, 4, 0.95, 0.9, 0.6, ""),
        ("b", 0, 1, 0.4, 0.3, None, "nothing was edited"),
    ]
    columns = ["value", "layer", "rank", "r_fit", "r", "excess_drop", "excess_reason"]
    return pd.DataFrame(rows, columns=columns)


def test_it_is_read_where_the_fit_split_is_best_and_of_the_least_rank():
    assert read_objective(evidence(), "excess_drop/b-c") == 0.25
    assert read_objective(evidence(), "abs_r/b-c") == 0.8
    assert read_objective(evidence(), "abs_r/b") == 0.3


def test_a_number_that_is_not_known_is_none_and_says_why():
    assert read_objective(evidence(), "excess_drop/b") is None
    assert find_objective("excess_drop/b", VALUES).read(evidence()) == (None, "nothing was edited")
    assert find_objective("iia/b", VALUES).read(evidence())[0] is None
    nothing = find_objective("abs_r/b", VALUES).read(evidence().iloc[:0])
    assert nothing == (None, "the evidence has no row of b")


def test_the_metrics_are_the_headlines_and_those_of_plugins():
    assert [*objective_metrics()] == ["abs_r", "class_accuracy", "iia", "slope", "excess_drop"]
    own = Column("own", NUMBER, "Mine.", label="own", is_headline=True, of=lambda row: 1.0)
    register_column("evidence", own)
    assert "own" in objective_metrics()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "b-c",
            "expected objective=METRIC/VALUE, got 'b-c'; write for example objective=abs_r/b-c",
        ),
        ("excess/b-c", "unknown metric 'excess' in objective; expected one of: abs_r, class_accu"),
        ("abs_r/c-b", "unknown value 'c-b' in objective; expected one of: b, b-c"),
    ],
)
def test_what_is_no_objective_is_refused(asked, said):
    with pytest.raises(UserError) as error:
        find_objective(asked, VALUES)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("asked", [3, [], ["abs_r/b", 3], True])
def test_what_is_no_text_is_refused(asked):
    with pytest.raises(UserError, match="a list of such or null, got"):
        objective_names(asked)


def test_the_same_number_twice_is_refused():
    with pytest.raises(UserError, match="expected distinct objectives"):
        objective_names(["abs_r/b", "abs_r/b"])
    assert objective_names(None) == []
    assert objective_names("abs_r/b") == objective_names(["abs_r/b"]) == ["abs_r/b"]
