"""Figures that a person can read, drawn from the tables of a run and nothing else."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mech_arith.figures.correlations import (
    best_correlation_map,
    correlation_heatmaps,
    position_maps,
    single_positions,
)
from mech_arith.figures.counterfactual import (
    agreements_drawn,
    counterfactual_agreement,
    specificity_maps,
)
from mech_arith.figures.drops import accuracy_by_layer
from mech_arith.figures.effects import SHIFT, dose_response
from mech_arith.figures.evidence import evidence_maps
from mech_arith.figures.locality import locality_distance, locality_example
from mech_arith.figures.sheet import DPI
from mech_arith.results import slopes_at_best

__all__ = [
    "accuracy_by_layer",
    "best_correlation_map",
    "cell_figures",
    "correlation_heatmaps",
    "counterfactual_agreement",
    "dose_response",
    "evidence_maps",
    "locality_distance",
    "locality_example",
    "position_maps",
    "save_figures",
    "specificity_maps",
]


def cell_figures(
    tables: Mapping[str, pd.DataFrame], *, title: str, level: float = 0.95
) -> dict[str, Figure]:
    """All figures that a run's tables have the rows for, by name.

    Args:
        tables: by name: `correlations`, and what else the run made.
        title: stands over every figure; model and template.
        level: of the tables' intervals.
    """
    correlations = tables["correlations"]
    single = single_positions(correlations)
    asked, each = correlations.loc[~single], correlations.loc[single]
    if asked.empty and each["position"].nunique() == 1:
        asked, each = each, asked
    figures: dict[str, Figure] = {}
    for position, table in asked.groupby("position", sort=False):
        several = asked["position"].nunique() > 1
        name = f"correlations_{position}" if several else "correlations"
        figures[name] = correlation_heatmaps(table, title=title)
    figures["best_correlations"] = best_correlation_map(asked if len(asked) else each, title=title)
    if len(each):
        figures["positions"] = position_maps(each, title=title)
    heading: dict[str, Any] = {"title": title, "level": level}
    evidence = tables.get("evidence", pd.DataFrame())
    if len(evidence):
        figures["evidence"] = evidence_maps(evidence, **heading)
    figures |= _of_edits(tables, evidence, heading)
    curves = tables.get("locality_curves", pd.DataFrame())
    if len(curves):
        figures["locality_example"] = locality_example(curves, title=title)
        if "distance" in set(curves["kind"]):
            figures["locality_distance"] = locality_distance(curves, title=title)
    return figures


def _of_edits(
    tables: Mapping[str, pd.DataFrame], evidence: pd.DataFrame, heading: dict[str, Any]
) -> dict[str, Figure]:
    """The figures of a run's intervention."""
    figures: dict[str, Figure] = {}
    effects = tables.get("effects", pd.DataFrame())
    if len(effects):
        manifold, contrasts, draws = (
            tables.get(name) for name in ("manifold", "contrasts", "control_draws")
        )
        figures["dose_response"] = dose_response(effects, manifold, **heading)
        figures["mean_shift"] = dose_response(effects, manifold, response=SHIFT, **heading)
        figures["accuracy_by_layer"] = accuracy_by_layer(effects, contrasts, draws, **heading)
    counterfactual = tables.get("counterfactual", pd.DataFrame())
    if len(counterfactual) and len(agreements_drawn(counterfactual, evidence)):
        figures["counterfactual"] = counterfactual_agreement(counterfactual, evidence, **heading)
    specificity = tables.get("specificity", pd.DataFrame())
    if len(specificity) and len(slopes_at_best(specificity, evidence)):
        figures["specificity"] = specificity_maps(specificity, evidence, title=heading["title"])
    return figures


def save_figures(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Save each figure as a PNG file under its name, which loses what a file name cannot hold.

    Raises:
        ValueError: two names become the same file.
    """
    paths = {name: directory / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.png" for name in figures}
    if len(set(paths.values())) < len(paths):
        raise ValueError(f"expected figures with different file names, got {list(figures)}")
    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        temporary = paths[name].with_suffix(".tmp")
        try:
            figure.savefig(temporary, dpi=DPI, format="png")
            os.replace(temporary, paths[name])
        finally:
            temporary.unlink(missing_ok=True)
    return list(paths.values())
