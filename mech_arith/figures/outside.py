"""The shade over what lies outside the range in which a coordinate was observed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

OUTSIDE = "#f8ecd9"
"""Not grey, which is the controls'."""

HALF = 0.5
"""Share of edited coordinates outside, above which a strength is shaded."""

EDITED = Patch(color=OUTSIDE, label="over half of the edits leave the observed range")
COORDINATES = Patch(color=OUTSIDE, label="outside the range observed over all problems")


def shade_strengths(axes: Axes, strengths: np.ndarray, outside: np.ndarray) -> None:
    """Shade where more than half of the edited coordinates lie outside, over the whole x axis.

    Args:
        axes: with its curves drawn.
        strengths: ascending.
        outside: share of the edited coordinates at each; a line is drawn between them.
    """
    low, high = axes.get_xlim()
    places = np.linspace(low, high, 1001)
    over = np.interp(places, strengths, outside) > HALF
    axes.fill_between(
        places,
        0,
        1,
        where=over.tolist(),
        transform=axes.get_xaxis_transform(),
        color=OUTSIDE,
        linewidth=0,
        zorder=0,
    )
    axes.set_xlim(low, high)


def shade_coordinates(axes: Axes, low: float, high: float) -> None:
    """Shade what lies under `low` and over `high`, as far as the curves reach on the y axis."""
    bottom, top = axes.get_ylim()
    for start, end in ((bottom, min(low, top)), (max(high, bottom), top)):
        if start < end:
            axes.axhspan(start, end, color=OUTSIDE, linewidth=0, zorder=0)
    axes.set_ylim(bottom, top)
