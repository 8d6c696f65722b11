"""Draw what is known of the shipped model of modular addition, and what the methods find.

    python scripts/benchmarks/grokking_figure.py

Writes docs/figures/tutorial.png, the figure of docs/tutorial.md, and its numbers beside it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from grokking import (
    BEFORE,
    BEHIND,
    N_PROBLEMS,
    OPERAND,
    SUM,
    P,
    embedding,
    frame_of,
    frequencies_of,
    iia_of,
    key_frequencies,
    logit_spectrum,
    sources_of,
    spectrum,
    splits,
    subspace,
)
from matplotlib import colormaps

from mech_arith.models.arithmetic.loading import load_arithmetic
from mech_arith.reports.figures.sheet import Panel
from mech_arith.reports.figures.style import Grid, Key

TARGET = Path(__file__).parents[2] / "docs" / "figures" / "tutorial.png"
SEEDS = range(3)
CIRCLES = 5
EMBEDDING, LOGITS = "#1f77b4", "#d95f02"
SITES = {
    "a, at its position": (OPERAND, "a", "#1f77b4"),
    "the sum, behind the MLP": (BEHIND, SUM, "#1b9e77"),
    "the sum, before the MLP": (BEFORE, SUM, "#d95f02"),
}


def main() -> None:
    """Measure, draw and write."""
    table = measured()
    table.to_csv(TARGET.with_suffix(".csv"), index=False)
    grid = Grid(
        title=f"Addition modulo {P}: what is known of modular_addition, and what is found",
        subtitle=f"left: by numpy; right: means of {len(SEEDS)} draws, the floor is .01",
        across=3,
        down=1,
        width=2.7,
        height=2.2,
        left=0.75,
        gap=0.85,
        below=0.6,
        keys=[
            [Key("embedding", "patch", EMBEDDING), Key("logits", "patch", LOGITS)],
            [
                Key(name, "dashed" if name.startswith("the") else "line", colour)
                for name, (_, _, colour) in SITES.items()
            ],
        ],
    )
    sheet = grid.sheet()
    spectra(grid.panel(sheet, 0))
    circle(grid.panel(sheet, 1))
    answers(grid.panel(sheet, 2), table)
    sheet.savefig(TARGET, dpi=110)
    print(TARGET)


def spectra(panel: Panel) -> None:
    """Each frequency's share, of the embedding and of the logits."""
    of_numbers, of_logits = spectrum(embedding()), logit_spectrum()
    panel.limit((0, P // 2 + 1), (0, 0.7))
    panel.frame()
    for shares, colour, shift in ((of_numbers, EMBEDDING, -0.45), (of_logits, LOGITS, 0.0)):
        corners = [(k + shift, 0, k + shift + 0.45, share) for k, share in enumerate(shares, 1)]
        panel.rectangles(corners, facecolors=colour)
    for k in key_frequencies(of_numbers):
        above = max(of_numbers[k - 1], of_logits[k - 1]) + 0.02
        panel.write(str(k), k, above, across="center", along="bottom")
    panel.name(title="the truth: frequencies", x="frequency k", y="share of variance")


def circle(panel: Panel) -> None:
    """Every number on the first two directions that `fourier` finds for a."""
    model, (fit, _) = load_arithmetic("modular_addition"), splits(0, N_PROBLEMS)
    frame = frame_of(subspace(model, fit, OPERAND, "fourier", 2), "a", 2)
    (k,) = frequencies_of(frame)
    centred = embedding() - embedding().mean(0)
    x, y = (centred @ frame.directions.numpy().T).T
    far = 1.15 * max(abs(x).max(), abs(y).max())
    aspect = panel.box[2] / panel.box[3]
    panel.limit((-far * aspect, far * aspect), (-far, far))
    panel.frame()
    for number, (at, height) in enumerate(zip(x, y, strict=True)):
        colour = colormaps["hsv"](number * k % P / P)
        panel.points([at], [height], color=colour, markersize=3)
        if number in range(8):
            panel.write(str(number), 0.82 * at, 0.82 * height, across="center", along="center")
    panel.name(
        title=f"0 to {P - 1} on the circle of frequency {k}",
        x="first direction",
        y="second direction",
    )


def answers(panel: Panel, table: pd.DataFrame) -> None:
    """How many answers follow, against how many frequencies are interchanged."""
    panel.limit((0.7, CIRCLES + 0.3), (0, 1.05))
    panel.frame()
    for name, (_, _, colour) in SITES.items():
        mine = table[table["interchanged"] == name].groupby("frequencies")["iia"].mean()
        style = "--" if name.startswith("the") else "-"  # two of them lie on each other
        panel.line(mine.index, mine, color=colour, linestyle=style, marker="o", markersize=4)
    panel.name(title="answers that follow", x="frequencies interchanged", y="IIA")


def measured() -> pd.DataFrame:
    """IIA of the strongest 1, 2, ... frequencies, by site and draw of problems."""
    model, rows = load_arithmetic("modular_addition"), []
    for seed in SEEDS:
        fit, report = splits(seed, N_PROBLEMS)
        for name, (site, value, _) in SITES.items():
            sources = sources_of(report, value, seed)
            found = frame_of(subspace(model, fit, site, "fourier", 2 * CIRCLES), value, 2 * CIRCLES)
            chosen = frequencies_of(found)
            for n in range(1, CIRCLES + 1):
                share = iia_of(model, sources, site, found.directions[: 2 * n])
                rows.append((name, seed, n, " ".join(map(str, chosen[:n])), round(share, 4)))
    columns = ["interchanged", "seed", "frequencies", "which", "iia"]
    return pd.DataFrame(rows, columns=np.array(columns))


if __name__ == "__main__":
    main()
