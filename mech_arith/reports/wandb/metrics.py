"""What a run is compared by: the names under which numbers are logged, and their x axes.

The same in every run, whatever model, template and layers it has: a layer or a strength is an x
axis and no part of a name, but for ACCURACY_DROP, a run's own curves. Values have the names of
`names.part_name`; in W&B's tables they are as everywhere else.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS, WITHIN_LAYER, is_asked_for
from mech_arith.evidence.best import best_on_fit, best_places, of_least_rank
from mech_arith.evidence.columns import TABLES
from mech_arith.evidence.hypothesis_summary import at_best
from mech_arith.evidence.results import per_value, plain
from mech_arith.reports.wandb.names import part_name

STRENGTH = "strength"
LAYER = "layer"
HEAD = "head"

BEST_ABS_R = "best_abs_r"
"""Against LAYER, per value: |R| on the report split of the component best on the fit split."""

DROP_BY_LAYER = "drop_by_layer"
"""Against LAYER, per value: the largest accuracy drop over strengths (and positions, heads)."""

DROP_BY_STRENGTH = "drop_by_strength"
"""Against STRENGTH, per value: the largest accuracy drop over layers (and positions, heads)."""

ACCURACY_DROP = "accuracy_drop"
"""Against STRENGTH, per value and layer."""


def curves() -> tuple[str, ...]:
    """Against LAYER, per value: columns of the evidence, of the component best on the fit split."""
    return tuple(column.name for column in TABLES["evidence"] if column.is_curve)


EXPECTED = "as_expected"
"""Against LAYER, per value and rival value, and hypothesis: share of the answers that are as the
hypothesis expects, on the pairs that tell the two apart; at the layer's best site."""

CONTROL = "control_"
"""Before DROP_BY_LAYER, DROP_BY_STRENGTH and ACCURACY_DROP: that of as many controls."""


def x_axes() -> dict[str, str]:
    """Prefix of a curve's name -> the metric that is its x axis."""
    return {
        BEST_ABS_R: LAYER,
        EXPECTED: LAYER,
        DROP_BY_LAYER: LAYER,
        CONTROL + DROP_BY_LAYER: LAYER,
        DROP_BY_STRENGTH: STRENGTH,
        CONTROL + DROP_BY_STRENGTH: STRENGTH,
        ACCURACY_DROP: STRENGTH,
        CONTROL + ACCURACY_DROP: STRENGTH,
        **dict.fromkeys(curves(), LAYER),
    }


TARGET_LARGEST = "target/largest_drop"
CONTROL_LARGEST = "control/largest_drop"
"""In the summary: over all values, the largest accuracy drop of any edit and of any control."""

BASELINE = "baseline_accuracy"

KEPT = {
    "design": ("name", "value", "largest", "spread_kept"),
    "missing": (),
    "inference": ("n_tests", "n_significant_holm", "n_significant_bh"),
    "provenance": ("git_commit", "weights_digest", "seed", "device", "dtype", "versions"),
}
"""Groups of a summary that are large, and what of them is a headline."""


def kept_of_values() -> dict[str, tuple[str, ...]]:
    """The same of groups that hold a group for every value."""
    logged = [
        column
        for table in ("correlations", "evidence")
        for column in TABLES[table]
        if column.is_logged
    ]
    return {
        "largest_drop": (*COMPONENT_COLUMNS, "strength", "accuracy_drop", "control_drop"),
        **{
            group: (*COMPONENT_COLUMNS, *(c.name for c in logged if c.group == group))
            for group in ("best", "excess_drop", "counterfactual")
        },
        "verdicts": ("text", *(column.name for column in logged if not column.group)),
        "alignments": (
            *("text", "rank", "n_telling", "telling", "telling_low", "telling_high"),
            *("floor", "p_holm", "supported"),
        ),
    }


RENAMED = {
    "largest_drop": "drop",
    "excess_drop": "excess",
    "verdicts": "verdict",
    "hypotheses": "hypothesis",
    "alignments": "alignment",
}
"""Groups that would else be named as a curve is, or as many."""

CELL = "cell"
"""In the configuration: the cell's fields (model, template, ...), to group and filter runs by."""

VALUES = "values"
"""In the configuration: the name that a value has within metrics -> the value."""


def named_values(summary: Mapping[str, Any]) -> dict[str, str]:
    """The values that a summary is about, by their names within metrics."""
    return {part_name(value): value for value in summary.get("best", {})}


OBJECTIVE = "objective"


def objective_name(name: str) -> str:
    """The metric of an objective: of 'excess_drop/b-c' objective/excess_drop/b_minus_c.

    No curve has this name. A Bayesian search of W&B takes the best point of a curve, which would be
    the best layer on the problems that are reported.
    """
    metric, _, value = name.partition("/")
    return f"{OBJECTIVE}/{metric}/{part_name(value)}"


def headline(summary: Mapping[str, Any]) -> dict[str, float | int | str | bool]:
    """The headline numbers of a run's summary under flat names.

    `best` becomes best/<value>/abs_r, best/<value>/layer, ...; `largest_drop` becomes
    drop/<value>/accuracy_drop, drop/<value>/control_drop, ..., and the largest of them over all
    values TARGET_LARGEST; `excess_drop` becomes excess/<value>/..., `verdicts`
    verdict/<value>/text; any other group keeps its name
    in front. Of large groups KEPT and `kept_of_values` are all. What is missing (None, '') is left
    out, and so is the cell, which the configuration holds. Warnings are counted.
    """
    flat: dict[str, float | int | str | bool] = {}
    for key, entry in summary.items():
        if key == CELL:
            continue
        if key == "warnings" and isinstance(entry, list | tuple):
            flat[key] = len(entry)
            continue
        flat |= dict(_leaves(RENAMED.get(key, key), plain(_kept(key, entry))))
    drops = [found["accuracy_drop"] for found in summary.get("largest_drop", {}).values()]
    if drops:
        flat[TARGET_LARGEST] = max(drops)
    return flat


def _kept(key: str, entry: Any) -> Any:
    """What of a group is a headline; the whole lies beside the run in its summary file."""
    names = kept_of_values().get(key)
    if names is not None:
        # Of a verdict the row that it is read from stands within.
        rows = {value: {**found.get("best", {}), **found} for value, found in entry.items()}
        return {value: _chosen(row, names) for value, row in rows.items()}
    return _chosen(entry, KEPT[key]) if key in KEPT else entry


def _chosen(found: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: found[name] for name in names if name in found}


def by_strength(effects: pd.DataFrame) -> list[dict[str, float]]:
    """One row per strength, ascending: accuracy drops, per layer and the largest over layers.

    Where the table holds several points, positions or heads, they are part of the name of a layer's
    curve. Failed rows are left out.
    """
    drops = _drops(effects)
    several = [name for name in WITHIN_LAYER if len({row[name] for row in drops}) > 1]
    points = []
    for row in drops:
        said = {name: f"head_{row[name]}" if name == HEAD else row[name] for name in several}
        where = "".join(f"_{part_name(str(entry))}" for entry in said.values())
        value = part_name(row["value"])
        layered = f"{_prefix(row)}{ACCURACY_DROP}/{value}/layer_{row[LAYER]}{where}"
        overall = f"{_prefix(row)}{DROP_BY_STRENGTH}/{value}"
        points += [(row[STRENGTH], name, row["accuracy_drop"]) for name in (layered, overall)]
    return _rows(STRENGTH, points)


def by_layer(
    correlations: pd.DataFrame,
    effects: pd.DataFrame,
    evidence: pd.DataFrame,
    *,
    positions: str,
    hypotheses: pd.DataFrame | None = None,
) -> list[dict[str, float]]:
    """One row per layer, ascending: best |R|, largest accuracy drop and `curves` per value.

    Args:
        correlations: the table of a cell, which may hold a map of single positions too.
        effects: the table of a cell; empty if nothing was edited.
        evidence: the table of a cell; of several sites in a layer the one with the largest |R| on
            the fit split counts.
        positions: what the cell traces; of 'each' and 'answer.each', the best of the single
            positions.
        hypotheses: the table of a cell; none or empty without rivals.
    """
    known = correlations.dropna(subset=["r_fit", "abs_r"])
    known = known.loc[[is_asked_for(position, positions) for position in known["position"]]]
    best = best_on_fit(known, (LAYER, "value"))
    points = [
        (row[LAYER], f"{BEST_ABS_R}/{part_name(row['value'])}", row["abs_r"])
        for row in best.to_dict(orient="records")
    ]
    points += [
        (
            row[LAYER],
            f"{_prefix(row)}{DROP_BY_LAYER}/{part_name(row['value'])}",
            row["accuracy_drop"],
        )
        for row in _drops(effects)
    ]
    return _rows(LAYER, [*points, *_of_evidence(evidence), *_expected(hypotheses, evidence)])


def _expected(
    hypotheses: pd.DataFrame | None, evidence: pd.DataFrame
) -> Iterator[tuple[float | int, str, float]]:
    """Points of the shares that each of two hypotheses expects; of several ranks of the least."""
    if hypotheses is None or hypotheses.empty:
        return
    for row in of_least_rank(at_best(hypotheses, evidence)).to_dict(orient="records"):
        pair = f"{EXPECTED}/{part_name(row['value'])}_or_{part_name(row['rival_value'])}"
        for side, share in (("hypothesis", "distinguishing"), ("rival", "distinguishing_rival")):
            if plain(row[share]) is not None:
                yield row[LAYER], f"{pair}/{part_name(row[side])}", row[share]


def _of_evidence(evidence: pd.DataFrame) -> list[tuple[float | int, str, float]]:
    """Points of the curves out of the evidence, at the best place of every layer."""
    if evidence.empty:
        return []
    best = best_places(evidence.dropna(subset=["r_fit"]))
    return [
        (row[LAYER], f"{curve}/{part_name(row['value'])}", row[curve])
        for row in best.to_dict(orient="records")
        for curve in curves()
        if plain(row.get(curve)) is not None
    ]


def _drops(effects: pd.DataFrame) -> list[dict[Any, Any]]:
    """The effects that came out well, a row per value; of the controls the random ones alone;
    of several ranks the least.
    """
    if effects.empty:
        return []
    drawn = effects["arm"].isin(["target", "control"]) & (effects["status"] == "ok")
    return per_value(of_least_rank(effects.loc[drawn])).to_dict(orient="records")


def _prefix(row: Mapping[Any, Any]) -> str:
    return CONTROL if row["arm"] == "control" else ""


def _rows(axis: str, points: Iterable[tuple[float | int, str, float]]) -> list[dict[str, float]]:
    """Points of named curves, in one row per place on the axis: of several the largest."""
    rows: dict[float, dict[str, float]] = {}
    for place, name, number in points:
        row = rows.setdefault(float(place), {axis: float(place)})
        row[name] = max(row.get(name, -inf), float(number))
    return [rows[place] for place in sorted(rows)]


def _leaves(name: str, entry: Any) -> Iterator[tuple[str, float | int | str | bool]]:
    if isinstance(entry, Mapping):
        for key, inner in entry.items():
            yield from _leaves(f"{name}/{part_name(key)}", inner)
    elif entry not in (None, "") and not isinstance(entry, list):
        yield name, entry
