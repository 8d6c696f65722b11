"""How large a subspace has to be for the answer to follow a value."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.evidence.ranks import by_rank
from mech_arith.reports.figures.ranks import iia_by_rank
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("ranks")
def ranks(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """One figure, where subspaces of several ranks were interchanged."""
    evidence = tables.get("evidence", pd.DataFrame())
    if len(by_rank(evidence)):
        given = evidence, tables.get("counterfactual")
        yield Drawing("iia_by_rank", iia_by_rank, given, {"title": title, "level": level})
