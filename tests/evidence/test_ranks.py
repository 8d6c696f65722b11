"""Numbers and words of several ranks: what each is of, and how many directions it takes."""

import math

import pandas as pd
import pytest

from mech_arith.engine.sites import Site
from mech_arith.evidence.best import best_places, of_least_rank
from mech_arith.evidence.columns import TABLES
from mech_arith.evidence.columns.disk import in_memory
from mech_arith.evidence.ranks import by_rank, of_ranks, rank_sentence, rank_summary
from mech_arith.evidence.summary import verdict_summary
from mech_arith.evidence.table import headline


def row(layer, rank, iia, *, ceiling=0.9, floor=0.02, r_fit=0.5, **more):
    """One of the evidence, of a value that is held."""
    told = {"value": "b", "component": 0, "r": 0.6, "r_fit": r_fit, "least_partial_given": ""}
    asked = {"iia": iia, "ceiling": ceiling, "floor": floor}
    judged = {"held": True, "used": False, "untold": "", "shared_with": ""}
    site = Site(layer, "resid_post", "last").columns()
    return {**site, "rank": rank, **told, **asked, **judged, **more}


def table(*rows):
    return pd.DataFrame(rows)


TWO_LAYERS = table(
    row(1, 1, 0.3, r_fit=0.6),
    row(1, 2, 0.81, r_fit=0.7),
    row(1, 4, 0.88, r_fit=0.8),
    row(2, 1, 0.1, r_fit=0.5),
    row(2, 2, 0.2, r_fit=0.95),
    row(2, 4, 0.3, r_fit=0.99),
)


def test_the_least_rank_that_reaches_nine_tenths_of_the_ceiling():
    found = rank_summary(TWO_LAYERS)["b"]
    assert (found["layer"], found["rank_90"], found["reason"]) == (1, 2, "")  # .81 = .9 * .9
    assert found["iia"] == {"1": 0.3, "2": 0.81, "4": 0.88}
    assert rank_sentence(found) == "rank 2 of 1, 2, 4 reaches 90% of the ceiling"
    clear = rank_summary(TWO_LAYERS.assign(ceiling_low=0.6))["b"]
    assert (clear["rank_90"], clear["reason"]) == (2, "")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((row(1, 1, 0.1), row(1, 2, 0.8)), "IIA is 0.80 at most, and the ceiling 0.90"),
        (
            (row(1, 1, 0.0, ceiling=0.0, floor=0.0), row(1, 2, 0.0, ceiling=0.0, floor=0.0)),
            "the ceiling 0.00 is not above the floor 0.00",
        ),
        (
            (row(1, 1, 0.1, ceiling=0.02), row(1, 2, 0.8, ceiling=0.02)),
            "the ceiling 0.02 is not above the floor 0.02",
        ),
        (
            (row(1, 1, 0.06, ceiling=0.03, ceiling_low=0.0), row(1, 2, 0.03, ceiling=0.03)),
            "the ceiling 0.03 is not clearly above the floor 0.02: its interval begins at 0.00",
        ),
        ((row(1, 1, 0.1, ceiling=math.nan), row(1, 2, 0.8, ceiling=math.nan)), "not known"),
    ],
)
def test_why_no_rank_reaches_it(rows, reason):
    found = rank_summary(table(*rows))["b"]
    assert found["rank_90"] is None
    assert reason in found["reason"]
    assert rank_sentence(found).startswith("no rank of 1, 2 reaches 90% of the ceiling: ")


def test_of_one_rank_there_is_nothing_to_compare():
    one = of_least_rank(TWO_LAYERS)
    assert rank_summary(one) == {}
    assert by_rank(one).empty
    assert len(of_ranks(one)) == 2
    assert rank_summary(TWO_LAYERS.drop(columns="iia")) == {}
    assert rank_summary(pd.DataFrame()) == {}


def test_ranks_are_of_the_site_that_the_least_of_them_chooses():
    elsewhere = TWO_LAYERS.assign(position="3", r_fit=TWO_LAYERS["r_fit"] + 0.01 * (-1) ** 3)
    found = by_rank(pd.concat([elsewhere, TWO_LAYERS], ignore_index=True))
    assert set(found["position"]) == {"last"}
    assert found["rank"].tolist() == [1, 2, 4] * 2


def test_what_is_said_in_one_number_or_word_is_of_the_least_rank():
    assert headline(TWO_LAYERS)["b"]["rank"] == 1
    assert headline(TWO_LAYERS)["b"]["layer"] == 1  # rank 4 reads it best in layer 2
    assert set(best_places(TWO_LAYERS)["rank"]) == {1}
    used = TWO_LAYERS.assign(used=TWO_LAYERS["rank"] > 1)
    said = verdict_summary(used)["b"]
    assert said["used"] == []
    assert said["best"]["rank"] == 1
    assert said["text"].endswith("used nowhere; rank 2 of 1, 2, 4 reaches 90% of the ceiling")


@pytest.mark.parametrize("name", ["effects", "correlations", "evidence", "contrasts", "locality"])
def test_tables_of_earlier_versions_are_of_rank_1(name):
    old = pd.DataFrame({"layer": [0, 1], "component": [3, 4]})
    assert in_memory(old, TABLES[name])["rank"].tolist() == [1, 1]
