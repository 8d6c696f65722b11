"""What the page shows of a cell's evidence: how sure each number is, and what a direction carries.

As in `compact`, arrays are lists of lists, with None for a number that could not be had.
"""

from typing import Any

import numpy as np
import pandas as pd

from mech_arith.report.compact import Plain, numbers
from mech_arith.results import slopes_at_best

PLACE = ["layer", "position", "component"]

TEXTS = ("edit", "partial_r_undefined", "least_partial_given")
NUMBERS = (
    *("r_fit", "r", "r_low", "r_high", "p_holm", "partial_r", "least_partial_r", "shapley"),
    *("target_drop", "control_drop", "excess_drop", "excess_low", "excess_high", "excess_p_max"),
    *("agreement", "agreement_low", "agreement_high", "agreement_p_holm", "floor", "ceiling"),
    *("slope", "slope_low", "slope_high", "n"),
)
"""What the page needs of each row; absent in a run that was not asked for it."""


def evidence_rows(evidence: pd.DataFrame) -> list[Plain]:
    """A row per layer, position and value, without what no row has."""
    if evidence.empty:
        return []
    filled = set(evidence.dropna(axis="columns", how="all").columns)
    known = [name for name in NUMBERS if name in filled]
    columns: dict[str, list[Any]] = {
        "value": evidence["value"].tolist(),
        **{name: evidence[name].tolist() for name in PLACE},
        **{name: numbers(evidence[name].to_numpy(dtype=float)) for name in known},
    }
    for name in TEXTS:
        if name in evidence:
            known_texts = evidence[name].fillna("").tolist()
            columns[name] = [entry or None for entry in known_texts]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def specificity_maps(specificity: pd.DataFrame, evidence: pd.DataFrame) -> list[Plain]:
    """Per layer the slopes of each value's direction (rows) with each value's change (columns).

    Of several positions the one with the largest |R| of the value on the fit split.
    """
    if specificity.empty or evidence.empty:
        return []
    rows = slopes_at_best(specificity, evidence)
    return [
        _map(layer, rows.loc[rows["layer"] == layer].to_dict(orient="records"))
        for layer in sorted(set(rows["layer"].tolist()))
    ]


def _map(layer: int, rows: list[dict[Any, Any]]) -> Plain:
    directions, changed = (
        sorted(dict.fromkeys(row[name] for row in rows), key=lambda value: (len(value), value))
        for name in ("value", "changed")
    )
    places = [(directions.index(row["value"]), changed.index(row["changed"])) for row in rows]
    found: Plain = {"layer": layer, "directions": directions, "changed": changed, "n": rows[0]["n"]}
    for name in ("slope", "slope_low", "slope_high", "agreement"):
        array = np.full((len(directions), len(changed)), np.nan)
        for place, row in zip(places, rows, strict=True):
            array[place] = row[name]
        found[name] = numbers(array)
    components = {row["value"]: (row["component"], row["position"]) for row in rows}
    found["component"] = [components[value][0] for value in directions]
    found["position"] = [components[value][1] for value in directions]
    return found
