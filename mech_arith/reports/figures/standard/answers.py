"""What edits towards other values do to answers."""

from collections.abc import Iterator

import pandas as pd

from mech_arith.evidence.results import slopes_at_best, tokens_at_best
from mech_arith.reports.figures.answer_tokens import answer_token_maps
from mech_arith.reports.figures.counterfactual import (
    counterfactual_iia,
    iias_drawn,
    specificity_maps,
)
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("answers")
def answers(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """How often answers are the other value's, and which values they follow."""
    evidence = tables.get("evidence", pd.DataFrame())
    followed = tables.get("counterfactual", pd.DataFrame())
    if len(followed) and len(iias_drawn(followed, evidence)):
        about = {"title": title, "level": level}
        yield Drawing("counterfactual", counterfactual_iia, (followed, evidence), about)
    tokens = tables.get("answer_tokens", pd.DataFrame())
    if len(tokens) and len(tokens_at_best(tokens, evidence)):
        about = {"title": title, "level": level}
        yield Drawing("answer_tokens", answer_token_maps, (tokens, evidence), about)
    slopes = tables.get("specificity", pd.DataFrame())
    if len(slopes) and len(slopes_at_best(slopes, evidence)):
        yield Drawing("specificity", specificity_maps, (slopes, evidence), {"title": title})
