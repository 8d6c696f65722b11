"""Columns of the tables of a screen."""

from mech_arith.evidence.columns.base import FLAG, NUMBER, TEXT, WHOLE, Column, with_interval
from mech_arith.evidence.columns.shared import COMPONENT, SITE

METRIC = Column(
    "metric",
    TEXT,
    "What effects are measured on: `log_prob` of the right answer (nats), `logit_difference` of "
    "right and source's answer (logits), or the `number` towards the source's answer.",
)

SCORED = (
    Column(
        "score",
        NUMBER,
        "Mean first-order change of the metric where the source's activation is put in place, on "
        "the fit split.",
        "units of the metric",
    ),
    Column("place", WHOLE, "Place among all candidates by the size of `score`, from 1."),
)

MEASURED = (
    *with_interval(
        "effect",
        "Mean exact change of the metric, on the report split; null where it was not measured.",
        "units of the metric",
    ),
    METRIC,
    Column("steps", WHOLE, "Steps of integrated gradients; 0 for gradients at the base alone."),
    Column("n_fit", WHOLE, "Pairs of problem and source that `score` is a mean over."),
    Column("n_report", WHOLE, "The same of `effect`."),
)

SCREEN = (
    *SITE,
    Column("position_index", WHOLE, "Index of the position, if it is the same one in all prompts."),
    Column("token", TEXT, "What stands there, if it is the same in all prompts."),
    *SCORED,
    Column("kept", FLAG, "Whether the site is among those that are traced and edited."),
    Column("sampled", FLAG, "Whether it was drawn, whatever its score, to compare both numbers."),
    *MEASURED,
)

SCREEN_DIRECTIONS = (*SITE, COMPONENT, *SCORED, *MEASURED)
"""Of every direction at the sites that are kept."""
