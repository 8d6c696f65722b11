"""Planted subspaces: which methods find them?

By the largest angle between them and what is found, and by how often an interchange within what is
found makes the answer the other value's. Beside each lies a coordinate that says nothing, and is
louder than the value's own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from alignments import FOUND as CARRIED
from alignments import iia, trained
from bars import Row, at_least, never, shown
from jaxtyping import Float64
from torch import Tensor

from mech_arith.directions.base import DirectionMethod, FitTask, Subspace, find_method
from mech_arith.directions.tracing import value_table
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.planted.codes import Code, CodedModel
from mech_arith.problems import ProblemSet
from mech_arith.problems.sources import draw_sources

FOUND = 0.99
"""Least cosine of the largest principal angle: 8.1 degrees."""
RANKS = range(1, 9)
HELIX = 0
"""In the place of a rank."""
N_FIT, N_REPORT = 6000, 300
OTHER_PERIODS = (2.0, 3.5, 5.0, 7.0)


@dataclass(frozen=True)
class Contender:
    """A method, and where it has to find what is planted, or cannot."""

    label: str
    method: str
    finds: frozenset[int]
    """Ranks, and `HELIX`."""
    misses: frozenset[int]
    """The same where it is not to."""
    by_angle: bool = True
    """Whether it has to be near. Not what is trained on the answers: of many dimensions some count
    for little, and answers follow without them."""
    by_iia: bool = True
    """Whether answers have to follow. Not what strays from the plant by 2 to 5 degrees: so much of
    what is louder moves answers."""
    gets_periods: bool = False
    others: tuple[float, ...] = ()
    """Periods that it gets in place of the planted ones."""

    def is_content(self, found: "Found") -> bool:
        """Whether what it found is what it has to find."""
        is_near, is_carried = found.is_near or not self.by_angle, found.is_carried
        return is_near and (is_carried or not self.by_iia)

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


NOTHING: frozenset[int] = frozenset()
EVERYTHING = frozenset([HELIX, *RANKS])
LINE = frozenset([1])
SPANNED = frozenset([1, 7, 8])
"""Where a line and any four periods may do: about as many terms as there are numbers, less one."""
CONTENDERS = (
    Contender("pca", "pca", NOTHING, EVERYTHING),
    Contender("pls", "pls", LINE, EVERYTHING - LINE, by_iia=False),
    Contender("ridge", "ridge", LINE, EVERYTHING - LINE),
    Contender("mean_difference", "mean_difference", EVERYTHING, NOTHING, by_iia=False),
    Contender(
        "fourier of its periods", "fourier", EVERYTHING, NOTHING, by_iia=False, gets_periods=True
    ),
    Contender(
        "fourier of other periods", "fourier", NOTHING, EVERYTHING - SPANNED, others=OTHER_PERIODS
    ),
    Contender("das", "das", EVERYTHING, NOTHING, by_angle=False),
)


class Found(NamedTuple):
    """What a contender found in a plant."""

    angle: float
    """The largest one between it and what is planted, in degrees."""
    iia: float

    @property
    def is_near(self) -> bool:
        return math.cos(math.radians(self.angle)) >= FOUND

    @property
    def is_carried(self) -> bool:
        """Whether answers follow it."""
        return self.iia >= CARRIED


Measured = Mapping[tuple[str, int], Sequence[Found]]
"""(a contender's label, a rank or `HELIX`) -> what it found, plant by plant."""


def plants(seeds: Sequence[int]) -> Iterator[tuple[int, CodedModel]]:
    """Of every rank, and helices."""
    for seed in seeds:
        for rank in RANKS:
            yield rank, CodedModel.drawn(seed, rank)
        yield HELIX, CodedModel.with_helix(seed)


def found_in(model: CodedModel) -> dict[str, Found]:
    """What every contender finds where a planted value is written, by label."""
    read = model.plant.read
    problems = model.plant.problems(N_FIT + N_REPORT)
    fit, report = (problems.take(rows) for rows in np.split(np.arange(len(problems)), [N_FIT]))
    site = Site(read.layer, "resid_post", "last")
    sources = draw_sources(report, read.value, m=1, n_shuffles=1, seed=0)
    assert sources is not None
    return {
        label: Found(largest_angle(frame, model.axes), iia(model, sources, site, frame))
        for label, frame in found_frames(model, fit, site).items()
    }


def found_frames(
    model: CodedModel, problems: ProblemSet, site: Site
) -> dict[str, Float64[Tensor, "k d"]]:
    """The frame of the planted value, of the planted rank, by every contender."""
    session, prompts, values = Session(model), model.encode(problems), value_table(problems)
    rank = len(model.axes)
    task = FitTask(session, problems, prompts, site, values, (rank,))
    fitters = {}
    for contender in CONTENDERS:
        if contender.method != "das":
            fitters[contender.label] = contender.on(model.code).fitter(task)
    for layout, found in capture(session, prompts, [site]):
        for fitter in fitters.values():
            fitter.update(found[site], values[layout.rows])
    frames = {label: frame_of(model, fitter.fit()) for label, fitter in fitters.items()}
    # A training for each value would be one too many: only the planted one is asked for.
    return {**frames, "das": trained(task, model.plant.read.value)}


def frame_of(model: CodedModel, found: Subspace) -> Float64[Tensor, "k d"]:
    """The planted value's frame of the planted rank; of rank 1 that is its only direction."""
    value = model.plant.template.expression.values.index(model.plant.read.value)
    return found.directions[list(found.frame(value, len(model.axes)))]


def largest_angle(one: Float64[Tensor, "k d"], two: Float64[Tensor, "k d"]) -> float:
    """Between two subspaces of one rank, in degrees; 90 where there are fewer directions."""
    if len(one) < len(two):
        return 90.0
    return math.degrees(math.acos(min(1.0, float(torch.linalg.svdvals(one @ two.mT).min()))))


def measured(seeds: Sequence[int]) -> Measured:
    """Of every contender on every plant."""
    by_kind: dict[tuple[str, int], list[Found]] = {}
    for kind, model in plants(seeds):
        for label, found in found_in(model).items():
            by_kind.setdefault((label, kind), []).append(found)
    return by_kind


def subspace_rows(seeds: Sequence[int]) -> list[Row]:
    """Plant subspaces of every rank and helices, and look for them with every method."""
    return rows_of(measured(seeds))


def rows_of(found: Measured) -> list[Row]:
    """How often each contender finds what is planted, how far it is from it, and the iia."""
    rows = []
    for contender in CONTENDERS:
        for kind in (*RANKS, HELIX):
            some = found[contender.label, kind]
            planted = "helix of rank 6" if kind == HELIX else f"subspace of rank {kind}"
            what, n = f"{planted}, {contender.label}", len(some)
            angle, share = (median(numbers) for numbers in zip(*some, strict=True))
            note = f", {angle:.1f} degrees, iia {share:.3f}"
            both = sum(contender.is_content(one) for one in some)
            if kind in contender.finds:
                rows.append(at_least(what, both, n, note=note))
            elif kind in contender.misses:
                either = sum(one.is_near or one.is_carried for one in some)
                rows.append(never(what, either, n, note=note))
            else:
                rows.append(shown(what, n, f"{both}{note}"))
    return rows
