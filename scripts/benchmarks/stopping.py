"""Draws that stop once p is decided: is p right all the same, and are the means?

Targets that are one more draw, so that p is at most alpha in a share alpha of cases: of directions
in random networks, by the whole way from edits to the table, and of numbers that were made up.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from bars import ALPHA, Row, at_most, shown
from jaxtyping import Float64
from nulls import own_answers, with_check_digits
from random_networks import RANGES, TEMPLATE, FirstToken, random_decoder
from torch import Tensor

from mech_arith.directions.base import find_method
from mech_arith.directions.tracing import Splits, Trace, trace
from mech_arith.engine.run import Baseline, SiteGrid, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.evidence.effects import contrasts_of, drops_of
from mech_arith.evidence.scorer import Scorer
from mech_arith.interventions import FIRST_DRAWS
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import (
    DRAWN,
    TARGET,
    Arm,
    Controls,
    Target,
    arms,
    further,
    orthonormal,
)
from mech_arith.interventions.edits.base import find_edit
from mech_arith.interventions.result import Draws, InterventionResult
from mech_arith.interventions.sequential import Drawing, draw_on
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.problems import draw, split
from mech_arith.statistics import Resampling, holm, sequential_p

STOPS = (5, 10, 20)
LEVELS = (ALPHA, 0.01)
MOST = 199
N_PROBLEMS, N_MADE_UP, N_COMPONENTS, N_TARGETS = 30, 200, 10, 5
DOSES = (0.7, 1.0)
"""How far every problem moves along a direction, as a share of the activations' mean length: far
enough to change some answers and not all. The same for the target and its controls, so that nothing
tells the target from one more draw."""
NONE = Controls(0, 0, 0, other=False, shuffled=False)
OTHER_SEED = 2**20
"""What the seeds of targets are apart from those of their controls."""
SHIFT = find_edit("shift")
HOW = Resampling(n_resamples=100, n_permutations=100)


def stopping_rows(n_cases: int, *, seed: int) -> list[Row]:
    """Of random networks, and of made-up drops."""
    return [*_network_rows(n_cases, seed=seed), *_made_up_rows(n_cases, seed=seed)]


def _network_rows(n_cases: int, *, seed: int) -> Iterator[Row]:
    """Directions in random networks, of each kind in turn."""
    drawn: list[Draws] = []
    while len(drawn) < n_cases:
        drawn += null_draws(seed * 100_000 + len(drawn))
    n = len(drawn)
    for stop_after in STOPS:
        p = torch.stack([replace(one, stop_after=stop_after).of_mean.p for one in drawn])
        n_draws = torch.stack(
            [replace(one, stop_after=stop_after).of_mean.n_draws for one in drawn]
        )
        for alpha in LEVELS:
            what = f"random networks: directions like their controls, p <= {alpha:g}"
            hits = int((p <= alpha).sum())
            yield at_most(f"{what}, stopped after {stop_after}", hits, n, alpha=alpha)
        yield shown(
            f"directions drawn of at most {MOST}, median and mean, stopped after {stop_after}",
            n,
            f"{float(n_draws.double().median()):g}; {float(n_draws.double().mean()):.0f}",
        )
    cost = torch.stack([one.of_target.mean() for one in drawn])
    yield shown("share of answers that these change", n, f"{float(cost.mean()):.2f}")


def null_draws(seed: int) -> list[Draws]:
    """Of one network, a target at each layer and component: drawn as its controls are."""
    model = random_decoder(seed)
    model.reader = FirstToken()
    drawn = draw(TEMPLATE, n=4 * N_PROBLEMS, ranges=RANGES, seed=seed)
    fit, report = split(drawn, fit_share=0.75, seed=seed)
    baseline, sites = own_answers(model, report), _sites(model)
    right = torch.ones(len(report), dtype=torch.bool)
    fit_digits, report_digits = (with_check_digits(some, seed=seed) for some in (fit, report))
    splits = Splits(fit_digits, report_digits, model.encode(fit), baseline.prompts, right)
    traces = trace(Session(model), splits, sites, find_method("pca", N_COMPONENTS), HOW)
    bases = Bases(report, baseline, traces)
    scorer = Scorer.of_baseline(baseline, tolerance=0.0, written=False, how=HOW)
    done: list[Draws] = []
    for turn, kind in enumerate(DRAWN):
        treated = [
            _treated(model, baseline, found, component, kind, seed=seed)
            for place, found in enumerate(traces.values())
            for component in range((place + turn) % len(DRAWN), N_COMPONENTS, len(DRAWN))
        ]
        controls = replace(NONE, **{_option(kind): MOST}, stop_after=max(STOPS))
        drawing = Drawing(controls, (1.0,) * len(DOSES), seed, drops_of(scorer))
        for one in draw_on(Session(model), bases, treated, drawing):
            (row,) = (each.fields for each in contrasts_of(one, SHIFT, scorer))
            assert row["p"] == float(one.draws[kind].of_mean.p), "the table has another p"
            done.append(one.draws[kind])
    return done


def _sites(model: ArithmeticDecoder) -> list[Site]:
    return [Site(layer, "resid_post", "last") for layer in range(model.n_layers)]


def _option(kind: str) -> str:
    """The config's word for a kind of directions."""
    return "random" if kind == "control" else kind


def _treated(
    model: ArithmeticDecoder,
    baseline: Baseline,
    found: Trace,
    component: int,
    kind: str,
    *,
    seed: int,
) -> InterventionResult:
    """The first draws of a kind, and in the target's place one more of them."""
    target = Target((component,), ("nothing",))
    one_more = orthonormal(next(further(found, target, kind, seed=seed + OTHER_SEED))[None])
    first = replace(NONE, **{_option(kind): FIRST_DRAWS})
    _, control = arms(found, target, first, seed=seed)
    tried = (Arm(TARGET, one_more, ("one more",)), control)
    length = float(found.subspace.mean.norm())
    doses = length * torch.tensor(DOSES, dtype=torch.float64)
    changes = doses[:, None, None].expand(-1, len(baseline), 1)
    frames = torch.cat([arm.frames for arm in tried])
    (answers,) = run_edits(Session(model), baseline, [SiteGrid(found.site, frames, changes)])
    return InterventionResult(
        found.site,
        target,
        tried,
        changes[None],
        found.coordinates[:, [component]],
        torch.arange(len(baseline)),
        answers.split(-1, 1, len(DOSES)),
    )


def _made_up_rows(n_cases: int, *, seed: int) -> Iterator[Row]:
    """Shares of problems that are lost, each with a chance that differs by direction: some tie."""
    random = torch.Generator().manual_seed(seed)
    drops = _made_up(n_cases * N_TARGETS, random)
    for stop_after in STOPS:
        found = sequential_p(drops[:, 0], drops[:, 1:], stop_after=stop_after)
        for alpha in LEVELS:
            what = f"made-up drops, p <= {alpha:g}, stopped after {stop_after}"
            yield at_most(what, int((found.p <= alpha).sum()), len(drops), alpha=alpha)
        searches = found.p.view(n_cases, N_TARGETS)
        hits = sum(bool((holm(p) <= ALPHA).any()) for p in searches)
        what = f"searches among {N_TARGETS} of these in which any p is, Holm, stopped after"
        yield at_most(f"{what} {stop_after}", hits, n_cases)
        yield _mean_row(drops, found.n_draws, stop_after)


def _made_up(n: int, random: torch.Generator) -> Float64[Tensor, "n draws"]:
    """The share lost along a target and its controls, all drawn alike."""
    chance = torch.rand(n, 1 + MOST, generator=random, dtype=torch.float64).square() / 2
    problems = torch.full_like(chance, N_MADE_UP)
    return torch.binomial(problems, chance, generator=random) / N_MADE_UP


def _mean_row(drops: Tensor, n_draws: Tensor, stop_after: int) -> Row:
    """How far means over the first draws, and over all of them, are from the truth: in each case
    whose target costs more than half of the controls do.
    """
    controls, truth = drops[:, 1:], 1 / 6
    above = drops[:, 0] > truth
    drawn = torch.arange(MOST) < n_draws[:, None].clamp(min=1)
    first = controls[:, :FIRST_DRAWS].mean(1)[above] - truth
    every = ((controls * drawn).sum(1) / drawn.sum(1))[above] - truth
    error = float(first.std() / len(first) ** 0.5)
    found = f"{float(first.mean()):+.4f}; {float(every.mean()):+.4f}"
    return Row(
        f"how far off the mean of the first {FIRST_DRAWS} is; of all, stopped after {stop_after}",
        len(first),
        found,
        f"first: 0 +- {3 * error:.4f}",
        abs(float(first.mean())) <= 3 * error,
    )
