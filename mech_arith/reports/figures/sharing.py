"""Components that serve several values, which no figure shows as if each had its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mech_arith.engine.sites import Site, component_of
from mech_arith.reports.figures.layout import on_page

MARK = "*"
"""Beside the number of a component that serves several values."""

Place = tuple[Site, int, int]
"""A site, a component and a rank."""

MOST_NAMED = 8
"""Of more layers along an axis their components are not named."""

LONGEST_NOTE = 6
"""Of more shared components than that a note counts the rest."""


def sites_note(rows: pd.DataFrame, several: str) -> str:
    """Where what is drawn is read, in words: points, positions and heads.

    Args:
        rows: with a site's columns.
        several: what is said of the one that is drawn where there are several, as 'the best'.
    """
    points, positions, heads = (
        list(dict.fromkeys(rows[name])) for name in ("point", "position", "head")
    )
    said = [", ".join(points)]
    said.append(f"positions: {positions[0] if len(positions) == 1 else several}")
    if heads != [""]:
        said.append(f"heads: {heads[0] if len(heads) == 1 else several}")
    return "; ".join(said)


def rank_note(table: pd.DataFrame) -> list[str]:
    """Which rank is drawn, where it is not a single component's or there are others."""
    ranks = sorted(set(table["rank"]))
    if ranks == [1]:
        return []
    others = f" of {', '.join(map(str, ranks))}" if len(ranks) > 1 else ""
    return [f"subspaces of rank {ranks[0]}{others}"]


def subspace_note(table: pd.DataFrame) -> str:
    """Which subspaces of the evidence are drawn."""
    least = min(table["rank"])
    best = ["the fit split's best component"] if least == 1 else []
    return "; ".join([*best, *rank_note(table)])


def served(rows: Iterable[Mapping[str, Any]]) -> dict[Place, list[str]]:
    """The values of each component, by place, where there are several.

    Args:
        rows: with a site's columns, component and value, one for each that is drawn.
    """
    found: dict[Place, list[str]] = {}
    for row in rows:
        values = found.setdefault(component_of(row), [])
        if row["value"] not in values:
            values.append(row["value"])
    # A subspace of more directions is shared wherever a method has one for all values.
    return {place: values for place, values in found.items() if len(values) > 1 and place[2] == 1}


def component_name(
    row: Mapping[str, Any],
    shared: Mapping[Place, list[str]] | None = None,
    *,
    between: str = " ",
) -> str:
    """A component in few letters: 'c2', of a head 'h3 c2'; with a mark where it is shared.

    A subspace of more directions has its rank for a name: 'k4'.
    """
    head = f"h{row['head']}{between}" if row.get("head") else ""
    mark = MARK if component_of(row) in (shared or {}) else ""
    rank = row.get("rank", 1)
    return f"{head}k{rank}" if rank > 1 else f"{head}c{row['component']}{mark}"


def layer_names(
    layers: Sequence[Any], rows: Iterable[Mapping[str, Any]], shared: Mapping[Place, list[str]]
) -> list[str]:
    """Names of layers along an axis, and under each the component that is drawn, of few layers.

    Args:
        layers: ascending.
        rows: of one value, with a site's columns and component.
        shared: the components that have a mark.
    """
    drawn = {row["layer"]: row for row in rows}
    if not named_below(layers, drawn.values()):
        return [str(layer) for layer in layers]
    names = []
    for layer in layers:
        row = drawn.get(layer)
        named = [] if row is None else [component_name(row, shared, between="\n")]
        names.append("\n".join([str(layer), *named]))
    return names


def named_below(layers: Sequence[Any], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether components stand under their layers: of few layers, and on a page not with heads."""
    return len(layers) <= MOST_NAMED and not (on_page() and _have_heads(rows))


def room_below(layers: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """Inches that `layer_names` and the axis' own name take under a panel."""
    if not named_below(layers, rows):
        return 0.5
    return 0.8 if _have_heads(rows) else 0.65


def _have_heads(rows: Iterable[Mapping[str, Any]]) -> bool:
    return any(row.get("head") for row in rows)


def sharing_note(shared: Mapping[Place, list[str]], mark: str = MARK) -> list[str]:
    """Small print that names the components that serve several values; nothing where none does."""
    if not shared:
        return []
    several = len({site.position for site, *_ in shared}) > 1
    ordered = sorted(
        shared.items(), key=lambda entry: (*entry[0][0].columns().values(), entry[0][1])
    )
    entries = [
        f"layer {site.layer}{f' at {site.position}' if several else ''} "
        f"{component_name({**site.columns(), 'component': component})} ({', '.join(values)})"
        for (site, component, _), values in ordered
    ]
    more = len(entries) - LONGEST_NOTE
    text = "; ".join(entries[:LONGEST_NOTE]) + (f"; and {more} more" if more > 0 else "")
    return [f"{mark} one component serves several values: {text}".strip()]
