"""What edits do to accuracy and to answers."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.reports.figures.drops import accuracy_by_layer
from mech_arith.reports.figures.effects import SHIFT, dose_response
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("effects")
def effects(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """By strength and by layer."""
    table = tables.get("effects", pd.DataFrame())
    if not len(table):
        return
    heading = {"title": title, "level": level}
    off_distribution, contrasts, draws = (
        tables.get(name) for name in ("off_distribution", "contrasts", "control_draws")
    )
    of_strength = (table, off_distribution)
    yield Drawing("dose_response", dose_response, of_strength, heading)
    yield Drawing("mean_shift", dose_response, of_strength, heading | {"response": SHIFT})
    yield Drawing("accuracy_by_layer", accuracy_by_layer, (table, contrasts, draws), heading)
