"""Plants that compute by one hypothesis and write the rival's steps too: does the right one win?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from alignments import digit_model
from bars import Row, at_least, at_most, shown
from random_networks import RANGES
from recovery import INTERCHANGE, N_COMPONENTS

from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits, trace
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.hypotheses import TIE, hypothesis_table
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Controls
from mech_arith.interventions.run import InterventionPlan, intervene
from mech_arith.models.base import Model
from mech_arith.models.planted import digits
from mech_arith.models.planted.digits import DIGITS, DigitModel, DigitPlant
from mech_arith.models.planted.model import PlantedModel
from mech_arith.models.planted.planted import LEFT_TO_RIGHT, RIVALS, Plant, WrittenValue
from mech_arith.problems import ProblemSet, draw, split
from mech_arith.problems.asked import AskedHypothesis, with_hypotheses
from mech_arith.problems.hypotheses import TREE
from mech_arith.problems.templates import build_template
from mech_arith.statistics import ALPHA, Resampling

N_PROBLEMS, N_EDITED = 700, 100
"""Of a-(b-c) all of the 1000 problems that there are but some."""


@dataclass(frozen=True)
class Compared:
    """One step's interchange, and what each hypothesis expects of it."""

    right: str
    """The hypothesis by which the model computes."""
    supports: str
    iia: float
    """On the pairs that tell the hypotheses apart: of the right one."""
    wrong: float
    """Of the wrong one, on the same pairs."""
    p_wrong: float
    """Of the wrong one against its floor."""
    n_apart: float
    """Share of the pairs that tell them apart."""


def compared(model: PlantedModel, written: WrittenValue) -> list[Compared]:
    """Interchange a step where it is written, along the component that goes with it.

    Returns:
        The comparison with every step of the other hypothesis.
    """
    plant = model.plant
    fit, report = split(plant.problems(N_PROBLEMS), fit_share=0.8, seed=plant.seed)
    site = Site(written.layer, "resid_post", str(written.position))
    rows = rows_at(model, fit, report, site, written.value, seed=plant.seed)
    return [_compared(row, plant.hypothesis) for row in rows]


def _compared(row: dict, right: str) -> Compared:
    own = row["hypothesis"] == right
    return Compared(
        right,
        row["supports"],
        row["distinguishing" if own else "distinguishing_rival"],
        row["distinguishing_rival" if own else "distinguishing"],
        row["p_rival" if own else "p"],
        row["n_distinguishing"] / row["n_pairs"],
    )


def rows_at(
    model: Model, fit: ProblemSet, report: ProblemSet, site: Site, value: str, *, seed: int
) -> list[dict]:
    """The table of hypotheses for one value at one site."""
    session, how = Session(model), how_of(seed)
    bases = bases_at(session, fit, report, [site], how)
    plan = InterventionPlan(
        INTERCHANGE.edit, (1.0,), values=(value,), n_sources=2, controls=NO_CONTROLS, seed=seed
    )
    # The table draws chance floors of its own.
    done = intervene(session, bases, plan, n_shuffles=1)
    scorer = Scorer.of_baseline(bases.baseline, tolerance=model.tolerance, written=True, how=how)
    return hypothesis_table(done, plan, scorer).to_dict(orient="records")


def how_of(seed: int) -> Resampling:
    """How intervals are computed."""
    return Resampling(n_permutations=100, n_resamples=100, seed=seed)


def bases_at(
    session: Session, fit: ProblemSet, report: ProblemSet, sites: Sequence[Site], how: Resampling
) -> Bases:
    """The problems that are edited, with the components of some sites."""
    model, right = session.model, torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, model.encode(fit), model.encode(report), right)
    found = trace(session, splits, sites, find_method("pca", N_COMPONENTS), how)
    edited = report.take(torch.arange(N_EDITED).numpy())
    asked = ReferenceAnswers.of_problems(edited)
    return Bases(edited, run_baseline(session, model.encode(edited), asked), found)


NO_CONTROLS = Controls(0, 0, 0, other=False, shuffled=False)


def of_nothing(seed: int, problems: ProblemSet, values: Sequence[str]) -> list[str]:
    """What is supported of two hypotheses in a random network, in every layer, for some steps.

    Answers are one digit, so that one in ten is as either expects by chance.
    """
    model = digit_model(seed)
    fit, report = split(problems, fit_share=0.5, seed=seed)
    return [
        row["supports"]
        for layer in range(model.n_layers)
        for value in values
        for row in rows_at(model, fit, report, Site(layer, "resid_post", "last"), value, seed=seed)
    ]


def digit_problems(
    seed: int, expression: str, own: AskedHypothesis, rival: AskedHypothesis
) -> ProblemSet:
    """An expression of one digit, by one of two hypotheses."""
    template = build_template("null", expression)
    drawn = draw(template, n=400, ranges=RANGES, seed=seed)
    template = with_hypotheses(template, own, [rival], ranges=RANGES, operands=drawn.operands)
    return ProblemSet.of(template, drawn.operands)


# Of the tree one step alone. To set one behind it, as a-(b-c), gives the answer of the source: no
# pair tells it from anything.


def left_to_right_null(seed: int) -> list[str]:
    """What is supported of the last digit of a-(b-c), by the tree or from the left."""
    answer = "(a-(b-c))%10"
    own = AskedHypothesis(TREE, steps=["b-c", f"answer: {answer}"])
    rival = AskedHypothesis(LEFT_TO_RIGHT, steps=["a-b", "answer: (a-b+c)%10"])
    return of_nothing(seed, digit_problems(seed, answer, own, rival), ("b-c", "a-b"))


def digits_null(seed: int) -> list[str]:
    """What is supported of the tens of a+b+c, from a+b or from the columns."""
    carry = "ones_carry: (a%10+b%10+c%10)//10"
    problems = tens_problems(seed, carry, "answer: (a//10+b//10+c//10+ones_carry)%10")
    return of_nothing(seed, problems, ("a+b", "ones_carry"))


def tens_problems(seed: int, *steps: str) -> ProblemSet:
    """The tens of a+b+c, by the tree or from the columns, as these steps say.

    The tree without its steps a+b+c and (a+b+c)//10: whoever sets one of them gets the source's own
    answer, so that no pair tells them apart from anything.
    """
    answer = "(a+b+c)//10%10"
    tree = AskedHypothesis(TREE, steps=["a+b", f"answer: {answer}"])
    return digit_problems(seed, answer, tree, AskedHypothesis(DIGITS, steps=steps))


@dataclass(frozen=True)
class Judged:
    """What the steps of one plant say."""

    read: list[Compared]
    """Of those by which it answers, beside each step of the other hypothesis."""
    unread: list[Compared]
    elsewhere: list[Compared]
    """Of a step that is asked for where another one is written."""

    @property
    def is_right(self) -> bool:
        """Whether each step that is read supports the hypothesis by which it computes."""
        return all(one.supports == one.right for one in self.read)


def of_rivals(seed: int, place: int) -> Judged:
    """A plant of a-(b-c) or the like, by the tree or from the left in turn."""
    plant = Plant.of_rivals(seed, RIVALS[place % 2])
    model = PlantedModel(plant)
    elsewhere = plant.read._replace(value=plant.unread.value)
    return Judged(*(compared(model, step) for step in (plant.read, plant.unread, elsewhere)))


def of_digits(seed: int, place: int) -> Judged:
    """A plant of a+b+c, by the tree or digit by digit in turn."""
    plant = DigitPlant.drawn(seed, digits.RIVALS[place % 2])
    model = DigitModel(plant)
    of_steps = {
        name: [one for step in steps for one in compared(model, step)]
        for name, steps in plant.steps.items()
    }
    read = of_steps.pop(plant.hypothesis)
    (unread,) = of_steps.values()
    return Judged(read, unread, compared(model, plant.tens._replace(value=plant.ones.value)))


def rival_rows(seeds: Sequence[int], nulls: Sequence[int]) -> list[Row]:
    """As many plants of each kind, every other one computed by the tree; and random networks."""
    rows = []
    for what, plant, null in (
        ("rivals", of_rivals, left_to_right_null),
        ("digits", of_digits, digits_null),
    ):
        found = [plant(seed, place) for place, seed in enumerate(seeds)]
        rows += rows_of(what, found, [supported for seed in nulls for supported in null(seed)])
    return rows


def rows_of(what: str, found: Sequence[Judged], tests: Sequence[str]) -> list[Row]:
    """Rows of plants of one kind, and of what is supported in random networks."""
    read = [one for plant in found for one in plant.read]
    every = [*read, *(one for plant in found for one in plant.unread)]
    elsewhere = [one for plant in found for one in plant.elsewhere]
    return [
        at_least(
            f"{what}: the right hypothesis wins where its steps are read",
            sum(plant.is_right for plant in found),
            len(found),
        ),
        at_most(
            f"{what}: the wrong one wins, where its step or the other is written",
            sum(one.supports not in (one.right, TIE) for one in every),
            len(every),
        ),
        at_most(
            f"{what}: the wrong one above its floor, by p",
            sum(one.p_wrong <= ALPHA for one in every),
            len(every),
        ),
        at_most(
            f"{what}: random networks, either hypothesis wins at a site",
            sum(one != TIE for one in tests),
            len(tests),
        ),
        shown(
            f"{what}: least iia of the right one, most of the wrong one, where read",
            len(read),
            f"{min(one.iia for one in read):.2f} {max(one.wrong for one in read):.2f}",
        ),
        at_most(
            f"{what}: the wrong one wins for a step asked for where another is written",
            sum(one.supports not in (one.right, TIE) for one in elsewhere),
            len(elsewhere),
        ),
        shown(
            f"{what}: least share of pairs that tell them apart",
            len(every),
            f"{min(one.n_apart for one in every):.2f}",
        ),
    ]
