"""What a cell has to say beside its numbers: what they cannot tell, and why."""

from collections.abc import Mapping

import pandas as pd

from mech_arith.evidence.draws import unresolved_drops
from mech_arith.evidence.iia import unable_sites, unresolved
from mech_arith.evidence.table import no_whole_way
from mech_arith.interventions.run import InterventionPlan
from mech_arith.models.base import Model
from mech_arith.problems import ProblemSet, design_warnings
from mech_arith.problems.asked import hypothesis_notes

NO_MAP = "no map of single positions: not all prompts have their parts at the same positions"


def before_any_run(model: Model, fit: ProblemSet, report: ProblemSet) -> list[str]:
    """What the problems and prompts alone say."""
    return [
        *hypothesis_notes(fit.hypothesis, fit.operands),
        *outside_training(model, report),
        *design_warnings(fit, report),
        *model.prompt_warnings(report),
    ]


def outside_training(model: Model, problems: ProblemSet) -> list[str]:
    """What the problems ask of the model that it was not trained on, in words."""
    warnings: list[str] = []
    if model.trained_operands is None or model.trained_templates is None:
        return warnings
    low, high = model.trained_operands
    lowest = min(int(x.min()) for x in problems.operands.values())
    highest = max(int(x.max()) for x in problems.operands.values())
    if lowest < low or highest > high:
        warnings.append(
            f"operands {lowest}..{highest} go beyond the {low}..{high} that {model.name} was "
            "trained on: look at the baseline accuracy first"
        )
    text = problems.template.expression.render(
        {name: name for name in problems.template.expression.operands}
    ).text
    if text not in model.trained_templates:
        warnings.append(
            f"{model.name} was not trained on {text}: look at the baseline accuracy first"
        )
    return warnings


def constant_values(problems: ProblemSet) -> list[str]:
    """Values that are the same in all problems, so that nothing can correlate with them."""
    return [
        f"{value} is {numbers[0]} in every problem: no correlation with it is defined"
        for value, numbers in problems.values.items()
        if (numbers == numbers[0]).all()
    ]


def edit_warnings(
    tables: Mapping[str, pd.DataFrame], asked: InterventionPlan | None, *, n_permutations: int
) -> list[str]:
    """What the edits cannot say, and why."""
    if asked is None:
        return []
    contrasts = tables.get("contrasts", pd.DataFrame())
    followed = tables.get("counterfactual", pd.DataFrame())
    return [
        *unresolved_drops(contrasts, asked.controls),
        *unable_sites(followed),
        *unresolved(followed, n_permutations),
        *no_whole_way(asked.edit, asked.strengths),
    ]
