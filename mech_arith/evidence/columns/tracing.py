"""Columns of the tables of tracing and of the locality test."""

from mech_arith.evidence.columns.base import (
    ACTIVATION,
    FLAG,
    NUMBER,
    SHARE,
    TEXT,
    WHOLE,
    Column,
    with_interval,
)
from mech_arith.evidence.columns.shared import COMPONENT, RANK, SITE, VALUE

CORRELATIONS = (
    *SITE,
    Column("position_index", WHOLE, "Index of the position, if it is the same one in all prompts."),
    Column("token", TEXT, "What stands there, if it is the same in all prompts."),
    Column("position_reason", TEXT, "Why there is no `position_index`."),
    COMPONENT,
    RANK,
    VALUE,
    *with_interval(
        "r",
        "Pearson's R of coordinate and value on the report split.",
        group="best",
        is_logged=True,
    ),
    Column("abs_r", NUMBER, "|R| on the report split.", group="best", is_logged=True),
    Column(
        "r_passed", NUMBER, "R on the report problems that the model answers right.", group="best"
    ),
    Column("r_fit", NUMBER, "R on the fit split, by which components are chosen."),
    Column("chosen", FLAG, "The fit split chooses this component for this value."),
    Column("p", NUMBER, "Permutation p of this R, corrected for nothing.", group="best"),
    Column(
        "p_holm",
        NUMBER,
        "`p` of a chosen component, corrected by Holm's method; else null.",
        group="best",
        is_logged=True,
    ),
    Column("p_bh", NUMBER, "`p` corrected by Benjamini and Hochberg's method.", group="best"),
    Column("p_site", NUMBER, "Permutation p of the largest |R| of the value at the site."),
    Column("p_site_holm", NUMBER, "`p_site` corrected by Holm's method.", group="best"),
    Column("partial_r", NUMBER, "R with all other independent values held fixed.", group="best"),
    Column("partial_r_undefined", TEXT, "Why there is no `partial_r`."),
    Column(
        "least_partial_r",
        NUMBER,
        "R with one other value held fixed, the smallest such |R|.",
        group="best",
        is_logged=True,
    ),
    Column("least_partial_given", TEXT, "That other value.", group="best"),
    Column(
        "shapley", NUMBER, "The value's share of the coordinate's variance (Shapley).", group="best"
    ),
    Column(
        "explained_variance",
        NUMBER,
        "The component's share of the activations' variance on the report split.",
    ),
    Column("explained_variance_fit", NUMBER, "The same on the fit split."),
    Column("n_fit", WHOLE, "Problems of the fit split."),
    Column("n_report", WHOLE, "Problems of the report split."),
)

SUBSPACES = (
    *(column for column in CORRELATIONS if not column.name.startswith(("position_", "token"))),
    Column(
        "decoding_r2",
        NUMBER,
        "Share of the value's variance on the report split that is read from the subspace, by a "
        "line in its coordinates that is fitted on the fit split.",
    ),
    Column(
        "control_r2",
        NUMBER,
        "The same of the control task: the method fitted to a random function of the operands; "
        "null for a method that uses no values.",
    ),
    Column(
        "n_classes",
        WHOLE,
        "Numbers that the value has, where it is a step of a hypothesis with 10 or fewer: such a "
        "value is judged by its classes, and not by R; else null.",
    ),
    *with_interval(
        "class_accuracy",
        "Share of report problems whose class is told right from the subspace (linear "
        "discriminants, 5-fold cross-validation).",
        SHARE,
    ),
    Column("class_chance", NUMBER, "The same by always telling the most frequent class.", SHARE),
    Column("class_p", NUMBER, "One-sided binomial p of `class_accuracy` above `class_chance`."),
    Column("class_p_holm", NUMBER, "`class_p` corrected for all sites, ranks and values (Holm)."),
    Column("selectivity", NUMBER, "`decoding_r2` minus `control_r2`, neither counted below 0."),
    Column(
        "periods",
        TEXT,
        "Periods of the circles that the subspace's directions were found for, in their order, as "
        "`97/12 97/35` (the frequencies 12 and 35 of 97); empty for methods other than `fourier`.",
    ),
)

LEARNING = (
    *SITE,
    RANK,
    VALUE,
    Column(
        "task",
        TEXT,
        "What the training goes towards: the `value`, or its `control` (a random function of the "
        "operands in its place).",
    ),
    Column("restart", WHOLE, "Number of the training, each from a random subspace of its own."),
    Column("step", WHOLE, "Steps before this look at the held-out pairs."),
    Column("loss", NUMBER, "Mean loss over the steps since the look before."),
    Column("held_out_loss", NUMBER, "Loss on the held-out pairs of the fit split."),
    Column("loss_unit", TEXT, "Unit of both."),
    Column("kept", FLAG, "Whether the subspace of this look is the one that is kept."),
)

LOCALITY_PLACE = (
    *SITE,
    COMPONENT,
    RANK,
    VALUE,
    Column("moved_by", TEXT, "Operand by which the value is really moved in the input."),
)

LOCALITY = (
    *LOCALITY_PLACE,
    Column("r", NUMBER, "R of the predicted and the actual function."),
    Column("r2", NUMBER, "R squared of the actual function by the predicted one."),
    Column("r_floor", NUMBER, "`r` with places in random order."),
    Column("r2_floor", NUMBER, "`r2` with places in random order."),
    Column("p_trend", NUMBER, "Share of random orders with an `r` as large."),
    Column("covered", NUMBER, "Share of places that both functions cover."),
    Column("n_problems", WHOLE, "Problems over which the functions are compared."),
    Column("reason", TEXT, "Why the functions could not be compared."),
)

LOCALITY_CURVES = (
    Column("kind", TEXT, "f_p, f_a, or their distance."),
    Column("problem", WHOLE, "Row of the problem; -1 for the distance over all problems."),
    Column("x", NUMBER, "The value, or how far it is from its own for the distance."),
    Column("y", NUMBER, "The coordinate, or the median distance.", ACTIVATION),
    Column("low", NUMBER, "First quartile of the distance.", ACTIVATION),
    Column("high", NUMBER, "Third quartile of the distance.", ACTIVATION),
    *LOCALITY_PLACE,
    Column("original", NUMBER, "The problem's own value."),
    Column("observed_low", NUMBER, "Smallest observed coordinate.", ACTIVATION),
    Column("observed_high", NUMBER, "Largest observed coordinate.", ACTIVATION),
)
