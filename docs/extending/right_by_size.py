"""A figure: how many answers are right, by the size of the right answer."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mech_arith.reports.figures import figure

BINS = 5


@figure("right_by_size", needs=("problems",))
def right_by_size(problems: pd.DataFrame, *, title: str, level: float) -> Figure:
    """Equally many problems of the report split in each bin."""
    reported = problems[problems["split"] == "report"]
    size = reported["right"].abs().to_numpy()
    bins = np.array_split(np.argsort(size, kind="stable"), BINS)
    right = reported["correct"].astype(float).to_numpy()
    drawn = Figure(figsize=(4, 3), layout="constrained")
    axes = drawn.subplots()
    axes.plot([size[rows].mean() for rows in bins], [right[rows].mean() for rows in bins], "o-")
    axes.set(title=title, xlabel="size of the right answer", ylabel="share of right answers")
    return drawn
