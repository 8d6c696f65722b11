"""The shade over what lies outside the range in which a coordinate was observed."""

import numpy as np

from mech_arith.reports.figures.sheet import Panel
from mech_arith.reports.figures.style import Key

OUTSIDE = "#fbf1e2"
"""Not grey, which is the controls'."""

HALF = 0.5
"""Share of edited coordinates outside, above which a strength is shaded."""

EDITED = Key("over half of the edits leave the observed range", "patch", OUTSIDE)
COORDINATES = Key("outside the range observed over all problems", "patch", OUTSIDE)


def shade_strengths(panel: Panel, strengths: np.ndarray, outside: np.ndarray) -> None:
    """Shade where more than half of the edited coordinates lie outside, over the whole height.

    Args:
        panel: with its limits.
        strengths: ascending.
        outside: share of the edited coordinates at each; a line is drawn between them.
    """
    low, high = panel.x
    places = np.linspace(low, high, 1001)
    over = np.interp(places, strengths, outside) > HALF
    edges = np.flatnonzero(np.diff(np.concatenate([[False], over, [False]])))
    starts, ends = edges[::2], edges[1::2] - 1
    corners = [
        (float(places[a]), panel.y[0], float(places[b]), panel.y[1])
        for a, b in zip(starts, ends, strict=True)
    ]
    if corners:
        panel.rectangles(corners, facecolors=OUTSIDE, zorder=0)


def shade_coordinates(panel: Panel, low: float, high: float) -> None:
    """Shade what lies under `low` and over `high`, as far as the panel reaches on the y axis."""
    bottom, top = panel.y
    stretches = ((bottom, min(low, top)), (max(high, bottom), top))
    corners = [(panel.x[0], start, panel.x[1], end) for start, end in stretches if start < end]
    if corners:
        panel.rectangles(corners, facecolors=OUTSIDE, zorder=0)
