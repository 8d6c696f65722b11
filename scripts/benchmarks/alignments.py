"""Trained rotations: do they find what is planted, and beat their control task where nothing is?"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from bars import ALPHA, Row, at_least, at_most, shown
from jaxtyping import Bool, Float64
from random_networks import RANGES, TEMPLATE, FirstToken, random_decoder
from scipy.stats import binomtest
from torch import Tensor

from mech_arith.directions.base import FitTask, find_method
from mech_arith.directions.readings import control_values
from mech_arith.directions.tracing import value_table
from mech_arith.engine.capture import capture
from mech_arith.engine.run import ReferenceAnswers, SiteEdits, edited_answers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.base import Model
from mech_arith.models.planted.model import PlantedModel
from mech_arith.models.planted.planted import Plant
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet, draw, split
from mech_arith.problems.sources import Sources, draw_sources
from mech_arith.problems.templates import build_template

FOUND = 0.99
"""The iia from which a planted value counts as found."""
N_PROBLEMS = 400
RANDOM = {"steps": 100, "batch": 32, "pairs": 200}
"""Options in random networks; in planted models they are the defaults."""
RANK, LAYER = 2, 1
"""Of the rotations in random networks."""
DIGIT = build_template("digit", "(a+b*c%10)%10")
"""Its inner value is a digit that no sum over the operands' digits goes with."""
INNER = "b*c%10"


def digit_model(seed: int) -> Model:
    """A random decoder that reads `DIGIT` as prompts of its own, and answers with one token."""
    model = random_decoder(seed)
    model.reader = FirstToken()
    encode = model.encode

    def as_own(problems: ProblemSet, *, digits: int = 0) -> Prompts:
        return encode(ProblemSet.of(TEMPLATE, problems.operands), digits=digits)

    model.encode = as_own  # pyright: ignore[reportAttributeAccessIssue]
    return model


def trained(
    task: FitTask, value: str, options: Mapping[str, Any] | None = None
) -> Float64[Tensor, "k width"]:
    """The frame of a value, of the task's only rank."""
    (rank,) = task.ranks
    fitter: Any = find_method("das", rank, options, ranks=task.ranks).fitter(task)
    return fitter.frames(task.problems.hypothesis.values.index(value))[rank]


def interchanged(
    model: Model, sources: Sources, site: Site, frame: Float64[Tensor, "k width"]
) -> Float64[Tensor, " n"]:
    """The answers of the base problems where sources' coordinates take the place of theirs."""
    session, base = Session(model), sources.base

    def coordinates(problems: ProblemSet) -> Float64[Tensor, "n k"]:
        found = torch.zeros(len(problems), len(frame), dtype=torch.float64)
        for layout, captured in capture(session, model.encode(problems), [site]):
            found[layout.rows] = captured[site].double() @ frame.mT
        return found

    moved = coordinates(sources.problems[0]) - coordinates(base)
    asked = ReferenceAnswers.of_problems(base)
    baseline = run_baseline(session, model.encode(base), asked)
    edits = SiteEdits(site, frame[None], moved[None])
    return edited_answers(session, baseline, edits).numbers[0]


def iia(
    model: PlantedModel, sources: Sources, site: Site, frame: Float64[Tensor, "k width"]
) -> float:
    """Share of the base problems whose answer becomes the one with the source's value."""
    numbers = interchanged(model, sources, site, frame)
    return float(((numbers - sources.expected[0]).abs() <= model.tolerance).double().mean())


def planted_iia(seed: int) -> float:
    """Of the planted value that is read, by a rotation of rank 1 where it is written."""
    plant = Plant.drawn(seed)
    model, read = PlantedModel(plant), plant.read
    fit, report = split(plant.problems(N_PROBLEMS), fit_share=0.5, seed=seed)
    site = Site(read.layer, "resid_post", str(read.position))
    task = FitTask(Session(model), fit, model.encode(fit), site, value_table(fit), (1,))
    sources = draw_sources(report, read.value, m=1, n_shuffles=1, seed=seed)
    assert sources is not None
    return iia(model, sources, site, trained(task, read.value))


def null_hits(seed: int) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """By problem of the report split of a random network: whether the answer follows the value, by
    the rotation for it; and its stand-in, by the rotation for the control task.
    """
    model = digit_model(seed)
    drawn = draw(DIGIT, n=N_PROBLEMS, ranges=RANGES, seed=seed)
    fit, report = split(drawn, fit_share=0.5, seed=seed)
    site, session = Site(LAYER, "resid_post", "last"), Session(model)
    sources = draw_sources(report, INNER, m=1, n_shuffles=1, seed=seed)
    assert sources is not None
    index = DIGIT.expression.values.index(INNER)
    there = control_values(fit, sources.problems[0])[:, index]
    numbers = there.long().numpy()
    stand_in = DIGIT.hypothesis.replace(INNER, numbers, sources.base.operands)
    wanted = (sources.expected[0], torch.from_numpy(stand_in).double())
    hits = []
    for is_control, numbers in zip((False, True), wanted, strict=True):
        values = control_values(fit, fit) if is_control else value_table(fit)
        prompts = model.encode(fit)
        task = FitTask(session, fit, prompts, site, values, (RANK,), is_control=is_control)
        frame = trained(task, INNER, RANDOM)
        hits.append(interchanged(model, sources, site, frame) == numbers)
    return hits[0], hits[1]


def beats(own: Bool[Tensor, " n"], control: Bool[Tensor, " n"]) -> bool:
    """Whether the value is followed more often than its stand-in (McNemar's exact test)."""
    more, less = int((own & ~control).sum()), int((control & ~own).sum())
    if more <= less:
        return False
    return bool(binomtest(more, more + less, alternative="greater").pvalue <= ALPHA)


def das_rows(plants: Sequence[int], nulls: Sequence[int]) -> list[Row]:
    """Train in as many planted models, and in as many random networks."""
    found = [planted_iia(seed) for seed in plants]
    hits = [null_hits(seed) for seed in nulls]
    n = len(hits)
    shares = [torch.stack(pair).double().mean(1) for pair in hits]
    own, control = torch.stack(shares).mean(0).tolist()
    return [
        at_least(
            f"planted values of which das finds the direction (iia >= {FOUND})",
            sum(one >= FOUND for one in found),
            len(found),
            note=f", least {min(found):.3f}",
        ),
        at_most(
            "random networks in which das beats its control task",
            sum(beats(*pair) for pair in hits),
            n,
        ),
        shown("iia of das in them, and of its control task", n, f"{own:.3f}, {control:.3f}"),
    ]
