"""How large a subspace has to be for the answer to follow a value: IIA against rank."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.engine.sites import SITE_COLUMNS, site_of
from mech_arith.evidence.best import best_places, best_rows, of_least_rank
from mech_arith.evidence.verdicts import known

ENOUGH = 0.9
"""Share of the ceiling from which a subspace does what the whole activation does."""

Row = Mapping[Any, Any]


def of_ranks(evidence: pd.DataFrame) -> pd.DataFrame:
    """Per value and layer a row for every rank at which answers were asked, at the layer's best
    site of the fit split, which the least rank chooses.
    """
    if evidence.empty or "iia" not in evidence:
        return evidence.iloc[:0]
    place = ["value", *SITE_COLUMNS]
    rows = evidence.dropna(subset=["iia"]).merge(best_places(evidence)[place], on=place)
    return rows.sort_values(["value", "layer", "rank"], kind="stable", ignore_index=True)


def by_rank(evidence: pd.DataFrame) -> pd.DataFrame:
    """The same where answers were asked at several ranks; else empty."""
    rows = of_ranks(evidence)
    return rows if len(rows) and len(set(rows["rank"])) > 1 else rows.iloc[:0]


def at_headline(evidence: pd.DataFrame) -> dict[str, list[dict[Any, Any]]]:
    """Of `of_ranks` for each value the rows of its headline's site, ascending in rank."""
    rows = of_ranks(evidence).to_dict(orient="records")
    best = best_rows(of_least_rank(evidence).to_dict(orient="records")) if rows else {}
    found = {
        value: [row for row in rows if row["value"] == value and site_of(row) == site_of(at)]
        for value, at in best.items()
    }
    return {value: here for value, here in found.items() if here}


def rank_summary(evidence: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Per value the least rank whose IIA reaches `ENOUGH` of the ceiling, or why none does.

    At the site with the largest |R| on the fit split. Empty where answers were not asked at several
    ranks.
    """
    if by_rank(evidence).empty:
        return {}
    return {
        value: {**site_of(rows[0]).columns(), **_least_rank(rows)}
        for value, rows in at_headline(evidence).items()
    }


def _least_rank(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one value at one site, ascending in rank."""
    ceiling, floor = known(rows[0], "ceiling"), max(known(row, "floor") or 0.0 for row in rows)
    low = known(rows[0], "ceiling_low")
    answered = {row["rank"]: row["iia"] for row in rows}
    enough = [rank for rank, iia in answered.items() if iia >= ENOUGH * (ceiling or 0.0)]
    reason = ""
    if ceiling is None:
        reason = rows[0].get("ceiling_reason") or "the ceiling is not known"
    elif ceiling <= floor:
        reason = f"the ceiling {ceiling:.2f} is not above the floor {floor:.2f}"
    elif low is not None and low <= floor:
        reason = (
            f"the ceiling {ceiling:.2f} is not clearly above the floor {floor:.2f}: its interval "
            f"begins at {low:.2f}"
        )
    elif not enough:
        reason = f"IIA is {max(answered.values()):.2f} at most, and the ceiling {ceiling:.2f}"
    return {
        "rank_90": None if reason else enough[0],
        "reason": reason,
        "ceiling": ceiling,
        "floor": floor,
        "iia": {str(rank): iia for rank, iia in answered.items()},
    }


def rank_sentence(found: Mapping[str, Any]) -> str:
    """What `rank_summary` says of one value, in words."""
    asked = ", ".join(sorted(found["iia"], key=int))
    if found["rank_90"] is None:
        return f"no rank of {asked} reaches {ENOUGH:.0%} of the ceiling: {found['reason']}"
    return f"rank {found['rank_90']} of {asked} reaches {ENOUGH:.0%} of the ceiling"
