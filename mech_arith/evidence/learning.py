"""What a trained method went through: its learning curves, and where they ended."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mech_arith.directions.base import LEARNING
from mech_arith.directions.tracing import Trace
from mech_arith.engine.sites import SITE_COLUMNS, Site

VALUE, CONTROL_TASK = "value", "control"
"""What a training went towards."""


def learning_tables(traces: Mapping[Site, Trace], *, regresses: bool) -> dict[str, pd.DataFrame]:
    """A row per site, value, rank, task, training and look at the held-out pairs.

    No table for a method that is not trained.
    """
    if not any(found.learning for found in traces.values()):
        return {}
    parts = [
        pd.DataFrame(curves.numpy(), columns=list(LEARNING)).assign(
            **site.columns(),
            value=lambda rows, names=found.values: [names[int(index)] for index in rows["value"]],
            task=CONTROL_TASK if task else VALUE,
        )
        for site, found in traces.items()
        for task, curves in found.learning.items()
        if len(curves)
    ]
    if not parts:
        return {"learning": pd.DataFrame()}
    whole = {"rank": int, "restart": int, "step": int, "kept": bool}
    unit = "squared standard deviations" if regresses else "nats"
    return {"learning": pd.concat(parts, ignore_index=True).astype(whole).assign(loss_unit=unit)}


def learning_summary(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Per value the training with the smallest held-out loss, of all sites and ranks.

    Beside it the control task's loss at the same site and rank.
    """
    if "learning" not in tables or tables["learning"].empty:
        return {}
    table = tables["learning"]
    table = table.loc[table["kept"]]
    own = table.loc[table["task"] == VALUE]
    control = table.loc[table["task"] == CONTROL_TASK]
    place = [*SITE_COLUMNS, "value", "rank"]
    losses = control.set_index(place)["held_out_loss"].rename("control_held_out_loss")
    beside = own.join(losses, on=place)
    best = beside.loc[beside.groupby("value")["held_out_loss"].idxmin()]
    shown = [*SITE_COLUMNS, "rank", "step", "held_out_loss", "control_held_out_loss", "loss_unit"]
    rows = best.set_index("value")[shown].to_dict(orient="index")
    return {"learning": rows}
