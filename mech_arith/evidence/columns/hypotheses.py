"""Columns of the tables that try hypotheses of how the answer is computed."""

from mech_arith.evidence.columns.base import (
    FLAG,
    NUMBER,
    SHARE,
    TEXT,
    WHOLE,
    Column,
    with_interval,
)
from mech_arith.evidence.columns.shared import (
    CEILING,
    EDIT,
    EDITED_DIRECTION,
    IIA,
    N_SOURCES,
    STRENGTH,
    VALUE,
    VIA,
    N,
)

APART = "on the pairs that tell the two apart"

HYPOTHESES = (
    *EDITED_DIRECTION,
    VALUE,
    Column("hypothesis", TEXT, "Hypothesis that the value is a step of."),
    Column("rival", TEXT, "Another hypothesis of how the answer is computed."),
    Column("rival_value", TEXT, "Step of the rival that the same sources are taken to change."),
    EDIT,
    STRENGTH,
    N,
    N_SOURCES,
    Column(
        "siblings_kept",
        NUMBER,
        "Share of sources in which all other steps of the value's level are as in the base.",
        SHARE,
    ),
    Column("n_pairs", WHOLE, "Pairs of a base and a source."),
    Column(
        "n_distinguishing",
        WHOLE,
        "Pairs that tell the two apart: they expect different answers, and neither is the base's "
        "or the source's own.",
    ),
    Column("iia", NUMBER, IIA, SHARE),
    Column("iia_rival", NUMBER, "The same with the rival's value replaced, as the rival has it."),
    *with_interval("distinguishing", f"`iia` {APART}.", SHARE),
    Column("floor", NUMBER, "`distinguishing` with sources dealt out anew, by chance.", SHARE),
    Column("p", NUMBER, "Share of such deals, the real one among them, that are right as often."),
    *with_interval("distinguishing_rival", f"`iia_rival` {APART}.", SHARE),
    Column("floor_rival", NUMBER, "`distinguishing_rival` by chance.", SHARE),
    Column("p_rival", NUMBER, "p of `distinguishing_rival`, as `p`."),
    Column(
        "others",
        NUMBER,
        "The most that any other step of the hypothesis is right on the pairs that tell the two "
        "apart, where it expects another answer than the base's and the source's own.",
        SHARE,
    ),
    Column("others_rival", NUMBER, "The same of the rival's other steps.", SHARE),
    Column(
        "random",
        NUMBER,
        "`distinguishing` along random directions that move as far; null without any.",
        SHARE,
    ),
    Column("random_rival", NUMBER, "`distinguishing_rival` along them.", SHARE),
    *with_interval("difference", "`distinguishing` minus `distinguishing_rival`, paired.", SHARE),
    Column("p_difference", NUMBER, "Two-sided sign test over problems of that difference."),
    Column(
        "p_holm",
        NUMBER,
        "`p_difference` corrected for all sites, subspaces and rivals of one strength (Holm).",
    ),
    *with_interval("ceiling", CEILING, SHARE),
    Column("ceiling_reason", TEXT, "Why there is no `ceiling`."),
    Column(
        "supports",
        TEXT,
        "The hypothesis that is right more often, also than any other step of the other one, "
        "than along random directions and than by chance; or tie.",
    ),
    VIA,
)

ALIGNMENTS = (
    Column("hypothesis", TEXT, "Hypothesis whose steps are set together."),
    Column("rank", WHOLE, "The most directions of a step's subspace."),
    Column("n_steps", WHOLE, "Steps between the operands and the answer."),
    Column(
        "places",
        TEXT,
        "Where each step is set: where answers follow it most often, of other problems.",
    ),
    Column(
        "followed",
        NUMBER,
        "Mean over steps of how often answers follow each by itself there, of those problems.",
        SHARE,
    ),
    Column("steps_set", WHOLE, "Steps that are set together; 0 for all numbers of them."),
    N,
    Column("n_pairs", WHOLE, "Choices of steps and of the problems that they are taken from."),
    Column(
        "n_telling",
        WHOLE,
        "Choices of which another answer is expected than the problem's own, those of the "
        "problems that steps are taken from, and that with any one of the steps left out.",
    ),
    Column("iia", NUMBER, IIA, SHARE),
    *with_interval("telling", "`iia` of the telling choices.", SHARE),
    Column("floor", NUMBER, "`telling` with the steps taken from problems drawn anew.", SHARE),
    Column("p", NUMBER, "Share of such draws, the real one among them, that are right as often."),
    Column("p_holm", NUMBER, "`p` corrected for all hypotheses and ranks (Holm)."),
    Column(
        "supported",
        FLAG,
        "`telling` is above `floor`, `p_holm` at most .05; null for one number of steps.",
    ),
    VIA,
)
"""Of the table that sets all steps of a hypothesis together."""
