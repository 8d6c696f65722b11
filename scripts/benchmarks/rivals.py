"""Plants that compute by one hypothesis and write the rival's step too: does the right one win?"""

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
from mech_arith.models.planted.model import PlantedModel
from mech_arith.models.planted.planted import RIVALS, Plant, WrittenValue
from mech_arith.problems import ProblemSet, draw, split
from mech_arith.problems.asked import AskedHypothesis, with_hypotheses
from mech_arith.problems.templates import build_template
from mech_arith.statistics import ALPHA, Resampling

N_PROBLEMS, N_EDITED = 700, 100
"""All of the 1000 problems that there are but some."""


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


def compared(plant: Plant, written: WrittenValue) -> Compared:
    """Interchange a step where it is written, along the component that goes with it."""
    fit, report = split(plant.problems(N_PROBLEMS), fit_share=0.8, seed=plant.seed)
    (row,) = rows_at(
        PlantedModel(plant),
        fit,
        report,
        Site(written.layer, "resid_post", str(written.position)),
        written.value,
        seed=plant.seed,
    )
    own = row["hypothesis"] == plant.hypothesis
    return Compared(
        plant.hypothesis,
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
    how, session = Resampling(n_permutations=100, n_resamples=100, seed=seed), Session(model)
    right = torch.ones(len(report), dtype=torch.bool)
    splits = Splits(fit, report, model.encode(fit), model.encode(report), right)
    found = trace(session, splits, [site], find_method("pca", N_COMPONENTS), how)
    edited = report.take(torch.arange(N_EDITED).numpy())
    asked = ReferenceAnswers.of_problems(edited)
    baseline = run_baseline(session, model.encode(edited), asked)
    plan = InterventionPlan(
        INTERCHANGE.edit, (1.0,), values=(value,), n_sources=2, controls=NO_CONTROLS, seed=seed
    )
    done = intervene(session, Bases(edited, baseline, found), plan, n_shuffles=10)
    scorer = Scorer.of_baseline(baseline, tolerance=model.tolerance, written=True, how=how)
    return hypothesis_table(done, plan, scorer).to_dict(orient="records")


NO_CONTROLS = Controls(0, 0, 0, other=False, shuffled=False)


def of_nothing(seed: int) -> list[str]:
    """What is supported of two hypotheses in a random network, in every layer, for either step.

    Answers are one digit, so that one in ten is as either expects by chance.
    """
    model = digit_model(seed)
    fit, report = split(digit_problems(seed), fit_share=0.5, seed=seed)
    return [
        row["supports"]
        for layer in range(model.n_layers)
        for value in ("b-c", "a-b")
        for row in rows_at(model, fit, report, Site(layer, "resid_post", "last"), value, seed=seed)
    ]


def digit_problems(seed: int) -> ProblemSet:
    """The last digit of a-(b-c), by the tree or from the left."""
    template = build_template("null", "(a-(b-c))%10")
    drawn = draw(template, n=400, ranges=RANGES, seed=seed)
    rival = AskedHypothesis("left_to_right", steps=["a-b", "answer: (a-b+c)%10"])
    template = with_hypotheses(
        template, AskedHypothesis(), [rival], ranges=RANGES, operands=drawn.operands
    )
    return ProblemSet.of(template, drawn.operands)


def rival_rows(seeds: Sequence[int], nulls: Sequence[int]) -> list[Row]:
    """As many plants, every other one computed by the tree; and as many random networks."""
    tests = [supported for seed in nulls for supported in of_nothing(seed)]
    plants = [Plant.of_rivals(seed, RIVALS[place % 2]) for place, seed in enumerate(seeds)]
    read = [compared(plant, plant.read) for plant in plants]
    unread = [compared(plant, plant.unread) for plant in plants]
    n = len(plants)
    right = sum(one.supports == one.right for one in read)
    wrong = sum(one.supports not in (one.right, TIE) for one in (*read, *unread))
    return [
        at_least("rivals: the right hypothesis wins where its step is read", right, n),
        at_most("rivals: the wrong one wins, where its step or the other is written", wrong, 2 * n),
        at_most(
            "rivals: the wrong one above its floor, by p",
            sum(one.p_wrong <= ALPHA for one in (*read, *unread)),
            2 * n,
        ),
        at_most(
            "null: random networks, either hypothesis wins at a site",
            sum(one != TIE for one in tests),
            len(tests),
        ),
        shown(
            "rivals: least iia of the right one, most of the wrong one, where read",
            n,
            f"{min(one.iia for one in read):.2f} {max(one.wrong for one in read):.2f}",
        ),
        shown(
            "rivals: least share of pairs that tell them apart",
            2 * n,
            f"{min(one.n_apart for one in (*read, *unread)):.2f}",
        ),
    ]
