"""Random networks: how often is something found where there is nothing to find?

Their activations vary with the problem, and carry its digits linearly; so the values that they are
traced for are such as no sum over digits goes with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from bars import ALPHA, Row, at_most, shown
from jaxtyping import Float64
from random_networks import DIGITS, RANGES, TEMPLATE, FirstToken, random_decoder
from torch import Tensor

from mech_arith.directions.base import find_method
from mech_arith.directions.random import random_frame
from mech_arith.directions.tracing import Splits, trace
from mech_arith.engine.capture import capture
from mech_arith.engine.run import Baseline, ReferenceAnswers, SiteGrid, run_baseline, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.correlations import correlation_table
from mech_arith.evidence.effects import contrast_table, contrasts_of
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions.controls import (
    CONTROL,
    SPAN,
    TARGET,
    VALUELESS,
    Arm,
    Controls,
    Target,
    arms,
)
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import InterventionResult
from mech_arith.models.arithmetic.loading import ArithmeticDecoder
from mech_arith.problems import ProblemSet, draw, split
from mech_arith.statistics import Resampling

UNITS = (1, 3, 7, 9)
"""Weights of a check digit: they have inverses modulo 10."""
N_PROBLEMS, N_EDITED, N_CONTROLS, N_COMPONENTS = 400, 200, 20, 10
SCALE = find_edit("scale")
FACTORS = (-5.0, 7.0)
"""By which a coordinate is scaled. It holds a 32nd of the variance, more or less: so the change is
about as large as the site's whole spread, and costs a quarter of the answers."""
HOW = Resampling()
NOTHING = Target((0,), ("nothing",))
DRAWN_ALONE = Controls(N_CONTROLS, N_CONTROLS, N_CONTROLS, other=False, shuffled=False)


def with_check_digits(problems: ProblemSet, *, seed: int) -> ProblemSet:
    """The problems, with a check digit in the place of each value: digits times weights, modulo 10.

    Tens and units are uniform, so whoever has not seen all of them knows nothing of it: no sum of
    functions that leave one out each has any correlation with it.
    """
    random = np.random.default_rng([seed, *b"check digits"])
    numbers = np.stack(list(problems.operands.values()), axis=1)
    digits = numbers[..., None] // 10 ** np.arange(DIGITS) % 10
    return replace(
        problems,
        values={
            value: (digits * random.choice(UNITS, size=digits.shape[1:])).sum((1, 2)) % 10
            for value in problems.values
        },
    )


@dataclass(frozen=True)
class Traced:
    """What tracing finds in one random network."""

    corrected: float
    """Smallest p of a chosen component's R over all sites and values, after Holm's correction."""
    corrected_site: float
    """Smallest p of a site's largest |R|, after the same."""
    uncorrected: float
    """Smallest p of one chosen component."""
    largest_r: float
    n_tests: int


def trace_null(seed: int) -> Traced:
    """Trace check digits at every layer, at all positions side by side and at each."""
    model = random_decoder(seed)
    drawn = draw(TEMPLATE, n=N_PROBLEMS, ranges=RANGES, seed=seed)
    splits = split(drawn, fit_share=0.5, seed=seed)
    prompts_fit, prompts = map(model.encode, splits)
    fit, report = (with_check_digits(problems, seed=seed) for problems in splits)
    positions = ["all", *map(str, range(prompts.layouts[0].tokens.shape[1]))]
    traces = trace(
        Session(model),
        Splits(fit, report, prompts_fit, prompts, torch.ones(len(report), dtype=torch.bool)),
        [Site(layer, "resid_post", at) for layer in range(model.n_layers) for at in positions],
        find_method("pca", N_COMPONENTS),
        replace(HOW, seed=seed, n_resamples=100),
    )
    table = correlation_table(traces, prompts=prompts, n_fit=len(fit))
    tests = table.loc[table["chosen"]].dropna(subset="p")
    return Traced(
        float(table["p_holm"].min()),
        float(table["p_site_holm"].min()),
        float(tests["p"].min()),
        float(table["abs_r"].max()),
        len(tests),
    )


@dataclass(frozen=True)
class Contrasted:
    """Random directions in the target's place, one in each layer, each against others."""

    drop: float
    """Mean over layers."""
    p: float
    """Of one layer that is drawn."""
    p_max: float
    """The smallest of all layers, corrected for their number."""


def contrast_null(seed: int) -> Contrasted:
    """Scale a random direction's coordinate, move others as far, and compare.

    The network's own first tokens stand for the right answers: no network can miss those, and every
    edit can.
    """
    model = random_decoder(seed)
    model.reader = FirstToken()
    problems = draw(TEMPLATE, n=N_EDITED, ranges=RANGES, seed=seed)
    baseline = own_answers(model, problems)
    random = torch.Generator().manual_seed(seed)
    scorer = Scorer.of_baseline(baseline, tolerance=0.0, written=False, how=HOW)
    contrasts = [
        found
        for site in (Site(layer, "resid_post", "last") for layer in range(model.n_layers))
        for found in contrasts_of(
            _treated(model, baseline, site, NOTHING, _random_arms(model.d_model, random)),
            SCALE,
            scorer,
        )
    ]
    rows = contrast_table(contrasts).to_dict(orient="records")
    chosen = int(torch.randint(len(rows), (), generator=random))
    drop = sum(row["target_drop"] for row in rows) / len(rows)
    return Contrasted(drop, rows[chosen]["p"], min(row["p_max"] for row in rows))


def _random_arms(width: int, random: torch.Generator) -> list[Arm]:
    """One random direction, and others."""
    target, *controls = (random_frame(1, width, generator=random) for _ in range(1 + N_CONTROLS))
    return [
        Arm(TARGET, target[None].float(), ("random",)),
        Arm(CONTROL, torch.stack(controls).float(), tuple(map(str, range(N_CONTROLS)))),
    ]


@dataclass(frozen=True)
class Components:
    """A component that carries no value, against each kind of drawn directions moved as far."""

    p: dict[str, float]
    """By arm."""
    beyond: bool
    """It counts as costing more than all kinds, by p and interval."""


def component_null(seed: int) -> Components:
    """Scale a component that carries no value, in a layer that is drawn, beside its controls.

    A component that seems to cost more than its controls does so for its variance alone.
    """
    model = random_decoder(seed)
    model.reader = FirstToken()
    random = torch.Generator().manual_seed(seed)
    drawn = draw(TEMPLATE, n=2 * N_EDITED, ranges=RANGES, seed=seed)
    splits = split(drawn, fit_share=0.5, seed=seed)
    fit, report = (with_check_digits(problems, seed=seed) for problems in splits)
    site = Site(int(torch.randint(model.n_layers, (), generator=random)), "resid_post", "last")
    baseline = own_answers(model, report)
    right = torch.ones(len(report), dtype=torch.bool)
    found = trace(
        Session(model),
        Splits(fit, report, model.encode(fit), baseline.prompts, right),
        [site],
        find_method("pca", N_COMPONENTS),
        replace(HOW, seed=seed, n_resamples=100, n_permutations=100),
    )[site]
    target = Target((int(torch.randint(len(found.r_fit), (), generator=random)),), ("nothing",))
    tried = arms(found, target, DRAWN_ALONE, seed=seed)
    results = _treated(model, baseline, site, target, tried)
    scorer = Scorer.of_baseline(baseline, tolerance=0.0, written=False, how=HOW)
    rows = [one.fields for one in contrasts_of(results, SCALE, scorer)]
    return Components(
        {row["arm"]: row["p"] for row in rows},
        all(row["p"] <= ALPHA and row["low"] > 0 for row in rows),
    )


def _treated(
    model: ArithmeticDecoder,
    baseline: Baseline,
    site: Site,
    target: Target,
    tried: Sequence[Arm],
) -> InterventionResult:
    """All arms moved as far as the target's one direction, which comes first."""
    coordinate = _centred(model, baseline, site) @ tried[0].frames[0].double().mT
    changes = torch.stack([(factor - 1) * coordinate for factor in FACTORS])
    frames = torch.cat([arm.frames for arm in tried])
    (answers,) = run_edits(Session(model), baseline, [SiteGrid(site, frames, changes)])
    return InterventionResult(
        site,
        target,
        tuple(tried),
        changes[None],
        coordinate,
        torch.arange(len(baseline)),
        answers.split(-1, 1, len(changes)),
    )


def own_answers(model: ArithmeticDecoder, problems: ProblemSet) -> Baseline:
    """The problems, for which what the model answers is right."""
    unknown = torch.full((len(problems),), torch.nan, dtype=torch.float64)
    asked = ReferenceAnswers(torch.zeros_like(unknown), unknown, bound=model.width_out)
    found = run_baseline(Session(model), model.encode(problems), asked)
    return replace(found, asked=replace(asked, right=found.answers.numbers))


def _centred(
    model: ArithmeticDecoder, baseline: Baseline, site: Site
) -> Float64[Tensor, "n width"]:
    """Activations of every problem, zero at the mean."""
    found = torch.zeros(len(baseline), model.d_model, dtype=torch.float64)
    for layout, captured in capture(Session(model), baseline.prompts, [site]):
        found[layout.rows] = captured[site].double()
    return found - found.mean(0)


def null_rows(seeds: Sequence[int]) -> list[Row]:
    """Trace and edit as many random networks."""
    traced = [trace_null(seed) for seed in seeds]
    edited = [contrast_null(seed) for seed in seeds]
    components = [component_null(seed) for seed in seeds]
    n = len(traced)
    n_tests = max(one.n_tests for one in traced)
    any_p = sum(one.uncorrected <= ALPHA for one in traced)
    drops = torch.tensor([one.drop for one in edited], dtype=torch.float64)

    def by_p(arm: str) -> int:
        return sum(one.p[arm] <= ALPHA for one in components)

    return [
        at_most(
            f"random networks in which tracing finds anything in {n_tests} tests (Holm)",
            sum(one.corrected <= ALPHA for one in traced),
            n,
        ),
        at_most(
            "the same of the largest |R| of each site",
            sum(one.corrected_site <= ALPHA for one in traced),
            n,
        ),
        shown("the same without correction", n, f"{any_p}"),
        shown("largest |R| in them", n, f"{max(one.largest_r for one in traced):.2f}"),
        at_most(
            "random directions that cost more than others moved as far, by p",
            sum(one.p <= ALPHA for one in edited),
            n,
        ),
        at_most(
            "random networks in which any layer's does, by p corrected for the search",
            sum(one.p_max <= ALPHA for one in edited),
            n,
        ),
        shown("share of answers that they change", n, f"{float(drops.mean()):.2f}"),
        at_most(
            "components without a value that count as costing more than every kind of directions",
            sum(one.beyond for one in components),
            n,
        ),
        *(
            shown(f"the same by p, than {arm} directions alone", n, f"{by_p(arm)}")
            for arm in (CONTROL, SPAN, VALUELESS)
        ),
    ]
