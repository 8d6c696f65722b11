"""What the page shows of one cell, out of its tables and its summary."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from mech_arith.evidence.results import RunResult
from mech_arith.reports.page.compact import Plain, edited, overview_lines, traced
from mech_arith.reports.page.evidence import (
    evidence_rows,
    headline_rows,
    rank_lines,
    specificity_maps,
    token_maps,
)

SHOWN = ("correlations", "effects", "evidence", "answer_tokens", "specificity")
"""Tables that a cell's page is made from."""


def cell_page(result: RunResult) -> Plain:
    """What a cell's own page shows."""
    evidence = result.tables.get("evidence", pd.DataFrame())
    return {
        "traced": traced(
            result.tables.get("correlations", pd.DataFrame()), result.summary["cell"]["positions"]
        ),
        "edited": edited(result.tables.get("effects", pd.DataFrame())),
        "ranks": rank_lines(evidence),
        "evidence": evidence_rows(evidence),
        "tokens": token_maps(result.tables.get("answer_tokens", pd.DataFrame()), evidence),
        "specificity": specificity_maps(result.tables.get("specificity", pd.DataFrame()), evidence),
        "config": result.config_yaml,
        "summary": result.summary,
    }


IMAGES = (".png", ".svg")
"""What a browser shows; the first that a figure has."""


def figure_links(run: Path, page: Path) -> list[list[str]]:
    """Name and relative address of every figure that lies in a run's directory.

    The page does not hold them: a sweep's figures are many times as large as its numbers.

    Args:
        run: directory of the run.
        page: directory of the page.
    """
    found: dict[str, Path] = {}
    for suffix in IMAGES:
        for path in sorted((run / "figures").glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
    root = page.resolve()
    return [
        [name, quote(Path(os.path.relpath(path.resolve(), root)).as_posix())]
        for name, path in sorted(found.items())
    ]


def cell_overview(page: Plain, summary: Mapping[str, Any]) -> Plain:
    """What the page that shows all cells needs of one of them."""
    return {
        "baseline": [
            summary.get(name)
            for name in ("baseline_accuracy", "majority_floor", "above_floor_p", "n_report")
        ],
        "best": _found(summary, "best", ("abs_r", "r_passed", "p_holm"), ("layer", "component")),
        "searched": [summary.get("n_searched"), summary.get("n_edits_searched")],
        "drops": _found(
            summary,
            "largest_drop",
            ("accuracy_drop", "control_drop", "baseline_accuracy"),
            ("layer", "strength"),
        ),
        "headline": headline_rows(page["evidence"], summary),
        "map": page["traced"]["best"],
        "edit": [page["edited"].get("edit"), page["edited"].get("unit")],
        "lines": overview_lines(page["edited"]),
        "ranks": page["ranks"],
        "hypotheses": summary.get("hypotheses") or {},
        "alignments": summary.get("alignments") or {},
    }


def _found(
    summary: Mapping[str, Any], name: str, may_miss: Sequence[str], needed: Sequence[str]
) -> Plain:
    """What a summary says of each value; the page counts on its numbers.

    Raises:
        TypeError: it is something else than a mapping of numbers per value.
        KeyError: a number is not there.
    """
    found = dict(summary.get(name) or {})
    for value, numbers_of in found.items():
        known = {key: numbers_of[key] for key in needed}
        known |= {key: numbers_of.get(key) or 0 for key in may_miss}
        for key, number in known.items():
            if not isinstance(number, int | float):
                raise TypeError(
                    f"expected a number as {key} of {value!r} in {name}, got {number!r}"
                )
    return found
