"""Statistics in float64. What is undefined is NaN, never a stand-in."""

from mech_arith.statistics.basic import binomial_above, majority_floor, pearson, r_squared, ranked
from mech_arith.statistics.bootstrap import correlation_interval
from mech_arith.statistics.classes import n_classes, told_apart
from mech_arith.statistics.contrast import (
    Averaged,
    Excess,
    averaged,
    drawn_interval,
    excess,
    largest_of_all,
)
from mech_arith.statistics.inference import Inference, infer
from mech_arith.statistics.intervals import (
    DIFFERENCES,
    DISTANCES,
    NUMBERS,
    SHARES,
    SHIFTS,
    Interval,
    Outcomes,
    Resampling,
    mean_interval,
    paired_interval,
    share_interval,
)
from mech_arith.statistics.multiplicity import ALPHA, benjamini_hochberg, holm
from mech_arith.statistics.permutation import CorrelationP, correlation_p
from mech_arith.statistics.ranks import SequentialP, draws_needed, least_p, rank_p, sequential_p
from mech_arith.statistics.relatives import (
    partial_correlation,
    partial_given_each,
    relation,
    relations,
    shapley_shares,
)

__all__ = [
    "ALPHA",
    "DIFFERENCES",
    "DISTANCES",
    "NUMBERS",
    "SHARES",
    "SHIFTS",
    "Averaged",
    "CorrelationP",
    "Excess",
    "Inference",
    "Interval",
    "Outcomes",
    "Resampling",
    "SequentialP",
    "averaged",
    "benjamini_hochberg",
    "binomial_above",
    "correlation_interval",
    "correlation_p",
    "drawn_interval",
    "draws_needed",
    "excess",
    "holm",
    "infer",
    "largest_of_all",
    "least_p",
    "majority_floor",
    "mean_interval",
    "n_classes",
    "paired_interval",
    "partial_correlation",
    "partial_given_each",
    "pearson",
    "r_squared",
    "rank_p",
    "ranked",
    "relation",
    "relations",
    "sequential_p",
    "shapley_shares",
    "share_interval",
    "told_apart",
]
