"""Every column of every table, named once: its kind, its unit, and what it means.

A cell's tables are conformed to this when they are written, and so are those of a sweep: a table
has the same columns of the same types whatever was asked for, with rows or without. So the tables
of any cells join, by pyarrow as one dataset and by pandas.

On disk what is not known, or does not apply, is null in every kind of column; there is no empty
text and no NaN. In memory (`results.load_run`) a missing number is NaN, a missing whole number
`pandas.NA`, a missing flag None and a missing text '', so that texts can be compared and grouped
by; a list of texts is a tuple.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

import pandas as pd
import pyarrow as pa


class Kind(Enum):
    """What a column holds."""

    TEXT = pa.string()
    TEXTS = pa.list_(pa.string())
    WHOLE = pa.int64()
    NUMBER = pa.float64()
    FLAG = pa.bool_()
    NUMBERED = pa.map_(pa.string(), pa.int64())
    """Names, each with a whole number."""


TEXT, TEXTS, WHOLE, NUMBER, FLAG, NUMBERED = Kind


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind
    meaning: str
    """In one line."""
    unit: str = ""
    """Of a number; '' for none."""


Columns = tuple[Column, ...]

SHARE = "share of problems"
ACTIVATION = "activation units"
ANSWER = "units of the answer"


def _with_interval(name: str, meaning: str, unit: str = "") -> Columns:
    """A number and the ends of its interval."""
    return (
        Column(name, NUMBER, meaning, unit),
        Column(f"{name}_low", NUMBER, f"Lower end of the interval of `{name}`.", unit),
        Column(f"{name}_high", NUMBER, f"Upper end of the interval of `{name}`.", unit),
    )


LAYER = Column("layer", WHOLE, "Layer, counted from 0.")
POINT = Column("point", TEXT, "Point within the layer where the activation is read and edited.")
POSITION = Column("position", TEXT, "Positions of the prompt, by the name that was asked for.")
COMPONENT = Column("component", WHOLE, "Principal component, 0 for the largest variance.")
VALUE = Column("value", TEXT, "Value of the problem: an operand, a sub-expression or the answer.")
EDIT = Column("edit", TEXT, "Rule of the edit: scale, shift, ablate, set or interchange.")
STRENGTH = Column("strength", NUMBER, "How far the edit goes, in the unit of the edit.")
STRENGTH_UNIT = Column("strength_unit", TEXT, "Unit of `strength`.")
ARM = Column("arm", TEXT, "What was edited along: the target, or a kind of control directions.")
N_DIRECTIONS = Column("n_directions", WHOLE, "Directions of the arm, over which numbers are means.")
N = Column("n", WHOLE, "Edited problems that the row is about.")
N_SOURCES = Column("n_sources", WHOLE, "Counterfactual problems of each edited problem.")

SITE = (LAYER, POINT, POSITION)

EDITED_DIRECTION = (
    *SITE,
    COMPONENT,
    Column("chosen_for", TEXTS, "Values for which the fit split chooses this component."),
    Column("towards", TEXT, "Value that the coordinate is moved to; null for other edits."),
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

CORRELATIONS = (
    *SITE,
    Column("position_index", WHOLE, "Index of the position, if it is the same one in all prompts."),
    Column("token", TEXT, "What stands there, if it is the same in all prompts."),
    Column("position_reason", TEXT, "Why there is no `position_index`."),
    COMPONENT,
    VALUE,
    *_with_interval("r", "Pearson's R of coordinate and value on the report split."),
    Column("abs_r", NUMBER, "|R| on the report split."),
    Column("r_passed", NUMBER, "R on the report problems that the model answers right."),
    Column("r_fit", NUMBER, "R on the fit split, by which components are chosen."),
    Column("chosen", FLAG, "The fit split chooses this component for this value."),
    Column("p", NUMBER, "Permutation p of this R, corrected for nothing."),
    Column("p_holm", NUMBER, "`p` of a chosen component, corrected by Holm's method; else null."),
    Column("p_bh", NUMBER, "`p` corrected by Benjamini and Hochberg's method."),
    Column("p_site", NUMBER, "Permutation p of the largest |R| of the value at the site."),
    Column("p_site_holm", NUMBER, "`p_site` corrected by Holm's method."),
    Column("partial_r", NUMBER, "R with all other independent values held fixed."),
    Column("partial_r_undefined", TEXT, "Why there is no `partial_r`."),
    Column("least_partial_r", NUMBER, "R with one other value held fixed, the smallest such |R|."),
    Column("least_partial_given", TEXT, "That other value."),
    Column("shapley", NUMBER, "The value's share of the coordinate's variance (Shapley)."),
    Column(
        "explained_variance",
        NUMBER,
        "The component's share of the activations' variance on the report split.",
    ),
    Column("explained_variance_fit", NUMBER, "The same on the fit split."),
    Column("n_fit", WHOLE, "Problems of the fit split."),
    Column("n_report", WHOLE, "Problems of the report split."),
)

_OUTCOME = (
    Column("baseline_accuracy", NUMBER, "Accuracy without an edit.", SHARE),
    *_with_interval("edited_accuracy", "Accuracy under the edit.", SHARE),
    Column("n_passed", WHOLE, "Edited problems that the model answers right without an edit."),
    Column("edited_accuracy_passed", NUMBER, "Accuracy under the edit among those.", SHARE),
    *_with_interval("mean_shift", "Mean of edited minus clean answer.", ANSWER),
    *_with_interval("mean_abs_shift", "Mean distance of edited and clean answer.", ANSWER),
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
    *_with_interval("accuracy_drop", "Baseline minus edited accuracy.", SHARE),
    Column("pass_rate", NUMBER, "Share of edited problems answered right, clean.", SHARE),
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
        "Mean coordinate of the target after the edit; null for other arms.",
        ACTIVATION,
    ),
    Column("change_rms", NUMBER, "Root mean square of the distance moved.", ACTIVATION),
    N,
    *_OUTCOME,
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
        "(max-T); null for arms that are not drawn.",
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

FOLLOWING = (
    "Change of the answer per change expected, given the base problem: 1 where the answer follows "
    "the value, 0 where it does not, as where it is destroyed."
)
EXPLAINED = "Share of the answer's change, beyond the base problem, that this line explains."
CHANCE = "Share of draws of other sources, the real ones among them, that agree as often or more."
CEILING = "Agreement where the whole activation of the site is taken from the first source."
WRONG_WAY = Column(
    "wrong_way",
    NUMBER,
    "Share of problems whose own slope, over their sources, is below 0; null for one source.",
    SHARE,
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
    *_with_interval(
        "agreement", "Share of edited answers that are right for the other value.", SHARE
    ),
    Column("floor", NUMBER, "`agreement` with other sources, drawn by chance.", SHARE),
    Column("p", NUMBER, CHANCE),
    *_with_interval("slope", FOLLOWING),
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
    *_with_interval("ceiling", CEILING, SHARE),
    Column("ceiling_reason", TEXT, "Why there is no `ceiling`."),
    Column(
        "p_holm",
        NUMBER,
        "`p` of the target, corrected for all targets of the same strength (Holm); null for other "
        "arms.",
    ),
    VIA,
)

SPECIFICITY = (
    *SITE,
    COMPONENT,
    Column("direction_of", TEXTS, "Values for which the fit split chooses this component."),
    Column("changed", TEXT, "Value that is another one in the source."),
    *_with_interval("slope", FOLLOWING),
    Column("r2_change", NUMBER, EXPLAINED),
    *_with_interval(
        "agreement", "Share of edited answers that are right for the other value.", SHARE
    ),
    N,
    N_SOURCES,
    VIA,
)

MANIFOLD = (
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

_LOCALITY_PLACE = (
    *SITE,
    COMPONENT,
    VALUE,
    Column("moved_by", TEXT, "Operand by which the value is really moved in the input."),
)

LOCALITY = (
    *_LOCALITY_PLACE,
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
    *_LOCALITY_PLACE,
    Column("original", NUMBER, "The problem's own value."),
    Column("observed_low", NUMBER, "Smallest observed coordinate.", ACTIVATION),
    Column("observed_high", NUMBER, "Largest observed coordinate.", ACTIVATION),
)

_RANDOM_ARMS = {
    "random": "random directions of the whole space",
    "span": "random directions within the components' span",
    "valueless": "directions within that span that carry no value",
}


def _against(name: str, others: str) -> Columns:
    """The excess drop against one kind of drawn directions."""
    return (
        Column(f"excess_{name}_drop", NUMBER, f"The drop beyond that of {others}.", SHARE),
        Column(f"excess_{name}_low", NUMBER, "Lower end of its interval.", SHARE),
        Column(f"excess_{name}_high", NUMBER, "Upper end of its interval.", SHARE),
        Column(f"excess_{name}_p_max", NUMBER, "Its p, corrected for the search among targets."),
    )


EVIDENCE = (
    *SITE,
    VALUE,
    COMPONENT,
    Column("r_fit", NUMBER, "R on the fit split, by which the component is chosen."),
    *_with_interval("r", "Pearson's R of coordinate and value on the report split."),
    Column("p", NUMBER, "Permutation p of this R."),
    Column("p_holm", NUMBER, "`p` of a chosen component, corrected by Holm's method; else null."),
    Column("p_bh", NUMBER, "`p` corrected by Benjamini and Hochberg's method."),
    Column("p_site", NUMBER, "Permutation p of the largest |R| of the value at the site."),
    Column("p_site_holm", NUMBER, "`p_site` corrected by Holm's method."),
    Column("partial_r", NUMBER, "R with all other independent values held fixed."),
    Column("partial_r_undefined", TEXT, "Why there is no `partial_r`."),
    Column("least_partial_r", NUMBER, "R with one other value held fixed, the smallest such |R|."),
    Column("least_partial_given", TEXT, "That other value."),
    Column("shapley", NUMBER, "The value's share of the coordinate's variance (Shapley)."),
    Column(
        "untrained_abs_r",
        NUMBER,
        "|R| in the same network with random weights, in the component that its own fit split "
        "chooses; the largest of several networks.",
    ),
    Column("edit", TEXT, f"{EDIT.meaning[:-1]}; null where nothing was edited for the value."),
    N,
    Column(
        "target_drop",
        NUMBER,
        "Accuracy drop of the component, mean over the strengths that move anything.",
        SHARE,
    ),
    Column(
        "excess_against",
        TEXT,
        "Kind of drawn directions with the largest `p_max` (random, span or valueless): the next "
        "columns are against it.",
    ),
    Column(
        "excess_p_least",
        NUMBER,
        "The smallest p that is possible with so few directions, of the kind with the fewest.",
    ),
    Column("control_drop", NUMBER, "Mean drop of the directions of `excess_against`.", SHARE),
    Column("excess_drop", NUMBER, "`target_drop` minus `control_drop`.", SHARE),
    Column("excess_low", NUMBER, "Lower end of the interval of `excess_drop`.", SHARE),
    Column("excess_high", NUMBER, "Upper end of the interval of `excess_drop`.", SHARE),
    Column("excess_p", NUMBER, "p of `target_drop`, by rank among the directions' drops."),
    Column(
        "excess_p_max",
        NUMBER,
        "`excess_p` corrected for the search among all targets; the largest of all kinds, so that "
        "it is the p of exceeding every kind.",
    ),
    Column("excess_reason", TEXT, "Why there is no `excess_drop`."),
    *(column for arm, others in _RANDOM_ARMS.items() for column in _against(arm, others)),
    *_with_interval(
        "agreement", "Share of edited answers that are right for the other value.", SHARE
    ),
    Column("agreement_reason", TEXT, "Why there is no `agreement`."),
    Column("floor", NUMBER, "`agreement` with other sources, drawn by chance.", SHARE),
    Column("agreement_p", NUMBER, CHANCE),
    Column("agreement_p_holm", NUMBER, "`agreement_p` corrected for all targets (Holm)."),
    *_with_interval("ceiling", CEILING, SHARE),
    *_with_interval("slope", FOLLOWING),
    WRONG_WAY,
    *(
        Column(f"{name}_{arm}", NUMBER, f"`{name}` along {others}.")
        for name in ("agreement", "slope")
        for arm, others in _RANDOM_ARMS.items()
    ),
    Column("r_counts", FLAG, "R is not chance: `p_holm` is at most .05, its interval without 0."),
    Column(
        "excess_counts",
        FLAG,
        "The drop exceeds that of every kind of directions: `excess_p_max` is at most .05, and "
        "each interval lies above 0.",
    ),
    Column(
        "agreement_counts",
        FLAG,
        "Answers follow the value more often than by chance: `agreement_p_holm` is at most .05, "
        "and the interval lies above `floor`.",
    ),
    Column(
        "slope_counts",
        FLAG,
        "Answers follow the value: the interval of `slope` lies above .1 and above the slope along "
        "every kind of drawn directions.",
    ),
    Column("held", FLAG, "Verdict: the value is held here."),
    Column("shared_with", TEXT, "Value that the coordinate is as well; null for none."),
    Column("used", FLAG, "Verdict: the value is used here; null where it cannot be told."),
    Column("untold", TEXT, "Why it cannot be told whether the value is used."),
)

PROBLEMS = (
    Column("split", TEXT, "fit (components are chosen on it) or report (numbers are read on it)."),
    Column("problem", WHOLE, "Row of the problem within its split, from 0."),
    Column("prompt_text", TEXT, "What the model reads of this problem, without the examples."),
    Column("operands", NUMBERED, "Each operand and its number."),
    Column("values", NUMBERED, "Each value of the expression and its number."),
    Column("right", WHOLE, "The right answer."),
    Column("written", TEXT, "The model's answer as it wrote it; null where it writes none."),
    Column("answer", NUMBER, "The model's answer as it was read; null where it is no number."),
    Column("correct", FLAG, "The answer is right within the tolerance."),
    Column("edited", FLAG, "The problem is among those that are edited."),
    Column("reason", TEXT, "Why there is no `answer`."),
)

TABLES: dict[str, Columns] = {
    name: (*columns, *MADE_BY)
    for name, columns in {
        "problems": PROBLEMS,
        "correlations": CORRELATIONS,
        "effects": EFFECTS,
        "contrasts": CONTRASTS,
        "control_draws": CONTROL_DRAWS,
        "counterfactual": COUNTERFACTUAL,
        "specificity": SPECIFICITY,
        "manifold": MANIFOLD,
        "locality": LOCALITY,
        "locality_curves": LOCALITY_CURVES,
        "evidence": EVIDENCE,
    }.items()
}
"""The tables of a cell, by the names of their files."""

CELL = (
    Column("cell", TEXT, "Directory of the cell, as short as tells it from the others."),
    Column("identity", TEXT, "SHA-256 of all that determines the cell's numbers."),
    Column("command", TEXT, "Shell line that runs the cell."),
    *(column for column in MADE_BY if column.name in ("model", "template", "expression")),
    Column("layers", TEXT, "Layers that the cell asks for."),
    Column("tracing", TEXT, "How directions are found."),
    POINT,
    Column("positions", TEXT, "Positions that the cell asks for."),
    *(column for column in MADE_BY if column.name == "prompt"),
    EDIT,
    Column("design", TEXT, "How problems are drawn."),
    *(column for column in MADE_BY if column.name == "seed"),
)
"""At the beginning of every table of a sweep: the cell that a row is of."""

SWEPT = "swept."
"""Before the name of an override in which a sweep's cells differ: a text column of its tables, with
the override as typed, and null for cells without it."""


def swept_column(key: str) -> Column:
    """The column of one swept override."""
    return Column(f"{SWEPT}{key}", TEXT, f"Override {key!r} of the cell, as typed.")


def schema(columns: Columns) -> pa.Schema:
    """As Arrow types, and for pandas that whole numbers and flags may be missing."""
    fields = pa.schema([(column.name, column.kind.value) for column in columns])
    known = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    empty = fields.empty_table().to_pandas(types_mapper=known.get)
    return fields.with_metadata(pa.Schema.from_pandas(empty, preserve_index=False).metadata)


@cache
def table_schema(name: str) -> pa.Schema:
    """Of a cell's table."""
    return schema(TABLES[name])


def conformed(name: str, table: pd.DataFrame) -> pa.Table:
    """A cell's table with all of its columns, in their order and types; those it lacks are null.

    Raises:
        ValueError: there is no table of the name, or a column has no place in it, or holds
            something of another kind.
    """
    if name not in TABLES:
        raise ValueError(f"expected a table of {list(TABLES)}, got {name!r}; name its columns")
    unknown = [column for column in table.columns if column not in table_schema(name).names]
    if unknown:
        raise ValueError(
            f"expected the columns that mech_arith.columns names in {name}, got {unknown}; "
            "name them there"
        )
    arrays = [_array(name, table, column) for column in TABLES[name]]
    return pa.Table.from_arrays(arrays, schema=table_schema(name))


def _array(name: str, table: pd.DataFrame, column: Column) -> pa.Array:
    kind = column.kind
    if column.name not in table:
        return pa.nulls(len(table), kind.value)
    entries = table[column.name]
    if isinstance(entries.dtype, pd.StringDtype):  # which Arrow would read as numbers
        entries = entries.astype(object)
    try:
        if kind is TEXTS and any(isinstance(entry, str) for entry in entries):
            raise TypeError("one text")  # which Arrow would read as a list of its characters
        array = pa.array(entries, kind.value, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"expected {kind.name} in the column {column.name} of {name}, got {error}"
        ) from error
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if kind is TEXT:
        return pa.array([entry or None for entry in array.to_pylist()], pa.string())
    return array


def in_memory(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A table as it was read, with the missing entries that this package works with."""
    kinds: Mapping[str, Kind] = {column.name: column.kind for column in columns}
    return table.assign(
        **{
            name: _usable(pd.Series(table[name]), kinds[name])
            for name in table.columns
            if name in kinds and kinds[name] is not NUMBER
        }
    )


def _usable(column: pd.Series, kind: Kind) -> pd.Series:
    """Whole numbers and flags that are all there as plain ones; texts without missing entries."""
    if kind is TEXT:
        return column.fillna("") if column.dtype != float else column.map(lambda _: "")
    if kind is TEXTS:
        entries = [_texts(entry) for entry in column.tolist()]
        return pd.Series(entries, index=column.index, dtype=object)
    if kind is NUMBERED:
        entries = [{} if entry is None else dict(entry) for entry in column.tolist()]
        return pd.Series(entries, index=column.index, dtype=object)
    missing = column.isna()
    if not missing.any():
        return column.astype("int64" if kind is WHOLE else bool)
    if kind is FLAG:
        return column.astype(object).where(~missing, None)
    return column.astype("Int64")


def _texts(entry: Iterable[str] | None) -> tuple[str, ...]:
    """A list of texts; a run of an earlier version has them in one, as in 'b | a+b'."""
    if isinstance(entry, str):
        return tuple(entry.split(" | ")) if entry else ()
    return () if entry is None else tuple(entry)
