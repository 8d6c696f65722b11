"""What the page shows of a cell's evidence: how sure each number is, and what a direction carries.

As in `compact`, arrays are lists of lists, with None for a number that could not be had.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.report.columns import EVIDENCE, judged, known, verdict
from mech_arith.report.compact import Plain, numbers
from mech_arith.results import slopes_at_best
from mech_arith.sites import COMPONENT_COLUMNS

NUMBERS = list(dict.fromkeys(name for column in EVIDENCE for name in column.needed))
TEXTS = list(dict.fromkeys(name for column in EVIDENCE for name in column.texts))
SHOWN_FIRST = [name for c in EVIDENCE if c.is_headline for name in (*c.needed, *c.texts)]
HEADLINE = ["value", *COMPONENT_COLUMNS, "judged", *SHOWN_FIRST]
"""What the table of all cells needs of a row."""


def evidence_rows(evidence: pd.DataFrame) -> list[Plain]:
    """A row per layer, position and value, without what no row has.

    `judged` says of columns whether their number is a finding or may be chance.
    """
    if evidence.empty:
        return []
    raw = evidence.to_dict(orient="records")
    evidence = evidence.assign(verdict=[verdict(row) or None for row in raw])
    filled = set(evidence.dropna(axis="columns", how="all").columns)
    columns: dict[str, list[Any]] = {
        "value": evidence["value"].tolist(),
        **{name: evidence[name].tolist() for name in COMPONENT_COLUMNS},
        **{
            name: numbers(evidence[name].to_numpy(dtype=float))
            for name in ["r_fit", *NUMBERS]
            if name in filled
        },
    }
    for name in TEXTS:
        texts = evidence[name].fillna("").astype(str).tolist() if name in evidence else []
        if any(texts):
            columns[name] = [text or None for text in texts]
    columns["judged"] = [judged(row) for row in raw]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def headline_rows(rows: Sequence[Plain], summary: Mapping[str, Any]) -> list[Plain]:
    """Per value one row, the largest |R| first: the one from which its verdict is read.

    A run of an earlier version has no verdicts: there it is the row with the largest |R| on the fit
    split, and without a table of evidence what the summary says.
    """
    verdicts = summary.get("verdicts") or {}
    if verdicts:
        found = [{"value": value, **_shown(said["best"])} for value, said in verdicts.items()]
    elif rows:
        found = _best_on_fit(rows)
    else:
        found = _summarised(summary)
    ordered = sorted(found, key=lambda row: -abs(known(row, "r") or 0))
    return [
        {name: row[name] for name in HEADLINE if name in row}
        | {"sentence": verdicts.get(row["value"], {}).get("text")}
        for row in ordered
    ]


def _best_on_fit(rows: Sequence[Plain]) -> list[Plain]:
    best: dict[str, Plain] = {}
    for row in rows:
        kept = best.setdefault(row["value"], row)
        if abs(known(row, "r_fit") or 0) > abs(known(kept, "r_fit") or 0):
            best[row["value"]] = row
    return [*best.values()]


def _summarised(summary: Mapping[str, Any]) -> list[Plain]:
    """What a summary says of the headline of each value, in the evidence's names."""
    parts = [summary.get(name) or {} for name in ("best", "excess_drop", "counterfactual")]
    return [
        {
            "value": value,
            **_shown(
                {name: entry for part in parts for name, entry in part.get(value, {}).items()}
            ),
            **{name: best.get(name) for name in COMPONENT_COLUMNS},
        }
        for value, best in parts[0].items()
    ]


def _shown(row: Mapping[str, Any]) -> Plain:
    """What the page shows of a row out of a summary."""
    found: Plain = {name: row[name] for name in COMPONENT_COLUMNS if name in row}
    found |= {name: known(row, name) for name in NUMBERS if name in row}
    found |= {name: row[name] for name in TEXTS if isinstance(row.get(name), str)}
    return found | {"verdict": verdict(row) or None, "judged": judged(row)}


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
