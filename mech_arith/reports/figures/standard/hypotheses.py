"""Which of rival hypotheses the answers follow."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.evidence.hypothesis_summary import at_best
from mech_arith.reports.figures.hypotheses import rival_hypotheses
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("hypotheses")
def hypotheses(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """One figure, where rivals were compared."""
    table = tables.get("hypotheses", pd.DataFrame())
    evidence = tables.get("evidence", pd.DataFrame())
    if len(table) and max(at_best(table, evidence)["n_distinguishing"], default=0) > 0:
        given, about = (table, evidence), {"title": title, "level": level}
        yield Drawing("hypotheses", rival_hypotheses, given, about)
