"""The paper's locality test."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.evidence.best import of_least_rank
from mech_arith.reports.figures.locality import locality_distance, locality_example
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("locality")
def locality(tables: Tables, title: str, _level: float) -> Iterator[Drawing]:
    """Curves of one coordinate, and how far others move with it."""
    curves = of_least_rank(tables.get("locality_curves", pd.DataFrame()))
    if len(curves):
        yield Drawing("locality_example", locality_example, (curves,), {"title": title})
        if "distance" in set(curves["kind"]):
            yield Drawing("locality_distance", locality_distance, (curves,), {"title": title})
