"""What the page shows of a cell's evidence: how sure each number is, and what a direction carries.

As in `compact`, arrays are lists of lists, with None for a number that could not be had.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS
from mech_arith.evidence.best import best_places, best_rows
from mech_arith.evidence.columns import completed, shown_columns
from mech_arith.evidence.ranks import at_headline
from mech_arith.evidence.results import slopes_at_best, tokens_at_best
from mech_arith.evidence.verdicts import is_truth, known, verdict
from mech_arith.reports.page.compact import Plain, numbers, placed


def _names() -> tuple[list[str], list[str]]:
    """Columns of numbers and of texts that the page shows."""
    shown = shown_columns()
    numbers_of = dict.fromkeys(name for column in shown for name in column.needed)
    return list(numbers_of), list(dict.fromkeys(name for column in shown for name in column.texts))


def _headline_names() -> list[str]:
    """What the table of all cells needs of a row."""
    first = [n for c in shown_columns() if c.is_headline for n in (*c.needed, *c.texts)]
    return ["value", *COMPONENT_COLUMNS, "judged", *first]


def evidence_rows(evidence: pd.DataFrame) -> list[Plain]:
    """A row per site and value, without what no row has.

    `judged` says of columns whether their number is a finding or may be chance; `best` marks the
    row that is best on the fit split for its value and layer.
    """
    if evidence.empty:
        return []
    evidence = completed("evidence", evidence)
    raw = evidence.to_dict(orient="records")
    number_names, text_names = _names()
    filled = set(evidence.dropna(axis="columns", how="all").columns)
    columns: dict[str, list[Any]] = {
        "value": evidence["value"].tolist(),
        **{name: evidence[name].tolist() for name in COMPONENT_COLUMNS},
        **{
            name: numbers(evidence[name].to_numpy(dtype=float))
            for name in ["r_fit", *number_names]
            if name in filled
        },
    }
    for name in text_names:
        texts = evidence[name].fillna("").astype(str).tolist() if name in evidence else []
        if any(texts):
            columns[name] = [text or None for text in texts]
    columns["judged"] = [_standings(row) for row in raw]
    if "r_fit" in filled:
        columns["best"] = evidence.index.isin(best_places(evidence).index).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def rank_lines(evidence: pd.DataFrame) -> list[Plain]:
    """Per value IIA by rank at its headline's site, with floor and ceiling."""
    return [
        {
            "value": value,
            "layer": rows[0]["layer"],
            "head": rows[0]["head"],
            "n": known(rows[0], "n"),
            "rank": [row["rank"] for row in rows],
            **{name: [known(row, name) for row in rows] for name in OF_RANKS},
        }
        for value, rows in at_headline(evidence).items()
    ]


OF_RANKS = ("iia", "iia_low", "iia_high", "iia_random", "floor", "ceiling")
"""Columns of the evidence that are drawn against rank."""


def headline_rows(rows: Sequence[Plain], summary: Mapping[str, Any]) -> list[Plain]:
    """Per value one row, the largest |R| first: the one from which its verdict is read.

    A run of an earlier version has no verdicts: there it is the row with the largest |R| on the fit
    split, and without a table of evidence what the summary says.
    """
    verdicts = summary.get("verdicts") or {}
    if verdicts:
        found = [{"value": value, **_shown(said["best"])} for value, said in verdicts.items()]
    elif rows:
        found = [*best_rows(rows).values()]
    else:
        found = _summarised(summary)
    ordered = sorted(found, key=lambda row: -abs(known(row, "r") or 0))
    return [
        {name: row[name] for name in _headline_names() if name in row}
        | {"sentence": verdicts.get(row["value"], {}).get("text")}
        for row in ordered
    ]


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
    number_names, text_names = _names()
    found |= {name: known(row, name) for name in number_names if name in row}
    found |= {name: row[name] for name in text_names if isinstance(row.get(name), str)}
    return found | {"verdict": verdict(row) or None, "judged": _standings(row)}


def _standings(row: Mapping[str, Any]) -> dict[str, str]:
    """Of each column that is judged whether its number is a finding or may be chance."""
    said = {column.name: row.get(column.counts) for column in shown_columns() if column.counts}
    words = {True: "finding", False: "chance"}
    return {name: words[bool(counts)] for name, counts in said.items() if is_truth(counts)}


def specificity_maps(specificity: pd.DataFrame, evidence: pd.DataFrame) -> list[Plain]:
    """Per layer the slopes of each value's direction (rows) with each value's change (columns).

    Of several sites in a layer the one with the largest |R| of the value on the fit split.
    """
    if specificity.empty or evidence.empty:
        return []
    rows = slopes_at_best(specificity, evidence)
    return [
        _map(layer, rows.loc[rows["layer"] == layer].to_dict(orient="records"))
        for layer in sorted(set(rows["layer"].tolist()))
    ]


def token_maps(answer_tokens: pd.DataFrame, evidence: pd.DataFrame) -> list[Plain]:
    """Per layer how often each token of the answer (columns) follows each value (rows).

    Of several positions the one with the largest |R| of the value on the fit split.
    """
    if answer_tokens.empty or evidence.empty:
        return []
    rows = tokens_at_best(answer_tokens, evidence)
    return [
        _token_map(layer, rows.loc[rows["layer"] == layer].to_dict(orient="records"))
        for layer in sorted(set(rows["layer"].tolist()))
    ]


TOKEN_NUMBERS = ("iia", "iia_low", "iia_high", "floor", "p_max", "ceiling", "iia_changed", "n")
"""What is said of each token."""


def _token_map(layer: int, rows: list[dict[Any, Any]]) -> Plain:
    values = sorted({row["value"] for row in rows}, key=lambda value: (len(value), value))
    names = dict(sorted((row["token"], row["token_name"]) for row in rows))
    found: Plain = {"layer": layer, "values": values, "tokens": list(names.values())}
    places = [(values.index(row["value"]), list(names).index(row["token"])) for row in rows]
    for name in TOKEN_NUMBERS:
        array = np.full((len(values), len(names)), np.nan)
        for place, row in zip(places, rows, strict=True):
            array[place] = row.get(name, np.nan)
        found[name] = numbers(array)
    components = {row["value"]: (row["component"], row["position"]) for row in rows}
    found["component"] = [components[value][0] for value in values]
    found["position"] = [components[value][1] for value in values]
    return found


def _map(layer: int, rows: list[dict[Any, Any]]) -> Plain:
    directions, changed = (
        sorted(dict.fromkeys(row[name] for row in rows), key=lambda value: (len(value), value))
        for name in ("value", "changed")
    )
    places = [(directions.index(row["value"]), changed.index(row["changed"])) for row in rows]
    found: Plain = {"layer": layer, "directions": directions, "changed": changed, "n": rows[0]["n"]}
    for name in ("slope", "slope_low", "slope_high", "iia"):
        array = np.full((len(directions), len(changed)), np.nan)
        for place, row in zip(places, rows, strict=True):
            array[place] = row[name]
        found[name] = numbers(array)
    own = pd.DataFrame(rows).drop_duplicates("value").set_index("value").loc[directions]
    return found | {"component": own["component"].tolist(), "position": placed(own)}
