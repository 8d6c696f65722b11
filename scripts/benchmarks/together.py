"""All steps of a hypothesis set together, in plants of digits and in random networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from alignments import digit_model
from bars import Row, at_least, at_most, shown
from recovery import INTERCHANGE
from rivals import N_PROBLEMS, NO_CONTROLS, bases_at, how_of, tens_problems

from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.alignments import ANY, alignment_table
from mech_arith.interventions.alignment import interchange_together
from mech_arith.interventions.run import InterventionPlan, intervene
from mech_arith.models.base import Model
from mech_arith.models.planted import digits
from mech_arith.models.planted.digits import DigitModel, DigitPlant
from mech_arith.problems import ProblemSet, split

ONE_BY_ONE = (
    "ones: (a%10+b%10)%10",
    "carry: (a%10+b%10)//10",
    "ones_carry: (ones+c%10)//10",
    "answer: (a//10+b//10+carry+c//10+ones_carry)%10",
)
"""Columns of a+b+c, c added to the sum of the other two."""


@dataclass(frozen=True)
class Together:
    """What one plant says of both hypotheses, with all of their steps."""

    right: bool
    """The hypothesis by which it computes is supported."""
    wrong: bool
    """The other one is."""
    share: float
    """Answers as the right one expects, of the telling choices."""


def of_plant(seed: int, place: int) -> Together:
    """A plant of a+b+c, by the tree or digit by digit in turn."""
    plant = DigitPlant.drawn(seed, digits.RIVALS[place % 2])
    fit, report = split(plant.problems(N_PROBLEMS), fit_share=0.8, seed=seed)
    steps = [step for of_one in plant.steps.values() for step in of_one]
    sites = [Site(step.layer, "resid_post", str(step.position)) for step in steps]
    table = table_at(DigitModel(plant), fit, report, list(dict.fromkeys(sites)), seed=seed)
    own = table["hypothesis"] == plant.hypothesis
    whole = table["steps_set"] == ANY
    return Together(
        bool(table.loc[own & whole, "supported"].item()),
        bool(table.loc[~own & whole, "supported"].item()),
        table.loc[own & whole, "telling"].item(),
    )


def of_nothing(seed: int) -> list[bool]:
    """Whether either hypothesis is supported in a random network, its steps where followed most."""
    model = digit_model(seed)
    fit, report = split(tens_problems(seed, *ONE_BY_ONE), fit_share=0.5, seed=seed)
    sites = [Site(layer, "resid_post", "last") for layer in range(model.n_layers)]
    table = table_at(model, fit, report, sites, seed=seed)
    return table.loc[table["steps_set"] == ANY, "supported"].tolist()


def table_at(
    model: Model, fit: ProblemSet, report: ProblemSet, sites: Sequence[Site], *, seed: int
) -> pd.DataFrame:
    """The table of alignments, by components."""
    session, how = Session(model), how_of(seed)
    bases = bases_at(session, fit, report, sites, how)
    plan = InterventionPlan(INTERCHANGE.edit, (1.0,), n_sources=3, controls=NO_CONTROLS, seed=seed)
    done = intervene(session, bases, plan, n_shuffles=1)
    found = interchange_together(session, bases, plan, done, tolerance=model.tolerance)
    return alignment_table(found, tolerance=model.tolerance, how=how, seed=seed)


def together_rows(seeds: Sequence[int], nulls: Sequence[int]) -> list[Row]:
    """As many plants, every other one by the tree; and random networks."""
    found = [of_plant(seed, place) for place, seed in enumerate(seeds)]
    tests = [supported for seed in nulls for supported in of_nothing(seed)]
    n = len(found)
    return [
        at_least("all steps together: the right one is supported", sum(x.right for x in found), n),
        at_most("all steps together: the wrong one is supported", sum(x.wrong for x in found), n),
        at_most("all steps together: random networks, one is supported", sum(tests), len(tests)),
        shown(
            "all steps together: least share of answers as the right one expects",
            n,
            f"{min(x.share for x in found):.2f}",
        ),
    ]
