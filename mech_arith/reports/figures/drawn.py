"""Which rows of the tables of edits are drawn: one direction per value and layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.engine.sites import COMPONENT_COLUMNS, WITHIN_LAYER
from mech_arith.evidence.best import of_least_rank
from mech_arith.evidence.results import per_value
from mech_arith.reports.figures.sharing import rank_note, served, sites_note
from mech_arith.reports.figures.style import distinct, records

ARMS = ("control", "target")
"""In the order in which they lie over each other."""

DIRECTION = [*WITHIN_LAYER, "component", "target_value"]
"""What tells directions at one layer apart, beside the values that they were chosen for."""

PLACE = ("layer", *DIRECTION)
"""What tells a direction from others."""

CONTROL_LABEL = "control: random directions, moved as far"


def drawn(effects: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows to draw, one direction per value and layer, and a line that says what they are.

    Of the controls the random directions alone: the others stand in the tables.

    Raises:
        ValueError: no row has status 'ok'.
    """
    compared = of_least_rank(effects.loc[effects["arm"].isin(ARMS)])
    whole = per_value(compared.loc[compared["status"] == "ok"])
    if whole.empty:
        raise ValueError("expected effects with status 'ok', got none; see their column `reason`")
    site = ["value", "layer"]
    targets = whole.loc[whole["arm"] == "target"].sort_values("accuracy_drop", kind="stable")
    chosen = targets.drop_duplicates(site, keep="last")[site + DIRECTION]
    arms = whole.merge(chosen, on=site + DIRECTION).sort_values("strength", kind="stable")
    notes = [
        sites_note(whole, "the one with the largest drop"),
        *rank_note(effects),
        f"{max(distinct(arms, 'n'))} problems per point",
    ]
    if failed := compared["status"].tolist().count("failed"):
        notes.append(f"failed rows left out: {failed}")
    return arms, "; ".join(notes)


def shared_components(arms: pd.DataFrame) -> dict[tuple[Any, ...], list[str]]:
    """Of the rows that are drawn, the components that serve several values."""
    columns = [*COMPONENT_COLUMNS, "value"]
    return served(records(arms.loc[arms["arm"] == "target", columns].drop_duplicates()))


def in_order(arms: pd.DataFrame) -> list[str]:
    """The values, the plain before the composed: a, b, c, b-c, a-(b-c)."""
    return sorted(distinct(arms, "value"), key=lambda value: (len(value), value))


def outside_shares(
    arms: pd.DataFrame, off_distribution: pd.DataFrame | None
) -> Mapping[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """By value and layer the strengths, and the share of edits outside the observed range."""
    if off_distribution is None or off_distribution.empty:
        return {}
    same = ["value", *COMPONENT_COLUMNS, "strength"]
    targets = arms.loc[arms["arm"] == "target", same]
    found: dict[tuple[str, int], dict[float, list[float]]] = {}
    for row in records(targets.merge(per_value(off_distribution), on=same)):
        of_panel = found.setdefault((row["value"], row["layer"]), {})
        of_panel.setdefault(row["strength"], []).append(row["outside_range"])
    return {
        panel: (np.array(sorted(shares)), np.array([np.mean(shares[s]) for s in sorted(shares)]))
        for panel, shares in found.items()
    }
