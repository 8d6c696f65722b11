"""Components that serve several values, which no figure shows as if each had its own."""

from collections.abc import Iterable, Mapping
from typing import Any

MARK = "*"
"""Beside the number of a component that serves several values."""

Place = tuple[Any, ...]
"""(layer, position, component)."""

LONGEST_NOTE = 6
"""Of more shared components than that a note counts the rest."""


def served(rows: Iterable[Mapping[str, Any]]) -> dict[Place, list[str]]:
    """The values of each component, by place, where there are several.

    Args:
        rows: with layer, position, component and value, one for each that is drawn.
    """
    found: dict[Place, list[str]] = {}
    for row in rows:
        values = found.setdefault(place_of(row), [])
        if row["value"] not in values:
            values.append(row["value"])
    return {place: values for place, values in found.items() if len(values) > 1}


def place_of(row: Mapping[str, Any]) -> Place:
    """Where a row's component is."""
    return row["layer"], row["position"], row["component"]


def sharing_note(shared: Mapping[Place, list[str]], mark: str = MARK) -> list[str]:
    """Small print that names the components that serve several values; nothing where none does."""
    if not shared:
        return []
    several = len({position for _, position, _ in shared}) > 1
    entries = [
        f"layer {layer}{f' at {position}' if several else ''} c{component} ({', '.join(values)})"
        for (layer, position, component), values in sorted(
            shared.items(), key=lambda entry: (entry[0][0], str(entry[0][1]), entry[0][2])
        )
    ]
    more = len(entries) - LONGEST_NOTE
    text = "; ".join(entries[:LONGEST_NOTE]) + (f"; and {more} more" if more > 0 else "")
    return [f"{mark} one component serves several values: {text}".strip()]
