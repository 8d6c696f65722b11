"""How large a subspace has to be for the answer to follow a value: IIA against rank."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.engine.sites import SITE_COLUMNS, site_of
from mech_arith.evidence.best import best_rows, of_least_rank
from mech_arith.evidence.results import best_places
from mech_arith.evidence.verdicts import known

ENOUGH = 0.9
"""Share of the ceiling from which a subspace does what the whole activation does."""

Row = Mapping[Any, Any]


def by_rank(evidence: pd.DataFrame) -> pd.DataFrame:
    """Per value and layer a row for every rank, at the layer's best site of the fit split.

    The least rank chooses the site. Empty where answers were not asked at several ranks.
    """
    if evidence.empty or "iia" not in evidence:
        return evidence.iloc[:0]
    asked = evidence.dropna(subset=["iia"])
    if asked["rank"].nunique() < 2:
        return asked.iloc[:0]
    place = ["value", *SITE_COLUMNS]
    rows = asked.merge(best_places(evidence)[place], on=place)
    return rows.sort_values(["value", "layer", "rank"], kind="stable", ignore_index=True)


def rank_summary(evidence: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Per value the least rank whose IIA reaches `ENOUGH` of the ceiling, or why none does.

    At the site with the largest |R| on the fit split. Empty where answers were not asked at several
    ranks.
    """
    rows = by_rank(evidence).to_dict(orient="records")
    if not rows:
        return {}
    best = best_rows(of_least_rank(evidence).to_dict(orient="records"))
    found = {}
    for value, at in best.items():
        here = [row for row in rows if row["value"] == value and site_of(row) == site_of(at)]
        if here:
            found[value] = {**site_of(at).columns(), **_least_rank(here)}
    return found


def _least_rank(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one value at one site, ascending in rank."""
    ceiling, floor = known(rows[0], "ceiling"), max(known(row, "floor") or 0.0 for row in rows)
    answered = {row["rank"]: row["iia"] for row in rows}
    enough = [rank for rank, iia in answered.items() if iia >= ENOUGH * (ceiling or 0.0)]
    reason = ""
    if ceiling is None:
        reason = rows[0].get("ceiling_reason") or "the ceiling is not known"
    elif ceiling <= floor:
        reason = f"the ceiling {ceiling:.2f} is not above the floor {floor:.2f}"
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
    asked = ", ".join(found["iia"])
    if found["rank_90"] is None:
        return f"no rank of {asked} reaches {ENOUGH:.0%} of the ceiling: {found['reason']}"
    return f"rank {found['rank_90']} of {asked} reaches {ENOUGH:.0%} of the ceiling"
