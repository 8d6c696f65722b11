"""What the page shows of one cell: few numbers of few digits, as plain JSON data.

Every array that is written is a list of lists, in the order that its name says, with None for a
number that could not be had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from mech_arith.directions.readings import chosen_components
from mech_arith.engine.sites import COMPONENT_COLUMNS, is_asked_for
from mech_arith.evidence.best import of_least_rank
from mech_arith.evidence.results import per_value

DIGITS = 4
"""Behind the point; a |R| or an accuracy needs no more on a page."""

Plain = dict[str, Any]

DIRECTION = ["value", *COMPONENT_COLUMNS, "target_value"]
"""What tells an edited direction from the others of its cell."""

DROP = "accuracy_drop"
OF_EDITS = ["arm", "strength", "n", DROP, f"{DROP}_low", f"{DROP}_high", "mean_shift"]
"""What the page needs of each edit; a run of an earlier version has no intervals."""

ARMS = ("target", "control")
"""Of the controls the random directions alone: the others stand in the tables."""


def traced(correlations: pd.DataFrame, positions: str) -> Plain:
    """Tracing: every component at the positions that were asked for, and the map of single ones.

    Args:
        correlations: the table of a cell; without the map where prompts differ in their layout.
        positions: what the cell traces; an index is a single position too.
    """
    if correlations.empty:
        return {"sites": [], "best": None, "map": None}
    single = (correlations["position"] == correlations["position_index"].astype(str)).to_numpy()
    each = correlations.loc[single]
    chosen = [is_asked_for(position, positions) for position in correlations["position"]]
    asked = correlations.loc[chosen]
    if asked.empty:
        raise ValueError(f"expected rows of positions {positions!r} in the table, found none")
    sites = [_site(rows) for _, rows in asked.groupby(["position", "head"], sort=False)]
    several = each["position"].nunique() > 1
    return {
        "sites": sites,
        "best": _best_map(asked),
        "map": _position_map(each) if several else None,
    }


def edited(effects: pd.DataFrame) -> Plain:
    """Interventions: per value and layer the direction that costs most accuracy, all strengths."""
    if effects.empty:
        return {"lines": [], "failed": 0}
    effects = of_least_rank(effects.loc[effects["arm"].isin(ARMS)])
    lines = _lines(effects.loc[effects["status"] == "ok"])
    return {
        "edit": _only(effects, "edit"),
        "unit": _only(effects, "strength_unit"),
        "values": sorted({line["value"] for line in lines}, key=lambda value: (len(value), value)),
        "lines": lines,
        "failed": len(effects) - effects["status"].tolist().count("ok"),
    }


def overview_lines(found: Plain) -> list[Plain]:
    """Per value the line with the largest drop, and the largest drop of every layer."""
    by_value: dict[str, list[Plain]] = {}
    for line in found["lines"]:
        by_value.setdefault(line["value"], []).append(line)
    return [
        {
            "value": value,
            "dose": max(lines, key=lambda line: _largest(line)[0]),
            "layers": [[line["layer"], *_worst(line)] for line in lines],
        }
        for value, lines in by_value.items()
    ]


def _largest(line: Plain) -> tuple[float, int]:
    """The largest drop of a line and where it stands."""
    known = [(drop, index) for index, drop in enumerate(line["drop"]) if drop is not None]
    return max(known, key=lambda pair: pair[0], default=(float("-inf"), 0))


def _worst(line: Plain) -> list[Any]:
    """The largest drop, its control's, and the strength."""
    _, index = _largest(line)
    return [line["drop"][index], line["control"][index], line["strengths"][index]]


@dataclass(frozen=True)
class _Axes:
    """What the rows of a table range over."""

    layers: list[int]
    values: list[str]
    components: list[int]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "_Axes":
        return cls(
            sorted(set(rows["layer"].tolist())),
            list(dict.fromkeys(rows["value"].tolist())),
            sorted(set(rows["component"].tolist())),
        )

    def places(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows' places along value, layer and component."""
        return (
            _places(rows["value"], self.values),
            _places(rows["layer"], self.layers),
            _places(rows["component"], self.components),
        )


def placed(rows: pd.DataFrame) -> list[str]:
    """Of each row its place within the layer, in words: 'last', 'last, head 3'."""
    pairs = zip(rows["position"].tolist(), rows["head"].tolist(), strict=True)
    return [f"{position}, head {head}" if head else str(position) for position, head in pairs]


def _site(rows: pd.DataFrame) -> Plain:
    axes = _Axes.of(rows)
    shape = (len(axes.values), len(axes.layers), len(axes.components))
    places = axes.places(rows)
    r_fit = _filled(rows, "r_fit", shape, places)
    variance = _filled(rows, "explained_variance", shape, places)
    return {
        "position": placed(rows.iloc[:1])[0],
        "point": _only(rows, "point"),
        "n": int(rows["n_report"].iloc[0]) if "n_report" in rows else None,
        "values": axes.values,
        "layers": axes.layers,
        "components": axes.components,
        "r": numbers(_filled(rows, "r", shape, places)),
        "r_fit": numbers(r_fit),
        "r_passed": numbers(_filled(rows, "r_passed", shape, places)),
        "best": _best(r_fit).tolist(),
        "variance": numbers(variance[0]),
    }


def _best_map(rows: pd.DataFrame) -> Plain:
    """Per value and layer the direction that is best on the fit split, over all its sites."""
    axes, own = _Axes.of(rows), pd.Series(placed(rows), index=rows.index)
    positions = list(dict.fromkeys(own.tolist()))
    width = len(axes.components)
    shape = (len(axes.values), len(axes.layers), len(positions) * width)
    value, layer, component = axes.places(rows)
    places = (value, layer, _places(own, positions) * width + component)
    best = _best(_filled(rows, "r_fit", shape, places))
    r = _taken(_filled(rows, "r", shape, places), best)
    return {
        "values": axes.values,
        "layers": axes.layers,
        "r": numbers(r),
        "component": np.array(axes.components)[best % width].tolist(),
        "position": [[positions[place] for place in row] for row in (best // width).tolist()],
    }


def _position_map(rows: pd.DataFrame) -> Plain:
    """Per value, layer and single position the component that is best on the fit split, of all
    heads.
    """
    axes = _Axes.of(rows)
    positions = sorted(set(rows["position_index"].tolist()))
    heads, width = list(dict.fromkeys(rows["head"].tolist())), len(axes.components)
    shape = (len(axes.values), len(axes.layers), len(positions), len(heads) * width)
    value, layer, component = axes.places(rows)
    of_head = _places(rows["head"], heads) * width + component
    places = (value, layer, _places(rows["position_index"], positions), of_head)
    best = _best(_filled(rows, "r_fit", shape, places))
    tokens = dict(zip(rows["position_index"], rows["token"], strict=True))
    return {
        "values": axes.values,
        "layers": axes.layers,
        "positions": positions,
        "tokens": [str(tokens[position]) for position in positions],
        "r": numbers(_taken(_filled(rows, "r", shape, places), best)),
        "component": np.array(axes.components)[best % width].tolist(),
        **({"head": np.array(heads)[best // width].tolist()} if any(heads) else {}),
    }


def _places(column: Any, order: Sequence[Any]) -> np.ndarray:
    place = {entry: index for index, entry in enumerate(order)}
    return np.array([place[entry] for entry in column.tolist()])


def _filled(
    rows: pd.DataFrame, number: str, shape: tuple[int, ...], places: tuple[np.ndarray, ...]
) -> np.ndarray:
    """An array of one column; NaN where there is no row, or no such column in an older run."""
    array = np.full(shape, np.nan)
    if number in rows:
        array[places] = rows[number].to_numpy(dtype=float)
    return array


def _best(r_fit: np.ndarray) -> np.ndarray:
    """The place of the largest |R| along the last axis; 0 where none is known."""
    flat = torch.from_numpy(r_fit).flatten(0, -2).mT
    return chosen_components(flat).clamp(min=0).reshape(r_fit.shape[:-1]).numpy()


def _taken(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, places[..., None], axis=-1)[..., 0]


def _lines(effects: pd.DataFrame) -> list[Plain]:
    """A line per value and layer: the direction with the largest drop, and its control."""
    doses: dict[tuple, dict[str, dict[float, dict[str, Any]]]] = {}
    rows = per_value(effects).reindex(columns=[*DIRECTION, *OF_EDITS])
    for row in rows.to_dict(orient="records"):
        direction = tuple(row[name] for name in DIRECTION)
        doses.setdefault(direction, {}).setdefault(row["arm"], {})[row["strength"]] = row
    chosen: dict[tuple, Plain] = {}
    for direction, arms in doses.items():
        line = _line(dict(zip(DIRECTION, direction, strict=True)), arms)
        kept = chosen.get((line["value"], line["layer"]))
        if line["strengths"] and (kept is None or _largest(line)[0] > _largest(kept)[0]):
            chosen[line["value"], line["layer"]] = line
    return sorted(chosen.values(), key=lambda line: line["layer"])


def _line(row: Mapping[str, Any], arms: Mapping[str, Mapping[float, Mapping[str, Any]]]) -> Plain:
    """One direction's drops over all strengths, and its control's."""
    target, control = (arms.get(name, {}) for name in ARMS)
    strengths = sorted(target)
    line = {
        **{name: row[name] for name in ("value", *COMPONENT_COLUMNS)},
        "n": next(iter(_column(target, strengths, "n")), None),
        "strengths": strengths,
        "drop": _column(target, strengths, DROP),
        "control": _column(control, strengths, DROP),
        "shift": _column(target, strengths, "mean_shift"),
    }
    for name, arm in (("drop", target), ("control", control)):
        low, high = (_column(arm, strengths, f"{DROP}_{end}") for end in ("low", "high"))
        if any(number is not None for number in low):
            line |= {f"{name}_low": low, f"{name}_high": high}
    return line


def _column(
    arm: Mapping[float, Mapping[str, Any]], strengths: Sequence[float], name: str
) -> list[float | None]:
    found = [arm.get(strength, {}).get(name, np.nan) for strength in strengths]
    return numbers(np.array(found, dtype=float))


def _only(rows: pd.DataFrame, column: str) -> str:
    """What stands in a column, joined if it is several things."""
    return ", ".join(str(entry) for entry in dict.fromkeys(rows[column].tolist()))


def numbers(array: np.ndarray) -> list[Any]:
    """Nested lists of rounded numbers, None for what is not finite."""
    if array.ndim > 1:
        return [numbers(part) for part in array]
    finite = np.isfinite(array).tolist()
    rounded = np.round(array, DIGITS).tolist()
    return [number if known else None for number, known in zip(rounded, finite, strict=True)]
