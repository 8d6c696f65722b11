"""Columns of the evidence: all that is known of a value at a site, and how each number is shown."""

from dataclasses import replace

from mech_arith.evidence.columns.base import (
    FLAG,
    NUMBER,
    SHARE,
    TEXT,
    WHOLE,
    Beside,
    Column,
    Columns,
    Taken,
    named,
)
from mech_arith.evidence.columns.edits import COUNTERFACTUAL
from mech_arith.evidence.columns.shared import COMPONENT, EDIT, RANDOM_ARMS, RANK, SITE, VALUE, N
from mech_arith.evidence.columns.tracing import CORRELATIONS, SUBSPACES
from mech_arith.evidence.verdicts import verdict

LEAST_GIVEN = Beside("least_partial_given", "given", short="given")

SHOWN_OF_TRACING = {
    "r": {
        "label": "|R|",
        "about": "correlation of the coordinate with the value, on the report split; p: Holm's",
        "p": "p_holm",
        "counts": "r_counts",
        "null": "untrained_abs_r",
        "is_size": True,
        "beside": (
            Beside("untrained_abs_r", "untrained", short="un.", about="with random weights"),
            Beside("p_site_holm", "p of the site's largest"),
        ),
        "is_headline": True,
        "is_drawn": True,
        "is_compared": True,
        "map_title": "|R|",
    },
    "least_partial_r": {
        "label": "least |R|, another value held fixed",
        "about": "the least that is left of |R| where one other value is held fixed",
        "is_size": True,
        "said": LEAST_GIVEN,
        "map_title": "least |R|, another\nvalue held fixed",
    },
    "partial_r": {
        "label": "R, all others held fixed",
        "about": "what is left of R where all other values are held fixed",
        "why": "partial_r_undefined",
    },
    "shapley": {
        "label": "share of the variance",
        "about": "the value's Shapley share of the coordinate's variance",
    },
}
"""How the report shows columns of the correlations."""


def _from_tracing(*names: str) -> Columns:
    return tuple(
        replace(
            column,
            group="",
            is_logged=False,
            taken=Taken("correlations", column.name),
            **SHOWN_OF_TRACING.get(column.name, {}),
        )
        for column in named(CORRELATIONS, *names)
    )


TRACED = _from_tracing(
    *("r_fit", "r", "r_low", "r_high", "p", "p_holm", "p_bh", "p_site", "p_site_holm"),
    *("partial_r", "partial_r_undefined", "least_partial_r", "least_partial_given", "shapley"),
)


CLASSES = tuple(
    replace(column, taken=Taken("correlations", column.name), **more)
    for column, more in zip(
        named(
            SUBSPACES,
            *("n_classes", "class_accuracy", "class_accuracy_low", "class_accuracy_high"),
            *("class_chance", "class_p_holm"),
        ),
        (
            {},
            {
                "label": "class told right",
                "about": "share of problems whose class (a digit, a carry, a residue) is told from "
                "the subspace; floor: always the most frequent class; p: Holm's",
                "p": "class_p_holm",
                "counts": "class_counts",
                "null": "class_chance",
                "is_headline": True,
                "is_compared": True,
            },
            *({},) * 4,
        ),
        strict=True,
    )
)
"""Of values of few classes, which no correlation shows."""


def _contrast(name: str, taken: str, meaning: str, unit: str = "", **more: object) -> Column:
    """Of the contrast with the kind of directions that the target exceeds with least certainty."""
    where = Taken("contrasts", taken)
    return Column(name, NUMBER, meaning, unit, group="excess_drop", taken=where, **more)  # pyright: ignore[reportArgumentType]


def _against(arm: str, others: str) -> Columns:
    """The excess drop against one kind of drawn directions."""
    stem = f"excess_{arm}"
    title = {
        "valueless": "drop beyond directions\nwithout a value",
        "span": "drop beyond directions\nof the span",
        "random": "drop beyond\nrandom directions",
    }[arm]
    taken = [Taken("contrasts", name, arm) for name in ("excess_drop", "low", "high", "p_max")]
    return (
        Column(
            f"{stem}_drop",
            NUMBER,
            f"The drop beyond that of {others}.",
            SHARE,
            low=f"{stem}_low",
            high=f"{stem}_high",
            p=f"{stem}_p_max",
            map_title=title,
            taken=taken[0],
        ),
        Column(f"{stem}_low", NUMBER, "Lower end of its interval.", SHARE, taken=taken[1]),
        Column(f"{stem}_high", NUMBER, "Upper end of its interval.", SHARE, taken=taken[2]),
        Column(
            f"{stem}_p_max",
            NUMBER,
            "Its p, corrected for the search among targets.",
            taken=taken[3],
        ),
    )


EDITED = (
    replace(EDIT, meaning=f"{EDIT.meaning[:-1]}; null where nothing was edited for the value."),
    replace(N, taken=Taken("contrasts", "n")),
    _contrast(
        "target_drop",
        "target_drop",
        "Accuracy drop of the component, mean over the strengths that move anything.",
        SHARE,
    ),
    Column(
        "excess_against",
        TEXT,
        "Kind of drawn directions with the largest `p_max` (random, span or valueless): the next "
        "columns are against it.",
        group="excess_drop",
    ),
    Column(
        "excess_p_least",
        NUMBER,
        "The smallest p that is possible with so few directions, of the kind with the fewest.",
        group="excess_drop",
    ),
    Column(
        "excess_n_draws",
        WHOLE,
        "Directions of `excess_against` that `excess_p` is of; fewer than might be drawn where "
        "draws stop early.",
        group="excess_drop",
        taken=Taken("contrasts", "n_draws"),
    ),
    _contrast(
        "control_drop", "arm_drop", "Mean drop of the directions of `excess_against`.", SHARE
    ),
    _contrast(
        "excess_drop",
        "excess_drop",
        "`target_drop` minus `control_drop`.",
        SHARE,
        label="drop beyond drawn directions",
        about="accuracy that the edit costs beyond drawn directions, moved as far; mean over all "
        "strengths. Of random directions, of directions in the components' span and of ones there "
        "that carry no value the kind that it exceeds with the least certainty. p: the largest of "
        "all targets under their controls",
        low="excess_low",
        high="excess_high",
        p="excess_p_max",
        counts="excess_counts",
        beside=(
            Beside("target_drop", "edited"),
            Beside("control_drop", "control"),
            Beside("excess_random_drop", "beyond random"),
            Beside("excess_span_drop", "span"),
            Beside("excess_valueless_drop", "valueless"),
        ),
        said=Beside("excess_against", "beyond"),
        why="excess_reason",
        is_headline=True,
        is_compared=True,
        is_of_edits=True,
        is_logged=True,
        is_curve=True,
    ),
    _contrast(
        "excess_low", "low", "Lower end of the interval of `excess_drop`.", SHARE, is_logged=True
    ),
    _contrast(
        "excess_high", "high", "Upper end of the interval of `excess_drop`.", SHARE, is_logged=True
    ),
    _contrast("excess_p", "p", "p of `target_drop`, by rank among the directions' drops."),
    _contrast(
        "excess_p_max",
        "p_max",
        "`excess_p` corrected for the search among all targets; the largest of all kinds, so that "
        "it is the p of exceeding every kind.",
        is_logged=True,
    ),
    Column("excess_reason", TEXT, "Why there is no `excess_drop`."),
    *(column for arm, others in RANDOM_ARMS.items() for column in _against(arm, others)),
)


def _answered(*names: str, **more: object) -> Columns:
    """Columns of the edits that go the whole way to another value."""
    return tuple(
        replace(column, group="counterfactual", taken=Taken("counterfactual", column.name), **more)
        for column in named(COUNTERFACTUAL, *names)
    )


def _along(number: str) -> Columns:
    """The number along each kind of drawn directions."""
    in_summary = ("iia_random", "slope_random", "slope_valueless")
    return tuple(
        Column(
            f"{number}_{arm}",
            NUMBER,
            f"`{number}` along {others}.",
            group="counterfactual" if f"{number}_{arm}" in in_summary else "",
            is_curve=f"{number}_{arm}" == "slope_random",
            taken=Taken("counterfactual", number, arm),
        )
        for arm, others in RANDOM_ARMS.items()
    )


ANSWERED = (
    *_answered(
        "iia",
        label="IIA",
        about="interchange-intervention accuracy: share of edited answers that equal the answer "
        "with the value replaced. Floor: by chance, with other values; ceiling: the whole "
        "activation is replaced. p: against the floor, Holm's",
        p="iia_p_holm",
        counts="iia_counts",
        null="floor",
        beside=(
            Beside("floor", "floor", short="fl.", about="floor"),
            Beside("iia_random", "random"),
            Beside("ceiling", "ceiling", short="c.", about="ceiling"),
        ),
        why="iia_reason",
        is_headline=True,
        is_drawn=True,
        is_compared=True,
        is_logged=True,
        is_curve=True,
        map_title="IIA: answers that\nfollow the value",
    ),
    *_answered("iia_low", "iia_high", is_logged=True),
    Column("iia_reason", TEXT, "Why there is no `iia`."),
    *_answered("floor", is_logged=True, is_curve=True),
    Column(
        "iia_p_holm",
        NUMBER,
        "p of `iia` against the floor, corrected for all targets (Holm).",
        group="counterfactual",
        taken=Taken("counterfactual", "p_holm"),
    ),
    *_answered("ceiling", is_logged=True, is_curve=True),
    *(replace(column, group="") for column in _answered("ceiling_low", "ceiling_high")),
    *_answered(
        "slope",
        label="slope",
        about="change of the answer for each unit by which the answer that follows the value "
        "would change: 1 follows wholly",
        counts="slope_counts",
        null="slope_random",
        beside=(
            Beside("slope_random", "random", short="ra.", about="along random directions"),
            Beside("slope_span", "span"),
            Beside("slope_valueless", "valueless"),
        ),
        is_headline=True,
        is_drawn=True,
        is_compared=True,
        is_logged=True,
        is_curve=True,
        map_title="slope: how far answers\nfollow the value",
    ),
    *_answered("slope_low", "slope_high", is_logged=True),
    *_answered("wrong_way"),
    *_along("iia"),
    *_along("slope"),
)

JUDGED = (
    Column(
        "class_counts",
        FLAG,
        "Classes are told better than by chance: `class_p_holm` is at most .05, and the interval "
        "lies above `class_chance`; null for a value that is judged by R.",
    ),
    Column("r_counts", FLAG, "R is not chance: `p_holm` is at most .05, its interval without 0."),
    Column(
        "excess_counts",
        FLAG,
        "The drop exceeds that of every kind of directions: `excess_p_max` is at most .05, and "
        "each interval lies above 0.",
        group="excess_drop",
    ),
    Column(
        "iia_counts",
        FLAG,
        "Answers follow the value more often than by chance: `iia_p_holm` is at most .05, "
        "and the interval lies above `floor`.",
        group="counterfactual",
    ),
    Column(
        "slope_counts",
        FLAG,
        "Answers follow the value: the interval of `slope` lies above .1 and above the slope along "
        "every kind of drawn directions.",
        group="counterfactual",
    ),
    Column("held", FLAG, "Verdict: the value is held here."),
    Column("shared_with", TEXT, "Value that the coordinate is as well; null for none."),
    Column("used", FLAG, "Verdict: the value is used here; null where it cannot be told."),
    Column("untold", TEXT, "Why it cannot be told whether the value is used."),
    Column(
        "verdict",
        TEXT,
        "The verdict in words: held or not, with which other value, used or not.",
        label="verdict",
        about="what all numbers say together: whether the component holds the value ('with b': it "
        "is b's as well), and whether the answer is computed from it",
        why="untold",
        is_headline=True,
        of=verdict,
    ),
)

EVIDENCE = (
    *SITE,
    VALUE,
    COMPONENT,
    RANK,
    *TRACED,
    *CLASSES,
    Column(
        "untrained_abs_r",
        NUMBER,
        "|R| in the same network with random weights, in the component that its own fit split "
        "chooses; the largest of several networks.",
    ),
    *EDITED,
    *ANSWERED,
    *JUDGED,
)

PAGE_ORDER = (
    *("verdict", "r", "class_accuracy", "iia", "slope", "excess_drop"),
    *("least_partial_r", "partial_r", "shapley"),
)
"""The order in which a report shows the columns that have a label; others come last."""
