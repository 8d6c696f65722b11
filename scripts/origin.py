"""Where the paper's picture comes from: compare the encoders of a sweep of experiment=origin.

    python scripts/origin.py SWEEP_DIRECTORY

The picture of Matsumoto et al. (2022) is put into three questions, each with a yes or no. They were
fixed before the encoders were looked at; the paper's own figures say yes to all three.

- order: the operands are clearest in an earlier layer than b-c, and b-c in an earlier one than the
  answer;
- middle: b-c is held in the open where it is clearest, |R| >= .9;
- answer: the answer is the first component of some layer of the upper half, |R| >= .9.

Layers and components are chosen on the fit split; every number is the report split's. Each question
is put to all positions side by side (the paper's way), to [CLS] alone, and to single positions, for
each value and layer the one where it is clearest.

Writes scripts/tables/origin.md and origin.csv.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mech_arith.common.errors import UserError
from mech_arith.common.runs.directories import find_runs
from mech_arith.evidence.results import RunResult, load_run

TABLES = Path(__file__).parent / "tables"
OPERANDS, MIDDLE, ANSWER = ("a", "b", "c"), "b-c", "a-(b-c)"
CLEAR = 0.9
"""|R| from which a value is held in the open."""

PLACES = {"all positions": ("all",), "[CLS]": ("0",), "single positions": None}
"""Names of positions; None for every single one."""


@dataclass(frozen=True)
class Picture:
    """Where one encoder has its values, at some positions."""

    best: pd.DataFrame
    """For each layer and value the row of `correlations` that is clearest on the fit split."""
    first: pd.DataFrame
    """The rows of component 0 for the answer, by layer."""

    @property
    def n_layers(self) -> int:
        return int(self.best["layer"].max()) + 1

    def peak(self, *values: str) -> pd.DataFrame:
        """The rows of the layer where the values are clearest on the fit split, on average."""
        of_values = self.best[self.best["value"].isin(values)]
        by_layer = of_values["r_fit"].abs().groupby(of_values["layer"]).mean()
        return of_values[of_values["layer"] == by_layer.idxmax()]

    def answers(self) -> dict[str, bool]:
        """The three questions."""
        operands, middle, answer = (
            int(self.peak(*values)["layer"].iloc[0]) for values in (OPERANDS, (MIDDLE,), (ANSWER,))
        )
        late = self.first[self.first["layer"] >= self.n_layers // 2]
        clearest = late.loc[late["r_fit"].abs().idxmax()]
        return {
            "order": operands < middle < answer,
            "middle": bool(self.peak(MIDDLE)["abs_r"].iloc[0] >= CLEAR),
            "answer": bool(clearest["abs_r"] >= CLEAR),
        }


def picture(correlations: pd.DataFrame, positions: Sequence[str] | None) -> Picture:
    """The picture at some positions; at every single one for None."""
    if positions is None:
        here = correlations[correlations["position"].str.isdigit()]
    else:
        here = correlations[correlations["position"].isin(positions)]
    known = here.dropna(subset=["r_fit"])
    clearest = known["r_fit"].abs().groupby([known["layer"], known["value"]]).idxmax()
    first = known[(known["component"] == 0) & (known["value"] == ANSWER)]
    of_layer = first["r_fit"].abs().groupby(first["layer"]).idxmax()
    return Picture(known.loc[clearest], first.loc[of_layer])


def start_of(run: RunResult) -> str:
    """What is peculiar to an encoder's training."""
    training = run.summary["provenance"]["training"]
    start = "random" if training["pretrained"] is None else "pretrained"
    norm = training["shape"].get("norm", "post")
    return f"{start}, {norm}-LN, {training['learning_rate']:g}"


def _is_of_origin(run: RunResult) -> bool:
    """Whether a run can be asked the three questions."""
    found = run.tables["correlations"]
    asked = {place for places in PLACES.values() if places for place in places}
    return (
        "pretrained" in (run.summary["provenance"]["training"] or {})
        and "baseline_r2" in run.summary
        and {*OPERANDS, MIDDLE, ANSWER} <= set(found["value"])
        and asked <= set(found["position"])
    )


def table(runs: Sequence[RunResult]) -> str:
    """Markdown: a row per encoder, a part per kind of position."""
    lines = [
        "| start, norm, learning rate | R^2 | median error | positions | operands | b-c | answer "
        "| order | middle | answer first | of 3 |",
        "|---" * 11 + "|",
    ]
    for run in runs:
        for place, positions in PLACES.items():
            seen = picture(run.tables["correlations"], positions)
            found = seen.answers()
            cells = [
                start_of(run),
                f"{run.summary['baseline_r2']:.5f}",
                f"{run.summary['baseline_median_abs_error']:.2f}",
                place,
                *(_peak(seen.peak(*values)) for values in (OPERANDS, (MIDDLE,), (ANSWER,))),
                *("yes" if yes else "no" for yes in found.values()),
                str(sum(found.values())),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _peak(rows: pd.DataFrame) -> str:
    """Layer, |R| and its interval; of several values each one's |R|."""
    layer = f"layer {rows['layer'].iloc[0]}"
    if len(rows) > 1:
        return f"{layer}: {' '.join(f'{r:.2f}' for r in rows['abs_r'])}"
    (row,) = rows.to_dict(orient="records")
    low, high = interval(row)
    return f"{layer}: {row['abs_r']:.3f} [{low:.3f}, {high:.3f}]"


def interval(row: dict[str, Any]) -> tuple[float, float]:
    """Of |R|, out of that of R."""
    ends = sorted((abs(row["r_low"]), abs(row["r_high"])))
    return (0.0 if row["r_low"] < 0 < row["r_high"] else ends[0], ends[1])


def every_layer(runs: Sequence[RunResult]) -> pd.DataFrame:
    """A row per encoder, kind of positions, value and layer."""
    tables = []
    for run in runs:
        for place, positions in PLACES.items():
            best = picture(run.tables["correlations"], positions).best
            ends = [interval(row) for row in best.to_dict(orient="records")]
            kept = best[["value", "layer", "position", "component", "abs_r"]].assign(
                low=[low for low, _ in ends],
                high=[high for _, high in ends],
                explained_variance=best["explained_variance"],
            )
            kept.insert(0, "positions", place)
            kept.insert(0, "encoder", start_of(run))
            tables.append(kept)
    return pd.concat(tables).round(4)


def main() -> None:
    """Read the sweep, write and print the tables."""
    if len(sys.argv) != 2:
        sys.exit("expected one argument, the directory of a sweep of experiment=origin")
    try:
        runs = [load_run(path) for path in find_runs(Path(sys.argv[1]))]
    except UserError as error:
        sys.exit(f"error: {error}")
    if not runs:
        sys.exit(f"error: expected finished runs in {sys.argv[1]}, found none; run `make origin`")
    for run in runs:
        if not _is_of_origin(run):
            sys.exit(
                f"error: expected encoders that were trained here and traced on {ANSWER} with the "
                f"map of single positions, got {run.directory}; see conf/experiment/origin.yaml"
            )
    TABLES.mkdir(exist_ok=True)
    text = table(runs)
    (TABLES / "origin.md").write_text(text, encoding="utf-8")
    every_layer(runs).to_csv(TABLES / "origin.csv", index=False)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
