"""All that is known of a value at a site, side by side: traced, edited, and asked for its value."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from mech_arith.controls import CONTROL, TARGET

TRACED = (
    "component",
    "r",
    "r_low",
    "r_high",
    "p_max",
    "p_holm",
    "p_bh",
    "partial_r",
    "partial_r_undefined",
    "least_partial_r",
    "least_partial_given",
    "shapley",
)
"""Of the correlations."""

CONTRAST = {
    "edit": "edit",
    "n": "n",
    "target_drop": "target_drop",
    "arm_drop": "control_drop",
    "excess_drop": "excess_drop",
    "low": "excess_low",
    "high": "excess_high",
    "p": "excess_p",
    "p_max": "excess_p_max",
}
"""Of the target against random directions -> the name here."""

ANSWERED = {
    "agreement": "agreement",
    "agreement_low": "agreement_low",
    "agreement_high": "agreement_high",
    "floor": "floor",
    "p": "agreement_p",
    "p_holm": "agreement_p_holm",
    "ceiling": "ceiling",
    "slope": "slope",
    "slope_low": "slope_low",
    "slope_high": "slope_high",
    "wrong_way": "wrong_way",
}
"""Of the whole way towards wanted values -> the name here."""

WHOLE_WAY = 1.0
"""The strength at which an edit arrives at the wanted value."""

Row = Mapping[str, Any]


def evidence_table(
    tables: Mapping[str, pd.DataFrame], places: Iterable[tuple[int, str]]
) -> pd.DataFrame:
    """A row per layer, position and value, in the component with the largest |R| on the fit split.

    Args:
        tables: a cell's, by name: `correlations`, and where something was edited `contrasts` and
            `counterfactual`. What there is no row of is missing.
        places: layers and positions that the cell asks for, without those of its map.
    """
    wanted = set(places)
    best: dict[tuple[Any, ...], Row] = {}
    for row in _records(tables["correlations"]):
        key = (row["layer"], row["position"], row["value"])
        if key[:2] in wanted and abs(row["r_fit"]) > abs(best.get(key, _NONE)["r_fit"]):
            best[key] = row
    contrasts = _by_place(
        (row, value)
        for row in _records(tables.get("contrasts"))
        if row["arm"] == CONTROL
        for value in row["chosen_for"].split(" | ")
    )
    answered = _by_place(
        (row, row["value"])
        for row in _records(tables.get("counterfactual"))
        if row["arm"] == TARGET and row["strength"] == WHOLE_WAY
    )
    rows = []
    for (layer, position, value), row in best.items():
        place = (layer, position, row["component"], value)
        contrast, answer = contrasts.get(place, {}), answered.get(place, {})
        rows.append(
            {
                "layer": layer,
                "point": row["point"],
                "position": position,
                "value": value,
                **{name: row.get(name) for name in ("r_fit", *TRACED)},
                **{ours: contrast.get(theirs) for theirs, ours in CONTRAST.items()},
                **{ours: answer.get(theirs) for theirs, ours in ANSWERED.items()},
            }
        )
    return pd.DataFrame(rows)


_NONE: Row = {"r_fit": 0.0}


def _records(table: pd.DataFrame | None) -> list[dict[Any, Any]]:
    return [] if table is None else table.to_dict(orient="records")


def _by_place(rows: Iterable[tuple[Row, str]]) -> dict[tuple[Any, ...], Row]:
    """The last row of each layer, position, component and value."""
    return {(row["layer"], row["position"], row["component"], value): row for row, value in rows}


def headline(evidence: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each value its row at the site with the largest |R| on the fit split.

    Nothing is chosen on the problems that are reported.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in _records(evidence):
        known = found.get(row["value"])
        if known is None or abs(row["r_fit"]) > abs(known["r_fit"]):
            found[row["value"]] = {str(name): entry for name, entry in row.items()}
    return found
