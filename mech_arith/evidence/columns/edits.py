"""Columns of the tables of interventions."""

from mech_arith.evidence.columns.base import (
    ACTIVATION,
    ANSWER,
    NUMBER,
    SHARE,
    TEXT,
    TEXTS,
    WHOLE,
    Column,
    with_interval,
)
from mech_arith.evidence.columns.shared import (
    ARM,
    CEILING,
    CHANCE,
    COMPONENT,
    EDIT,
    EDITED_DIRECTION,
    EXPLAINED,
    FOLLOWING,
    IIA,
    N_DIRECTIONS,
    N_SOURCES,
    RANK,
    SITE,
    STRENGTH,
    STRENGTH_UNIT,
    VALUE,
    VIA,
    WRONG_WAY,
    N,
)

OUTCOME = (
    Column("baseline_accuracy", NUMBER, "Accuracy without an edit.", SHARE),
    *with_interval("edited_accuracy", "Accuracy under the edit.", SHARE),
    Column("n_passed", WHOLE, "Edited problems that the model answers right without an edit."),
    Column("edited_accuracy_passed", NUMBER, "Accuracy under the edit among those.", SHARE),
    *with_interval("mean_shift", "Mean of edited minus clean answer.", ANSWER),
    *with_interval("mean_abs_shift", "Mean distance of edited and clean answer.", ANSWER),
    Column("not_a_number", NUMBER, "Share of edited answers that are no number.", SHARE),
    Column("r2", NUMBER, "R squared of edited answers against the right ones."),
    Column("median_abs_error", NUMBER, "Median distance of edited and right answer.", ANSWER),
    Column("baseline_digit_accuracy", NUMBER, "Share of right digits without an edit."),
    Column("edited_digit_accuracy", NUMBER, "Share of right digits under the edit."),
    Column("baseline_right_probability", NUMBER, "Mean probability of the right answer, clean."),
    Column("edited_right_probability", NUMBER, "Mean probability of the right answer, edited."),
    Column(
        "baseline_logit_difference",
        NUMBER,
        "Mean logit of the right minus a counterfactual answer, clean.",
        "logits",
    ),
    Column("edited_logit_difference", NUMBER, "The same under the edit.", "logits"),
    *with_interval("accuracy_drop", "Baseline minus edited accuracy.", SHARE),
    Column("accuracy_drop_passed", NUMBER, "Drop among the problems answered right.", SHARE),
)

EFFECTS = (
    *EDITED_DIRECTION,
    Column("direction", TEXT, "What the edit is made along, in words."),
    ARM,
    N_DIRECTIONS,
    EDIT,
    STRENGTH,
    STRENGTH_UNIT,
    Column(
        "coordinate_mean",
        NUMBER,
        "Mean coordinate of the target after the edit; null for other arms and ranks above 1.",
        ACTIVATION,
    ),
    Column("change_rms", NUMBER, "Root mean square of the distance moved.", ACTIVATION),
    N,
    *OUTCOME,
    Column(
        "excess_drop",
        NUMBER,
        "The target's drop minus the mean drop of random directions of the whole space; null for "
        "other arms.",
        SHARE,
    ),
    Column("excess_low", NUMBER, "Lower end of the interval of `excess_drop`.", SHARE),
    Column("excess_high", NUMBER, "Upper end of the interval of `excess_drop`.", SHARE),
    Column("excess_p", NUMBER, "p of the target's drop, by rank among those directions' drops."),
    Column(
        "excess_n_draws",
        WHOLE,
        "Directions that `excess_p` is of: those up to the one that decided it where draws stop "
        "early; null for other arms.",
    ),
    Column("status", TEXT, "ok, or failed."),
    Column("reason", TEXT, "Why it failed."),
    VIA,
)

CONTRASTS = (
    *EDITED_DIRECTION,
    EDIT,
    ARM,
    N_DIRECTIONS,
    Column("n_strengths", WHOLE, "Strengths that move anything, over which drops are means."),
    N,
    Column("target_drop", NUMBER, "Accuracy drop of the target, mean over strengths.", SHARE),
    Column(
        "arm_drop",
        NUMBER,
        "Accuracy drop of the arm, mean over its directions and over strengths.",
        SHARE,
    ),
    Column("excess_drop", NUMBER, "The target's drop minus the arm's.", SHARE),
    Column("low", NUMBER, "Lower end of the interval of `excess_drop`.", SHARE),
    Column("high", NUMBER, "Upper end of the interval of `excess_drop`.", SHARE),
    Column(
        "p",
        NUMBER,
        "p of `target_drop`, by rank among the arm's; null for arms that are not drawn.",
    ),
    Column(
        "p_max",
        NUMBER,
        "`p` corrected for the search among all targets, against directions of the arm's kind "
        "(max-T; Holm where draws stop early); null for arms that are not drawn.",
    ),
    Column(
        "n_draws",
        WHOLE,
        "Directions that `p` is of: those up to the one that decided it where draws stop early, "
        "all of them otherwise; 0 for arms that are not drawn.",
    ),
    Column(
        "p_least",
        NUMBER,
        "The smallest `p_max` that is possible with as many directions as might be drawn; null "
        "for arms that are not drawn.",
    ),
    VIA,
)

CONTROL_DRAWS = (
    *EDITED_DIRECTION,
    ARM,
    Column("draw", WHOLE, "Number of the control direction within its arm, from 0."),
    Column("direction", TEXT, "What the direction is, in words."),
    EDIT,
    STRENGTH,
    Column("accuracy_drop", NUMBER, "Accuracy drop along it.", SHARE),
    Column("mean_abs_shift", NUMBER, "Mean distance of edited and clean answer.", ANSWER),
    VIA,
)

COUNTERFACTUAL = (
    *EDITED_DIRECTION,
    VALUE,
    EDIT,
    STRENGTH,
    ARM,
    N_DIRECTIONS,
    N,
    N_SOURCES,
    *with_interval("iia", IIA, SHARE),
    Column("floor", NUMBER, "`iia` with other sources, drawn by chance.", SHARE),
    Column("p", NUMBER, CHANCE),
    *with_interval("slope", FOLLOWING),
    Column("r2_change", NUMBER, EXPLAINED),
    Column(
        "monotonicity",
        NUMBER,
        "Kendall's tau of expected and edited answers over the sources of a problem; null for one "
        "source.",
    ),
    WRONG_WAY,
    Column("own_slope_25", NUMBER, "First quartile of the problems' own slopes."),
    Column("own_slope_50", NUMBER, "Median of the problems' own slopes; null for one source."),
    Column("own_slope_75", NUMBER, "Third quartile of the problems' own slopes."),
    *with_interval("ceiling", CEILING, SHARE),
    Column("ceiling_reason", TEXT, "Why there is no `ceiling`."),
    Column(
        "p_holm",
        NUMBER,
        "`p` of the target, corrected for all targets of the same strength (Holm); null for other "
        "arms.",
    ),
    VIA,
)

OF_TOKEN = f"{IIA[:-1]}, in this token of the answer."

ANSWER_TOKENS = (
    *EDITED_DIRECTION,
    VALUE,
    EDIT,
    STRENGTH,
    ARM,
    N_DIRECTIONS,
    Column("token", WHOLE, "Place of the token in the answer, from 0: t is read at `answer.t`."),
    Column("token_name", TEXT, "What the token is: sign, 10^0 for units, ...; else its number."),
    Column("n", WHOLE, "Edited problems of which an answer that follows has such a token."),
    N_SOURCES,
    *with_interval("iia", OF_TOKEN, SHARE),
    Column("floor", NUMBER, "`iia` with other sources, drawn by chance.", SHARE),
    Column("p", NUMBER, f"{CHANCE[:-1]}, in this token; null for other arms than the target."),
    Column(
        "p_max",
        NUMBER,
        "`p` corrected for the search among all targets and tokens of the same strength (max-T).",
    ),
    Column(
        "n_changed", WHOLE, "Problems of which a source wants another token than the right one."
    ),
    *with_interval("iia_changed", "`iia` of the sources that want another token.", SHARE),
    *with_interval("ceiling", f"{CEILING[:-1]}, in this token.", SHARE),
    Column("ceiling_changed", NUMBER, "`ceiling` of the sources that want another token.", SHARE),
    Column("ceiling_reason", TEXT, "Why there is no `ceiling`."),
    VIA,
)

SITE_CONTRASTS = (
    *EDITED_DIRECTION,
    VALUE,
    EDIT,
    STRENGTH,
    N,
    Column("n_others", WHOLE, "The layer's other sites, as its other heads."),
    Column("iia", NUMBER, IIA, SHARE),
    Column("others_iia", NUMBER, "Mean `iia` of the other sites, on the same problems.", SHARE),
    Column("difference", NUMBER, "`iia` minus `others_iia`.", SHARE, low="low", high="high"),
    Column("low", NUMBER, "Lower end of the interval of `difference`.", SHARE),
    Column("high", NUMBER, "Upper end of the interval of `difference`.", SHARE),
    Column("p", NUMBER, "p of `difference`, two-sided, by flipping signs problem by problem."),
    Column(
        "p_max",
        NUMBER,
        "`p` corrected for the search among all sites, values and ranks (max-T).",
    ),
    VIA,
)

SPECIFICITY = (
    *SITE,
    COMPONENT,
    RANK,
    Column("direction_of", TEXTS, "Values for which the fit split chooses this component."),
    Column("changed", TEXT, "Value that is another one in the source."),
    *with_interval("slope", FOLLOWING),
    Column("r2_change", NUMBER, EXPLAINED),
    *with_interval("iia", IIA, SHARE),
    N,
    N_SOURCES,
    VIA,
)

OFF_DISTRIBUTION = (
    *EDITED_DIRECTION,
    EDIT,
    STRENGTH,
    STRENGTH_UNIT,
    N,
    Column("outside_range", NUMBER, "Share of edited coordinates outside the observed range."),
    Column("mahalanobis", NUMBER, "Mahalanobis distance after the edit over that before it."),
    Column("beyond_99", NUMBER, "Share beyond the 99th percentile of clean distances."),
    Column("norm_ratio", NUMBER, "Mean length of the activation after the edit over before."),
    Column("norm_ratio_median", NUMBER, "Median of that ratio."),
    Column("norm_ratio_p95", NUMBER, "95th percentile of that ratio."),
    Column("dose_left", NUMBER, "Share of the move that the next normalisation leaves."),
    Column("reason", TEXT, "Why there is no `dose_left`."),
    VIA,
)
