"""Columns that several tables have, and the reasons that stand in several meanings."""

from mech_arith.evidence.columns.base import NUMBER, SHARE, TEXT, TEXTS, WHOLE, Column

LAYER = Column("layer", WHOLE, "Layer, counted from 0.")
POINT = Column("point", TEXT, "Point within the layer where the activation is read and edited.")
POSITION = Column("position", TEXT, "Positions of the prompt, by the name that was asked for.")
COMPONENT = Column("component", WHOLE, "Direction of the subspace, from 0 in the method's order.")
RANK = Column(
    "rank",
    WHOLE,
    "Directions of the subspace: 1 for a single component, otherwise `component` is the first.",
    absent=1,
)
VALUE = Column("value", TEXT, "Value of the problem: an operand, a sub-expression or the answer.")
EDIT = Column("edit", TEXT, "Rule of the edit, by its name.")
STRENGTH = Column("strength", NUMBER, "How far the edit goes, in the unit of the edit.")
STRENGTH_UNIT = Column("strength_unit", TEXT, "Unit of `strength`.")
ARM = Column("arm", TEXT, "What was edited along: the target, or a kind of control directions.")
N_DIRECTIONS = Column("n_directions", WHOLE, "Subspaces of the arm, over which numbers are means.")
N = Column("n", WHOLE, "Edited problems that the row is about.")
N_SOURCES = Column("n_sources", WHOLE, "Counterfactual problems of each edited problem.")

SITE = (LAYER, POINT, POSITION)
"""What names a site, as `sites.Site` does."""

EDITED_DIRECTION = (
    *SITE,
    COMPONENT,
    RANK,
    Column("chosen_for", TEXTS, "Values for which the fit split chooses this subspace."),
    Column(
        "target_value",
        TEXT,
        "Value that the coordinate is moved to; null for other edits.",
        was=("towards",),
    ),
)

MADE_BY = (
    Column("model", TEXT, "Name of the model."),
    Column("template", TEXT, "Name of the template of the problems."),
    Column("expression", TEXT, "Expression that the problems ask for."),
    Column("prompt", TEXT, "Style and examples of the prompt; null for a model with one way."),
    Column("seed", WHOLE, "Seed of the problems."),
    Column("dtype", TEXT, "Number format in which the model ran."),
    Column("weights_digest", TEXT, "SHA-256 of the model's weights."),
    Column("identity", TEXT, "SHA-256 of all that determines the cell's numbers."),
)
"""At the end of every table of a cell: what made its rows."""

VIA = Column("via", TEXT, "What was edited: activations, or the weights that write them.")


IIA = (
    "Interchange-intervention accuracy: share of edited answers that equal the answer with the "
    "value replaced."
)
FOLLOWING = (
    "Change of the answer per change expected, given the base problem: 1 where the answer follows "
    "the value, 0 where it does not, as where it is destroyed."
)
EXPLAINED = "Share of the answer's change, beyond the base problem, that this line explains."
CHANCE = "Share of draws of other sources, the real ones among them, that agree as often or more."
CEILING = "IIA where the whole activation of the site is taken from the first source."
WRONG_WAY = Column(
    "wrong_way",
    NUMBER,
    "Share of problems whose own slope, over their sources, is below 0; null for one source.",
    SHARE,
)

RANDOM_ARMS = {
    "valueless": "directions within the components' span that carry no value",
    "span": "random directions within the components' span",
    "random": "random directions of the whole space",
}
"""Kinds of drawn directions -> what they are."""
