"""Planted subspaces: which methods find them, by the largest angle between them and what is found?

Beside each lies a coordinate that says nothing, and is louder than the value's own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from bars import Row, at_least, shown
from jaxtyping import Float64
from torch import Tensor

from mech_arith.directions.base import DirectionMethod, FitTask, Subspace, find_method
from mech_arith.directions.tracing import value_table
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.planted.codes import Code, CodedModel

FOUND = 0.99
"""Least cosine of the largest principal angle: 8.1 degrees."""
RANKS = range(1, 9)
HELIX = 0
"""In the place of a rank."""
N_PROBLEMS = 6000
OTHER_PERIODS = (2.0, 3.5, 5.0, 7.0)


@dataclass(frozen=True)
class Contender:
    """A method, and where it has to find what is planted."""

    label: str
    method: str
    finds: frozenset[int]
    """Ranks, and `HELIX`."""
    gets_periods: bool = False
    others: tuple[float, ...] = ()
    """Periods that it gets in place of the planted ones."""

    def on(self, code: Code) -> DirectionMethod:
        """The method with its options for a code."""
        options: dict[str, Any] = {}
        if self.gets_periods:
            options = {"periods": code.periods, "line": code.line}
        elif self.others:
            options = {"periods": self.others}
        elif self.method == "mean_difference":
            options = {"max_classes": len(code.numbers)}
        rank = code.points.shape[1]
        return find_method(self.method, rank, options, ranks=(rank,))


EVERYTHING = frozenset([HELIX, *RANKS])
CONTENDERS = (
    Contender("pca", "pca", frozenset()),
    Contender("pls", "pls", frozenset({1})),
    Contender("ridge", "ridge", frozenset({1})),
    Contender("mean_difference", "mean_difference", EVERYTHING),
    Contender("fourier of its periods", "fourier", EVERYTHING, gets_periods=True),
    Contender("fourier of other periods", "fourier", frozenset(), others=OTHER_PERIODS),
)

Angles = Mapping[tuple[str, int], Sequence[float]]
"""(a contender's label, a rank or `HELIX`) -> degrees, plant by plant."""


def plants(seeds: Sequence[int]) -> Iterator[tuple[int, CodedModel]]:
    """Of every rank, and helices."""
    for seed in seeds:
        for rank in RANKS:
            yield rank, CodedModel.drawn(seed, rank)
        yield HELIX, CodedModel.with_helix(seed)


def found_subspaces(model: CodedModel) -> dict[str, Subspace]:
    """What every contender finds where a planted value is written, by label, in one pass."""
    problems = model.plant.problems(N_PROBLEMS)
    site = Site(model.plant.read.layer, "resid_post", "last")
    session, prompts, values = Session(model), model.encode(problems), value_table(problems)
    fitters = {}
    for contender in CONTENDERS:
        method = contender.on(model.code)
        task = FitTask(session, problems, prompts, site, values, method.ranks)
        fitters[contender.label] = method.fitter(task)
    for layout, found in capture(session, prompts, [site]):
        for fitter in fitters.values():
            fitter.update(found[site], values[layout.rows])
    return {label: fitter.fit() for label, fitter in fitters.items()}


def frame_of(model: CodedModel, found: Subspace) -> Float64[Tensor, "k d"]:
    """The planted value's frame of the planted rank; of rank 1 that is its only direction."""
    value = model.plant.template.expression.values.index(model.plant.read.value)
    return found.directions[list(found.frame(value, len(model.axes)))]


def largest_angle(one: Float64[Tensor, "k d"], two: Float64[Tensor, "k d"]) -> float:
    """Between two subspaces of one rank, in degrees; 90 where there are fewer directions."""
    if len(one) < len(two):
        return 90.0
    return math.degrees(math.acos(min(1.0, float(torch.linalg.svdvals(one @ two.mT).min()))))


def angles(seeds: Sequence[int]) -> Angles:
    """Of every contender on every plant."""
    by_kind: dict[tuple[str, int], list[float]] = {}
    for kind, model in plants(seeds):
        for label, found in found_subspaces(model).items():
            angle = largest_angle(frame_of(model, found), model.axes)
            by_kind.setdefault((label, kind), []).append(angle)
    return by_kind


def subspace_rows(seeds: Sequence[int]) -> list[Row]:
    """Plant subspaces of every rank and helices, and look for them with every method."""
    return rows_of(angles(seeds))


def rows_of(found: Angles) -> list[Row]:
    """How often each contender finds what is planted, and how far it is from it."""
    rows = []
    for contender in CONTENDERS:
        for kind in (*RANKS, HELIX):
            degrees = found[contender.label, kind]
            hits = sum(math.cos(math.radians(angle)) >= FOUND for angle in degrees)
            planted = "helix of rank 6" if kind == HELIX else f"subspace of rank {kind}"
            what, note = f"{planted}, {contender.label}", f", {median(degrees):.1f} degrees"
            n = len(degrees)
            if kind in contender.finds:
                rows.append(at_least(what, hits, n, note=note))
            else:
                rows.append(shown(what, n, f"{hits}{note}"))
    return rows
