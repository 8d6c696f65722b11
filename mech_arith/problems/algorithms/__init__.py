"""Rules that make the steps of a hypothesis for a template: one file each."""

from mech_arith.problems.algorithms.base import RULES, Rule, Task

__all__ = ["RULES", "Rule", "Task"]
