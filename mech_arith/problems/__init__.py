"""Problems drawn from a template, parted into splits, and what their design makes of the values."""

from mech_arith.problems.design import (
    design_summary,
    design_warnings,
    draw_splits,
    find_decorrelated,
)
from mech_arith.problems.drawing import counterfactual_answers, draw, draw_with_shots, split
from mech_arith.problems.ranges import operand_ranges
from mech_arith.problems.sets import ProblemSet
from mech_arith.problems.spaces import LARGEST_EXACT

__all__ = [
    "LARGEST_EXACT",
    "ProblemSet",
    "counterfactual_answers",
    "design_summary",
    "design_warnings",
    "draw",
    "draw_splits",
    "draw_with_shots",
    "find_decorrelated",
    "operand_ranges",
    "split",
]
