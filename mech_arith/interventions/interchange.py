"""Runs that tell whether a coordinate is used as a value: towards sources, and their bounds.

Three things stand beside the edit itself: the coordinates that the sources have, which
`interchange` takes; the ceiling, where not one coordinate but the whole activation of the site is
taken from the source; and for specificity the coordinate taken from sources of the *other* values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.progress import progress
from mech_arith.directions.tracing import read_coordinates
from mech_arith.engine.answers import Answers
from mech_arith.engine.capture import capture
from mech_arith.engine.run import EDITS, Baseline, Edits, SiteEdits, SiteVectors, run_edits
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.interventions.bases import Bases
from mech_arith.interventions.controls import Target
from mech_arith.models.base import Model
from mech_arith.models.prompts import Prompts
from mech_arith.problems.sources import Sources

AT_ONCE = 2**27
"""Numbers of whole activations that are held at a time: half a gibibyte."""


def run_all(
    session: Session,
    baseline: Baseline,
    edits: Sequence[Edits],
    *,
    description: str,
    writes: bool = True,
    stage: str = EDITS,
) -> list[Answers]:
    """Answers under each entry's edits, [edits, n], behind a progress bar; see `run_edits`."""
    n_rows = sum(len(of_site) for of_site in edits) * len(baseline)
    with progress(n_rows, description=description, unit="edits") as bar:
        return run_edits(session, baseline, edits, writes=writes, bar=bar, stage=stage)


def source_coordinates(
    session: Session, bases: Bases, sources: Sources
) -> dict[Site, Float64[Tensor, "m n k"]]:
    """Of every source on the components of every site: a clean pass over each set of sources."""
    model = session.model
    found = []
    for problems in sources.problems:
        prompts = bases.encode(model, problems)
        sites = [site.key(prompts) for site in bases.traces]
        key = {**model.fingerprint, "sources": prompts.digest(), "sites": sites}
        piece = session.checkpoint.piece("sources", key)

        def read(prompts: Prompts = prompts) -> dict[str, Tensor]:
            return read_coordinates(session, prompts, bases.traces)

        found.append(piece.fetch("coordinates", read))
    return {
        site: torch.stack([of_set[f"site {i}"] for of_set in found])
        for i, site in enumerate(bases.traces)
    }


def ceilings(
    session: Session, bases: Bases, every: Mapping[str, Sources], sites: Sequence[Site]
) -> dict[tuple[str, Site], Answers]:
    """The answers where each problem's whole activation at a site is its first source's.

    By value and site, for the problems that have sources of the value.
    """
    model, baseline = session.model, bases.baseline
    prompts = {value: bases.encode(model, sources.problems[0]) for value, sources in every.items()}
    found: dict[tuple[str, Site], Answers] = {}
    for some in some_at_a_time(model, baseline.prompts, sites, n_values=len(every)):
        added = {site: [] for site in some}
        own = _collect(session, baseline.prompts, some)
        for value, sources in every.items():
            theirs = _collect(session, prompts[value], some)
            for site in some:
                moved = theirs[site] - own[site][sources.rows]
                added[site].append(_of_all(moved, sources, baseline))
        edits = [SiteVectors(site, torch.cat(of_site)) for site, of_site in added.items()]
        answers = run_all(session, baseline, edits, description="ceilings")
        for site, of_site in zip(some, answers, strict=True):
            for index, (value, sources) in enumerate(every.items()):
                found[value, site] = of_site.at(index).of(sources.rows)
    return found


def some_at_a_time(
    model: Model, prompts: Prompts, sites: Sequence[Site], *, n_values: int
) -> Iterator[Sequence[Site]]:
    """As many sites as may be held whole, for the sources of every value."""
    if not sites:  # no value has a subspace of a rank that was asked for
        return
    width = max(
        len(layout.positions(site.position)) * site.width(model)
        for site in sites
        for layout in prompts.layouts
    )
    size = max(1, AT_ONCE // (width * len(prompts) * n_values))
    for start in range(0, len(sites), size):
        yield sites[start : start + size]


def whole_moves(
    session: Session, base: Prompts, source: Prompts, sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "n width"]]:
    """What takes each base's whole activation to that of its source, in the model's own numbers."""
    own, theirs = (_collect(session, prompts, sites) for prompts in (base, source))
    return {site: theirs[site] - own[site] for site in sites}


def _collect(
    session: Session, prompts: Prompts, sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "n width"]]:
    """Whole activations, in the model's own numbers."""
    found: dict[Site, Tensor] = {}
    for layout, captured in capture(session, prompts, sites):
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


@dataclass(frozen=True)
class Direction:
    """A subspace at a site, and the values whose own it is."""

    site: Site
    target: Target
    frame: Float[Tensor, "k width"]
    """Orthonormal directions."""


@dataclass(frozen=True)
class Crossed:
    """Answers where a coordinate is taken from sources of any value: its own, or another one."""

    along: Direction
    changed: str
    """The value that the sources change."""
    numbers: Float64[Tensor, "m all"]
    """Answers of all edited problems; of those without sources the clean ones."""


def cross(
    session: Session,
    bases: Bases,
    directions: Sequence[Direction],
    every: Mapping[str, Sources],
    places: Mapping[str, Mapping[Site, Float64[Tensor, "m n k"]]],
) -> list[Crossed]:
    """Each value's direction x each value's change in the answer.

    Along the direction of one value every problem takes the coordinate of a source in which
    *another* value (or, on the diagonal, the same) was changed.

    Args:
        session: the model under study.
        bases: the problems.
        directions: of values at sites.
        every: sources by value.
        places: their coordinates by value and site.
    """
    pairs: dict[tuple[Site, int], list[tuple[Direction, Sources]]] = {}
    for one, sources in product(directions, every.values()):
        pairs.setdefault((one.site, one.target.rank), []).append((one, sources))
    # All edits of a site and a rank in one entry: the engine runs them side by side.
    edits = [
        SiteEdits(
            site,
            torch.stack([one.frame for one, s in of_site for _ in s.problems]),
            torch.cat([_to_sources(bases, one, s, places[s.value]) for one, s in of_site]),
            _all_the_way(sum(len(s.problems) for _, s in of_site)) if site.in_answer else None,
        )
        for (site, _), of_site in pairs.items()
    ]
    answers = run_all(session, bases.baseline, edits, description="specificity")
    return [
        Crossed(one, sources.value, numbers)
        for of_site, found in zip(pairs.values(), answers, strict=True)
        for (one, sources), numbers in zip(
            of_site,
            found.numbers.split([len(sources.problems) for _, sources in of_site]),
            strict=True,
        )
    ]


def _all_the_way(n_edits: int) -> Float64[Tensor, " edits"]:
    """The slopes of edits that put a coordinate where the source has it."""
    return torch.zeros(n_edits, dtype=torch.float64)


def _to_sources(
    bases: Bases,
    one: Direction,
    sources: Sources,
    places: Mapping[Site, Float64[Tensor, "m n all"]],
) -> Float64[Tensor, "m problems k"]:
    """How far each source's coordinates are away; 0 for problems without sources."""
    at = list(one.target.components)
    own = bases.traces[one.site].coordinates[sources.rows][:, at]
    changes = own.new_zeros(len(sources.problems), len(bases), len(at))
    changes[:, sources.rows] = places[one.site][..., at] - own
    return changes
