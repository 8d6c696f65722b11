"""Draw a run of `experiment=paper` beside the figures that Matsumoto et al. (2022) report.

    python scripts/paper_figure.py RUN_DIRECTORY

Writes docs/figures/paper.png, the figure of README.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from mech_arith.evidence.results import load_run
from mech_arith.reports.figures.sheet import Panel, Sheet
from mech_arith.reports.figures.style import Grid, heatmap, ink, two_digits

TARGET = Path(__file__).parent.parent / "docs" / "figures" / "paper.png"
VALUES = ("a", "b", "c", "b-c", "a-(b-c)")
LAYERS = 6

# |R| of components 1, 2, 3 in layers 1 to 6; those from 4 on are at most .15 (MathNLP 2022).
REFERENCE = (
    np.array(
        [
            [81, 51, 23, 85, 35, 39, 40, 6, 91, 60, 20, 76, 56, 31, 75, 55, 37, 74],
            [24, 9, 96, 41, 5, 91, 45, 87, 12, 52, 82, 20, 57, 81, 10, 58, 81, 3],
            [53, 84, 5, 35, 93, 11, 79, 46, 36, 61, 52, 58, 60, 50, 62, 60, 45, 65],
            [21, 66, 72, 5, 69, 72, 24, 94, 17, 80, 21, 56, 82, 22, 51, 83, 25, 48],
            [64, 23, 72, 46, 36, 81, 43, 80, 39, 100, 6, 1, 100, 0, 2, 100, 1, 4],
        ],
        dtype=float,
    ).reshape(len(VALUES), LAYERS, 3)
    / 100
)


def main() -> None:
    """Read the run and draw."""
    if len(sys.argv) != 2:
        sys.exit("expected one argument, the directory of a run of experiment=paper")
    correlations = load_run(Path(sys.argv[1])).tables["correlations"]
    ours = correlations.loc[correlations["position"] == "all"]
    TARGET.parent.mkdir(exist_ok=True)
    drawn(ours).savefig(TARGET, dpi=110)
    print(TARGET)


def drawn(ours: pd.DataFrame) -> Sheet:
    """Our |R| above the paper's, a column per layer."""
    title = "|R| of principal components with the values of a-(b-c), all positions"
    grid = Grid(
        title=title,
        subtitle="above: arith_encoder, on the report split; below: the paper's model, first three",
        across=LAYERS,
        down=2,
        width=2.0,
        height=1.3,
        left=0.8,
        below=0.45,
    )
    sheet = grid.sheet()
    for layer in range(LAYERS):
        at_layer = ours[ours["layer"] == layer]
        table = at_layer.pivot(index="value", columns="component", values="abs_r")
        above, below = (grid.panel(sheet, layer + row * LAYERS) for row in (0, 1))
        _panel(above, table.loc[list(VALUES)].to_numpy(), first=layer == 0)
        above.name(title=f"layer {layer}")
        _panel(below, REFERENCE[:, layer], first=layer == 0)
        below.name(x="component")
    return sheet


def _panel(panel: Panel, shares: np.ndarray, *, first: bool) -> None:
    few = shares.shape[1] <= 3
    labels = VALUES if first else [""] * len(VALUES)
    names = [str(k) for k in range(shares.shape[1])]
    size = 8.0 if few else 6.0
    heatmap(panel, shares, rows=labels, columns=names)
    for (row, column), share in np.ndenumerate(shares):
        if few or share >= 0.5:
            panel.write(two_digits(share), column, row, size=size, colour=ink(share))


if __name__ == "__main__":
    main()
