"""Figures that a person can read, drawn from the tables of a run and nothing else."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
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
from mech_arith.figures.layout import laid_out
from mech_arith.figures.locality import locality_distance, locality_example
from mech_arith.figures.saving import NUMBERS, PRINTED_DPI, Files, file, write
from mech_arith.figures.sheet import DPI
from mech_arith.papers import Page
from mech_arith.results import slopes_at_best

__all__ = [
    "accuracy_by_layer",
    "best_correlation_map",
    "cell_figures",
    "correlation_heatmaps",
    "counterfactual_agreement",
    "dose_response",
    "draw_cell",
    "evidence_maps",
    "heading",
    "locality_distance",
    "locality_example",
    "position_maps",
    "save_figures",
    "specificity_maps",
]

PNG_ALONE = Page()

MOST_KEPT = 64
"""Drawn figures that a process keeps for its next cells, about 60 kB each."""


@dataclass(frozen=True)
class _Drawing:
    """A figure that is yet to be drawn, and all that it is drawn from."""

    draw: Callable[..., Figure]
    tables: tuple[pd.DataFrame | None, ...]
    about: dict[str, Any] = field(default_factory=dict)

    def figure(self) -> Figure:
        return self.draw(*self.tables, **self.about)

    def key(self, digests: dict[int, bytes]) -> bytes:
        """Equal for drawings that look the same; `digests` are those of tables seen before."""
        about = f"{self.draw.__module__}.{self.draw.__qualname__} {sorted(self.about.items())}"
        found = hashlib.blake2b(about.encode())
        for table in self.tables:
            if id(table) not in digests:
                digests[id(table)] = _digest(table)
            found.update(digests[id(table)])
        return found.digest()


_KEPT: OrderedDict[tuple[bytes, Page], Files] = OrderedDict()
"""The files of drawings by their keys, the latest last."""


def draw_cell(
    tables: Mapping[str, pd.DataFrame],
    directory: Path,
    *,
    title: str,
    level: float = 0.95,
    on: Page = PNG_ALONE,
) -> list[Path]:
    """Draw all figures that a run's tables have the rows for, each in every format of the page.

    Beside each stands NAME.csv, the numbers that it shows.

    Cells of a sweep often share tables: what this process has drawn before is not drawn again.

    Args:
        tables: by name: `correlations`, and what else the run made.
        directory: where to.
        title: stands over every figure; model and template.
        level: of the tables' intervals.
        on: formats and width.
    """
    digests: dict[int, bytes] = {}
    files: dict[str, Files] = {}
    for name, drawing in _drawings(tables, title, level).items():
        key = drawing.key(digests), on
        if key not in _KEPT:
            with laid_out(on):
                _KEPT[key] = _files(drawing.figure(), on)
        _KEPT.move_to_end(key)
        files[name] = _KEPT[key]
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return write(files, directory)


def cell_figures(
    tables: Mapping[str, pd.DataFrame], *, title: str, level: float = 0.95
) -> dict[str, Figure]:
    """All figures that a run's tables have the rows for, by name; see `draw_cell`."""
    return {name: drawing.figure() for name, drawing in _drawings(tables, title, level).items()}


def _drawings(tables: Mapping[str, pd.DataFrame], title: str, level: float) -> dict[str, _Drawing]:
    """What is to be drawn of a run."""
    named, heading = {"title": title}, {"title": title, "level": level}
    correlations = tables["correlations"]
    single = single_positions(correlations)
    asked, each = correlations.loc[~single], correlations.loc[single]
    if asked.empty and each["position"].nunique() == 1:
        asked, each = each, asked
    found: dict[str, _Drawing] = {}
    for position, table in asked.groupby("position", sort=False):
        several = asked["position"].nunique() > 1
        name = f"correlations_{position}" if several else "correlations"
        found[name] = _Drawing(correlation_heatmaps, (table,), named)
    best = asked if len(asked) else each
    found["best_correlations"] = _Drawing(best_correlation_map, (best,), named)
    if len(each):
        found["positions"] = _Drawing(position_maps, (each,), named)
    evidence = tables.get("evidence", pd.DataFrame())
    if len(evidence):
        found["evidence"] = _Drawing(evidence_maps, (evidence,), heading)
    found |= _of_edits(tables, evidence, heading)
    curves = tables.get("locality_curves", pd.DataFrame())
    if len(curves):
        found["locality_example"] = _Drawing(locality_example, (curves,), named)
        if "distance" in set(curves["kind"]):
            found["locality_distance"] = _Drawing(locality_distance, (curves,), named)
    return found


def _of_edits(
    tables: Mapping[str, pd.DataFrame], evidence: pd.DataFrame, heading: dict[str, Any]
) -> dict[str, _Drawing]:
    """The figures of a run's intervention."""
    found: dict[str, _Drawing] = {}
    effects = tables.get("effects", pd.DataFrame())
    if len(effects):
        manifold, contrasts, draws = (
            tables.get(name) for name in ("manifold", "contrasts", "control_draws")
        )
        found["dose_response"] = _Drawing(dose_response, (effects, manifold), heading)
        found["mean_shift"] = _Drawing(
            dose_response, (effects, manifold), heading | {"response": SHIFT}
        )
        found["accuracy_by_layer"] = _Drawing(
            accuracy_by_layer, (effects, contrasts, draws), heading
        )
    counterfactual = tables.get("counterfactual", pd.DataFrame())
    if len(counterfactual) and len(agreements_drawn(counterfactual, evidence)):
        found["counterfactual"] = _Drawing(
            counterfactual_agreement, (counterfactual, evidence), heading
        )
    specificity = tables.get("specificity", pd.DataFrame())
    if len(specificity) and len(slopes_at_best(specificity, evidence)):
        found["specificity"] = _Drawing(
            specificity_maps, (specificity, evidence), {"title": heading["title"]}
        )
    return found


def save_figures(
    figures: Mapping[str, Figure], directory: Path, on: Page = PNG_ALONE
) -> list[Path]:
    """Save each figure under its name in each format, and the numbers that it shows as CSV.

    Raises:
        ValueError: two names become the same file.
    """
    return write({name: partial(_files, figure, on) for name, figure in figures.items()}, directory)


def heading(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What stands over the figures of a finished run: `title` and `level` of `draw_cell`."""
    cell = summary["cell"]
    title = f"{cell['model']}, {cell['expression']}"
    return {"title": title, "level": summary["inference"]["level"]}


def _files(figure: Figure, on: Page) -> Files:
    dpi = DPI if on.width is None else PRINTED_DPI
    suffixes = [*on.formats, *([NUMBERS] if getattr(figure, "rows", None) else [])]
    return {suffix: file(figure, suffix, dpi=dpi) for suffix in suffixes}


def _digest(table: pd.DataFrame | None) -> bytes:
    """Equal for tables with the same columns, types and rows."""
    found = hashlib.blake2b()
    if table is not None:
        plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
        with pa.ipc.new_stream(sink := pa.BufferOutputStream(), plain.schema) as writer:
            writer.write_table(plain)
        found.update(sink.getvalue())
    return found.digest()
