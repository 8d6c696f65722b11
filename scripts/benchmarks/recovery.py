"""Planted models: is what was planted found, and told apart by what is done with it?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from bars import ALPHA, Row, at_least, at_most, shown

from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits, Trace, trace
from mech_arith.engine.run import ReferenceAnswers, run_baseline
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.effects import intervention_tables
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import CONTROL, TARGET, Controls
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.run import InterventionPlan, intervene
from mech_arith.models.planted.model import PlantedModel
from mech_arith.models.planted.planted import Plant
from mech_arith.problems import ProblemSet, split
from mech_arith.statistics import Resampling

FOUND = 0.99
"""|R| from which a value counts as found, and iia from which it counts as read."""
N_PROBLEMS, FIT_SHARE, N_EDITED = 5000, 0.8, 300
"""A direction fitted on n problems strays by 1/sqrt(n) towards what varies beside it, and an answer
is right or wrong by half a unit: a thousand problems would miss a few plants by that alone."""
N_COMPONENTS = 8
INTERCHANGE = InterventionPlan(
    find_edit("interchange"),
    (1.0,),
    controls=Controls(random=20, span=0, other=False, shuffled=False),
    n_sources=2,
)


@dataclass(frozen=True)
class Interchanged:
    """What became of the answers where a value's coordinate is another problem's."""

    iia: float
    """Share of answers that are those of the other value."""
    floor: float
    """The same by chance."""
    excess_drop: float
    """Accuracy lost beyond what random directions cost that are moved as far."""
    p: float

    @property
    def costs_more(self) -> bool:
        """Whether it is told apart from random directions."""
        return self.excess_drop > 0 and self.p <= ALPHA


@dataclass(frozen=True)
class Recovered:
    """What was found of one plant."""

    plant: Plant
    accuracy: float
    read_at: tuple[int, int] | None
    """Layer and position of the first site at which it is found."""
    unread_at: tuple[int, int] | None
    absent: float
    """Largest |R| at any site."""
    read: Interchanged
    unread: Interchanged

    @property
    def placed(self) -> tuple[bool, bool]:
        """Whether each written value was found first where it is written."""
        plant = self.plant
        return (
            self.read_at == (plant.read.layer, plant.read.position),
            self.unread_at == (plant.unread.layer, plant.unread.position),
        )


def recover(plant: Plant, *, n_problems: int = N_PROBLEMS) -> Recovered:
    """Trace a plant everywhere, and interchange its values where they are found first."""
    model, how = PlantedModel(plant), Resampling(n_permutations=100, n_resamples=100)
    fit, report = split(plant.problems(n_problems), fit_share=FIT_SHARE, seed=plant.seed)
    traces = trace_everywhere(model, fit, report, how)
    places = {value: _first_site(traces, value) for value in (plant.read.value, plant.unread.value)}
    edited = report.take(torch.arange(N_EDITED).numpy())
    baseline = run_baseline(
        Session(model), model.encode(edited), ReferenceAnswers.of_problems(edited)
    )
    right = (baseline.answers.numbers - baseline.asked.right).abs() <= model.tolerance

    def interchanged(value: str) -> Interchanged:
        site = places[value]
        if site is None:
            return Interchanged(*[float("nan")] * 4)
        plan = replace(INTERCHANGE, values=(value,))
        bases = Bases(edited, baseline, {site: traces[site]})
        done = intervene(Session(model), bases, plan, n_shuffles=how.n_permutations)
        scorer = Scorer.of_baseline(
            baseline, tolerance=model.tolerance, written=not model.regresses, how=how
        )
        tables = intervention_tables(done, plan, scorer)
        iia, contrast = tables["counterfactual"], tables["contrasts"]
        (of_target,) = iia[iia["arm"] == TARGET].to_dict(orient="records")
        (beyond,) = contrast[contrast["arm"] == CONTROL].to_dict(orient="records")
        return Interchanged(
            of_target["iia"], of_target["floor"], beyond["excess_drop"], beyond["p"]
        )

    return Recovered(
        plant,
        float(right.double().mean()),
        _place(places[plant.read.value]),
        _place(places[plant.unread.value]),
        max(_best_r(found, plant.absent) for found in traces.values()),
        interchanged(plant.read.value),
        interchanged(plant.unread.value),
    )


def trace_everywhere(
    model: PlantedModel, fit: ProblemSet, report: ProblemSet, how: Resampling
) -> dict[Site, Trace]:
    """Every layer and single position, layer by layer; without those at which nothing varies."""
    prompts_fit, prompts = model.encode(fit), model.encode(report)
    n_positions = prompts.layouts[0].tokens.shape[1]
    traces = trace(
        Session(model),
        Splits(fit, report, prompts_fit, prompts, torch.ones(len(report), dtype=torch.bool)),
        [
            Site(layer, "resid_post", str(position))
            for layer in range(model.n_layers)
            for position in range(n_positions)
        ],
        find_method("pca", N_COMPONENTS),
        how,
    )
    return {site: found for site, found in traces.items() if not found.is_constant}


def _best_r(found: Trace, value: str) -> float:
    """|R| on the report split of the component that is best on the fit split."""
    best = found.best_component(value)
    return 0.0 if best is None else abs(float(found.r[best, found.values.index(value)]))


def _first_site(traces: dict[Site, Trace], value: str) -> Site | None:
    sites = (site for site, found in traces.items() if _best_r(found, value) >= FOUND)
    return next(sites, None)


def _place(site: Site | None) -> tuple[int, int] | None:
    return None if site is None else (site.layer, int(site.position))


def planted_rows(seeds: Sequence[int]) -> list[Row]:
    """Recover as many plants."""
    return rows_of([recover(Plant.drawn(seed)) for seed in seeds])


def rows_of(found: Sequence[Recovered]) -> list[Row]:
    """How many plants were recovered, part by part."""
    n = len(found)
    read, unread = ([one.placed[which] for one in found] for which in range(2))
    floors = [max(kind.floor for kind in kinds) for kinds in _kinds(found)]
    return [
        at_least("planted: answers all right", sum(one.accuracy == 1 for one in found), n),
        at_least(f"planted, read: |R| >= {FOUND} first where it is written", sum(read), n),
        at_least(f"planted, not read: |R| >= {FOUND} first where it is written", sum(unread), n),
        at_least(
            f"planted, not written: |R| < {FOUND} everywhere",
            sum(one.absent < FOUND for one in found),
            n,
            note=f", largest |R| {max(one.absent for one in found):.2f}",
        ),
        at_least(
            f"planted, read: iia >= {FOUND}",
            sum(one.read.iia >= FOUND for one in found),
            n,
            note=f", least {min(one.read.iia for one in found):.3f}",
        ),
        at_least(
            "planted, not read: iia at the floor or below",
            sum(one.unread.iia <= one.unread.floor for one in found),
            n,
            note=f", most {max(one.unread.iia for one in found):.3f}",
        ),
        shown("planted: largest floor, read and not read", n, " ".join(f"{x:.2f}" for x in floors)),
        shown(
            "planted, read: costs more than random directions, by p",
            n,
            f"{sum(one.read.costs_more for one in found)}",
        ),
        at_most(
            "planted, not read: costs more than random directions, by p",
            sum(one.unread.costs_more for one in found),
            n,
        ),
    ]


def _kinds(found: Sequence[Recovered]) -> tuple[list[Interchanged], list[Interchanged]]:
    """Of the values that are read, and of those that are not."""
    return [one.read for one in found], [one.unread for one in found]
