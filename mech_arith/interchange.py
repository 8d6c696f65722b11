"""Runs that tell whether a coordinate is used as a value: towards sources, and their bounds.

Three things stand beside the edit itself: the coordinates that the sources have, which
`interchange` takes; the ceiling, where not one coordinate but the whole activation of the site is
taken from the source; and for specificity the coordinate taken from sources of the *other* values.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.activations import capture
from mech_arith.answers import Answers
from mech_arith.batching import Batching
from mech_arith.controls import DRAWN, TARGET, Target
from mech_arith.counterfactual import Sources, agreement, following, mean_slope
from mech_arith.edits import Edit
from mech_arith.effects import Judge, Treated
from mech_arith.engine import Baseline, Moves, SiteEdits, SiteVectors, run_edits
from mech_arith.metrics import exact, settled
from mech_arith.problems import ProblemSet
from mech_arith.progress import progress
from mech_arith.sites import Site
from mech_arith.solvers.base import Solver
from mech_arith.solvers.prompts import Prompts
from mech_arith.statistics import ALPHA, draws_needed, holm, least_p, share_interval
from mech_arith.tracing import Trace, read_coordinates
from mech_arith.unfinished import Unfinished
from mech_arith.verdicts import layers_text, unable

AT_ONCE = 2**27
"""Numbers of whole activations that are held at a time: half a gibibyte."""


@dataclass(frozen=True)
class Bench:
    """A solver and the problems that are edited, ready to be run."""

    solver: Solver
    baseline: Baseline
    traces: Mapping[Site, Trace]
    digits: int
    """Of the largest operand, so that prompts of sources are like those of the problems."""
    batching: Batching
    unfinished: Unfinished

    def encode(self, problems: ProblemSet) -> Prompts:
        return self.solver.encode(problems, digits=self.digits)

    def run(self, moves: Sequence[Moves], *, description: str) -> list[Answers]:
        """Answers under each entry's edits, [edits, n]."""
        n_rows = sum(len(of_site) for of_site in moves) * len(self.baseline)
        with progress(n_rows, description=description, unit="edits") as bar:
            return run_edits(
                self.solver,
                self.baseline,
                moves,
                batching=self.batching,
                bar=bar,
                unfinished=self.unfinished,
            )


def source_coordinates(bench: Bench, sources: Sources) -> dict[Site, Float64[Tensor, "m n k"]]:
    """Of every source on the components of every site: a clean pass over each set of sources."""
    places = [list(site.columns().values()) for site in bench.traces]
    found = []
    for problems in sources.problems:
        prompts = bench.encode(problems)
        key = {**bench.solver.fingerprint, "sources": prompts.digest(), "sites": places}
        piece = bench.unfinished.piece("sources", key)

        def read(prompts: Prompts = prompts) -> dict[str, Tensor]:
            return read_coordinates(bench.solver, prompts, bench.traces, batching=bench.batching)

        found.append(piece.fetch("coordinates", read))
    return {
        site: torch.stack([of_set[f"site {i}"] for of_set in found])
        for i, site in enumerate(bench.traces)
    }


def ceilings(
    bench: Bench, every: Mapping[str, Sources], sites: Sequence[Site]
) -> dict[tuple[str, Site], Float64[Tensor, " n"]]:
    """The answers where each problem's whole activation at a site is its first source's.

    By value and site, for the problems that have sources of the value.
    """
    solver, baseline = bench.solver, bench.baseline
    prompts = {value: bench.encode(sources.problems[0]) for value, sources in every.items()}
    found: dict[tuple[str, Site], Tensor] = {}
    for some in _some_at_a_time(solver, baseline.prompts, sites, n_values=len(every)):
        added = {site: [] for site in some}
        own = _collect(solver, baseline.prompts, some, bench.batching)
        for value, sources in every.items():
            theirs = _collect(solver, prompts[value], some, bench.batching)
            for site in some:
                moved = theirs[site] - own[site][sources.rows]
                added[site].append(_of_all(moved, sources, baseline))
        moves = [SiteVectors(site, torch.cat(of_site)) for site, of_site in added.items()]
        answers = bench.run(moves, description="ceilings")
        for site, of_site in zip(some, answers, strict=True):
            for index, (value, sources) in enumerate(every.items()):
                found[value, site] = of_site.numbers[index, sources.rows]
    return found


def _some_at_a_time(
    solver: Solver, prompts: Prompts, sites: Sequence[Site], *, n_values: int
) -> Iterator[Sequence[Site]]:
    """As many sites as may be held whole, for the sources of every value."""
    width = max(
        len(layout.positions(site.position)) * site.width(solver)
        for site in sites
        for layout in prompts.layouts
    )
    size = max(1, AT_ONCE // (width * len(prompts) * n_values))
    for start in range(0, len(sites), size):
        yield sites[start : start + size]


def _collect(
    solver: Solver, prompts: Prompts, sites: Sequence[Site], batching: Batching
) -> dict[Site, Float[Tensor, "n width"]]:
    """Whole activations, in the solver's own numbers."""
    found: dict[Site, Tensor] = {}
    for layout, captured in capture(solver, prompts, sites, batching):
        for site, activation in captured.items():
            if site not in found:
                found[site] = activation.new_empty(len(prompts), activation.shape[1])
            found[site][layout.rows] = activation
    return found


def _of_all(
    vectors: Float[Tensor, "n width"], sources: Sources, baseline: Baseline
) -> Float[Tensor, "1 all width"]:
    """Zero for the problems that have no source."""
    added = vectors.new_zeros(1, len(baseline), vectors.shape[1])
    added[0, sources.rows] = vectors
    return added


def agreement_rows(
    treated: Treated,
    sources: Sources,
    ceiling: Float64[Tensor, " n"],
    edit: Edit,
    strengths: Sequence[float],
    judge: Judge,
) -> list[dict[str, Any]]:
    """A row per arm and strength: how far the answers follow the wanted values.

    Args:
        treated: the edits towards the sources.
        sources: what they go towards.
        ceiling: the answers with the whole activation of the first source.
        edit: what was done.
        strengths: as in `treated.changes`.
        judge: of all edited problems.
    """
    judge = judge.of(treated.rows)
    bound = _ceiling_fields(ceiling, sources, judge)
    return [
        {
            **treated.key,
            "value": sources.value,
            "edit": edit.name,
            "strength": strength,
            "arm": arm.name,
            "n_directions": len(arm.directions),
            "n": len(treated.rows),
            "n_sources": len(sources.problems),
            **asdict(
                agreement(
                    answers.numbers[:, :, index],
                    judge.clean.numbers,
                    sources,
                    tolerance=judge.tolerance,
                    how=judge.how,
                    drawn=arm.name in DRAWN,
                )
            ),
            **bound,
        }
        for arm, answers in treated.by_arm()
        for index, strength in enumerate(strengths)
    ]


def _ceiling_fields(
    ceiling: Float64[Tensor, " n"], sources: Sources, judge: Judge
) -> dict[str, float | str]:
    """NaN where a source differs from its base in more than the value."""
    if not sources.replaces_the_value_alone:
        nothing = dict.fromkeys(("ceiling", "ceiling_low", "ceiling_high"), float("nan"))
        return {**nothing, "ceiling_reason": "a source differs in more than the value"}
    hits = exact(ceiling, sources.expected[0], tolerance=judge.tolerance).double()
    ends = share_interval(hits, judge.how)
    return {
        "ceiling": float(hits.mean()),
        "ceiling_low": float(ends.low),
        "ceiling_high": float(ends.high),
        "ceiling_reason": "",
    }


@dataclass(frozen=True)
class Direction:
    """A component at a site, and the values that it is the best one for."""

    site: Site
    target: Target
    along: Float[Tensor, " width"]
    """Unit vector."""


def specificity_rows(
    bench: Bench,
    directions: Sequence[Direction],
    every: Mapping[str, Sources],
    places: Mapping[str, Mapping[Site, Float64[Tensor, "m n k"]]],
    judge: Judge,
) -> list[dict[str, Any]]:
    """Each value's direction x each value's change in the answer.

    Along the direction of one value every problem takes the coordinate of a source of which
    *another* value (or, on the diagonal, the same) was changed. If the direction carries its value
    alone, the answer follows the changes of that value, and of those that it is computed from.

    Args:
        bench: the problems.
        directions: of values at sites.
        every: sources by value.
        places: their coordinates by value and site.
        judge: of all edited problems.
    """
    sites = list(dict.fromkeys(one.site for one in directions))
    pairs = {
        site: [pair for pair in product(directions, every.values()) if pair[0].site == site]
        for site in sites
    }
    # All edits of a site in one entry: the engine runs them side by side.
    moves = [
        SiteEdits(
            site,
            torch.stack([one.along for one, s in of_site for _ in s.problems]),
            torch.cat([_towards(bench, one, s, places[s.value]) for one, s in of_site]),
        )
        for site, of_site in pairs.items()
    ]
    answers = bench.run(moves, description="specificity")
    rows = []
    for of_site, found in zip(pairs.values(), answers, strict=True):
        numbers = found.numbers.split([len(sources.problems) for _, sources in of_site])
        rows += [
            _specificity(one, sources, edited, judge)
            for (one, sources), edited in zip(of_site, numbers, strict=True)
        ]
    return rows


def _towards(
    bench: Bench,
    one: Direction,
    sources: Sources,
    places: Mapping[Site, Float64[Tensor, "m n k"]],
) -> Float64[Tensor, "m all"]:
    """How far each source's coordinate is away; 0 for problems without sources."""
    component = one.target.component
    own = bench.traces[one.site].coordinates[sources.rows, component]
    changes = own.new_zeros(len(sources.problems), len(bench.baseline))
    changes[:, sources.rows] = places[one.site][..., component] - own
    return changes


def _specificity(
    one: Direction, sources: Sources, edited: Float64[Tensor, "m all"], judge: Judge
) -> dict[str, Any]:
    judge = judge.of(sources.rows)
    clean = judge.clean.numbers
    edited = settled(edited[:, sources.rows], clean)
    fitted = following(edited, clean, sources)
    slope = mean_slope([fitted], edited[None], clean, judge.how, drawn=False)
    hits = exact(edited, sources.expected, tolerance=judge.tolerance).double().mean(0)
    ends = share_interval(hits, judge.how)
    return {
        **one.site.columns(),
        "component": one.target.component,
        "direction_of": one.target.chosen_for,
        "changed": sources.value,
        "slope": float(slope.mean),
        "slope_low": float(slope.low),
        "slope_high": float(slope.high),
        "r2_change": fitted.r2,
        "agreement": float(hits.mean()),
        "agreement_low": float(ends.low),
        "agreement_high": float(ends.high),
        "n": len(sources.rows),
        "n_sources": len(sources.problems),
    }


def agreement_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows, with p of the targets corrected for all sites and values of one strength (Holm)."""
    p_holm = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for strength in {row["strength"] for row in rows}:
        places = [
            place
            for place, row in enumerate(rows)
            if row["arm"] == TARGET and row["strength"] == strength
        ]
        p_holm[places] = holm(torch.tensor([rows[i]["p"] for i in places], dtype=torch.float64))
    corrected = zip(rows, p_holm.tolist(), strict=True)
    return pd.DataFrame([{**row, "p_holm": p} for row, p in corrected])


def unresolved(counterfactual: pd.DataFrame, n_shuffles: int) -> list[str]:
    """Where there are too many tests for any of them to come out, however often answers agree."""
    rows = [row for row in counterfactual.to_dict(orient="records") if row["arm"] == TARGET]
    n_tests = max(Counter(row["strength"] for row in rows).values(), default=0)
    least = least_p(n_shuffles, n_tests=n_tests)
    if least <= ALPHA:
        return []
    return [
        f"p of agreement, corrected for {n_tests} tests, is {least:.2g} at least with "
        f"{n_shuffles} draws of chance: raise inference.permutations to "
        f"{draws_needed(ALPHA, n_tests=n_tests)}"
    ]


def unable_sites(counterfactual: pd.DataFrame) -> list[str]:
    """Where no coordinate could make the answer follow, since the whole activation does not."""
    rows = [row for row in counterfactual.to_dict(orient="records") if row["arm"] == TARGET]
    known = [row for row in rows if unable(row)]
    if not known:
        return []
    layers = layers_text(row["layer"] for row in known)
    return [
        f"answers do not follow a value even where the whole activation is taken from its source, "
        f"in {len(known)} of {len(rows)} cases ({layers}): agreement says nothing there, "
        "for what is written later reads the value elsewhere"
    ]
