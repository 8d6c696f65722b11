"""Components that serve several values, which no figure shows as if each had its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mech_arith.engine.sites import Site, component_of

MARK = "*"
"""Beside the number of a component that serves several values."""

Place = tuple[Site, int, int]
"""A site, a component and a rank."""

MOST_NAMED = 8
"""Of more layers along an axis their components are not named."""

LONGEST_NOTE = 6
"""Of more shared components than that a note counts the rest."""


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


def layer_names(
    layers: Sequence[Any], rows: Iterable[Mapping[str, Any]], shared: Mapping[Place, list[str]]
) -> list[str]:
    """Names of layers along an axis, and under each the component that is drawn, of few layers.

    Args:
        layers: ascending.
        rows: of one value, with a site's columns and component.
        shared: the components that have a mark.
    """
    if len(layers) > MOST_NAMED:
        return [str(layer) for layer in layers]
    drawn = {row["layer"]: row for row in rows}
    names = []
    for layer in layers:
        row = drawn.get(layer)
        mark = MARK if row is not None and component_of(row) in shared else ""
        names.append(str(layer) if row is None else f"{layer}\nc{row['component']}{mark}")
    return names


def sharing_note(shared: Mapping[Place, list[str]], mark: str = MARK) -> list[str]:
    """Small print that names the components that serve several values; nothing where none does."""
    if not shared:
        return []
    several = len({site.position for site, *_ in shared}) > 1
    ordered = sorted(
        shared.items(), key=lambda entry: (*entry[0][0].columns().values(), entry[0][1])
    )
    entries = [
        f"layer {site.layer}{f' at {site.position}' if several else ''} c{component} "
        f"({', '.join(values)})"
        for (site, component, _), values in ordered
    ]
    more = len(entries) - LONGEST_NOTE
    text = "; ".join(entries[:LONGEST_NOTE]) + (f"; and {more} more" if more > 0 else "")
    return [f"{mark} one component serves several values: {text}".strip()]
