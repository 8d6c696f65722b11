"""A value on a line and on circles: the helix.

Activations are regressed on x, and on cos(2 pi x / T) and sin(2 pi x / T) for each period T, for
every value x in turn, by least squares. The frame is the coefficient vectors, orthonormalised in
that order: the line, then each circle.

Of a modulus p, every function of a residue is a sum of circles of the periods p/1, p/2, ... down to
2. Few of them are kept for each value: the one that explains most of the activations' variance,
then the one that explains most beyond it, and so on.

Sources: Kantamneni & Tegmark (2025), "Language models use trigonometry to do addition"; Levy & Geva
(2024), "Language models encode numbers using digit representations in base 10"; Nanda et al.
(2023), "Progress measures for grokking via mechanistic interpretability", for residues.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.base import (
    METHODS,
    Harmonics,
    Subspace,
    harmonic_terms,
    positive_peaks,
    values_of_frames,
)
from mech_arith.directions.moments import Joint, JointMoments
from mech_arith.problems import ProblemSet

DEPENDENT = 1e-9
"""A term of which the terms before explain all but this share is one of them in other words."""


@METHODS.register("fourier")
@dataclass
class FourierFitter:
    """Least squares on a line and circles, from sums in O((d + terms)^2) memory.

    Terms that are constant or follow from earlier ones are left out: of whole numbers, the sine of
    period 2. So are given periods that are longer than one value's range, for this value. A value
    always gets its whole frame, whatever ranks are asked for: a circle alone on its first direction
    is not a circle.
    """

    is_supervised: ClassVar[bool] = True
    is_per_value: ClassVar[bool] = True

    n_components: int
    periods: tuple[float, ...] = (2.0, 5.0, 10.0, 100.0)
    line: bool = True
    modulus: int | None = None
    """Look among the periods modulus/1, modulus/2, ...; `periods` is to be empty then."""
    circles: int = 5
    """How many of these are kept for each value."""
    _moments: JointMoments = field(init=False, default_factory=JointMoments)
    _ends: Float64[Tensor, "two v"] | None = field(init=False, default=None)
    """Smallest and largest number of every value."""

    def __post_init__(self) -> None:
        if self.modulus is not None:
            self._check_modulus(self.modulus)
        bad = [period for period in self.periods if not 2 <= period < math.inf]
        if bad:
            raise UserError(
                f"expected tracing.options.periods of 2 or more, got {bad[0]:g}; whole numbers "
                "have no shorter ones"
            )
        if len(set(self.periods)) < len(self.periods):
            raise UserError(
                "expected distinct tracing.options.periods, got "
                f"{', '.join(f'{period:g}' for period in self.periods)}; drop the repeated ones"
            )
        circles = sorted(1 if period == 2 else 2 for period in self._candidates)
        n_terms = self.line + sum(circles if self.modulus is None else circles[-self.circles :])
        if not n_terms:
            raise UserError(
                "expected tracing.options.periods or tracing.options.line=true, got neither; set "
                "one"
            )
        if self.n_components > n_terms:
            raise UserError(
                f"expected tracing.rank <= {n_terms} with these tracing.options, 1 for the line "
                f"and 2 for each circle (1 for that of period 2), got {self.n_components}; lower "
                "the rank or add periods"
            )

    def _check_modulus(self, modulus: int) -> None:
        if modulus < 2:
            raise UserError(
                f"expected tracing.options.modulus of 2 or more, got {modulus}; raise it"
            )
        if self.periods:
            given = ", ".join(f"{period:g}" for period in self.periods)
            raise UserError(
                f"expected tracing.options.periods=[] with tracing.options.modulus={modulus}, "
                f"which says where to look, got {given}; choose tracing=fourier_modulus, or leave "
                "one of them out"
            )
        if not 1 <= self.circles <= modulus // 2:
            raise UserError(
                f"expected tracing.options.circles in 1..{modulus // 2}, as many as there are "
                f"with tracing.options.modulus={modulus}, got {self.circles}; change it"
            )

    @property
    def _candidates(self) -> tuple[float, ...]:
        """The periods that are looked at."""
        if self.modulus is None:
            return self.periods
        return tuple(self.modulus / k for k in range(1, self.modulus // 2 + 1))

    def check(self, problems: ProblemSet, ranks: Sequence[int]) -> None:
        """Refuse periods that no value goes through.

        Raises:
            UserError: a period is longer than the range of every value.
        """
        spans = {name: int(of.max() - of.min()) + 1 for name, of in problems.values.items()}
        widest = max(spans, key=lambda name: spans[name])
        option = "periods" if self.modulus is None else "modulus"
        for period in self._candidates:
            if period > spans[widest]:
                raise UserError(
                    f"expected tracing.options.{option} <= {spans[widest]}, the whole numbers that "
                    f"{widest} spans on the fit split, got {period:g}; leave it out or widen "
                    "problems.operands"
                )

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        terms = harmonic_terms(values, self._periods)[..., 1:]
        self._moments.update(activations, terms.flatten(1))
        ends = torch.stack([values.amin(0), values.amax(0)])
        if self._ends is not None:
            known = self._ends
            ends = torch.stack([known[0].minimum(ends[0]), known[1].maximum(ends[1])])
        self._ends = ends

    @property
    def _periods(self) -> Float64[Tensor, " p"]:
        return torch.tensor(self._candidates, dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        return self._moments.state() | ({} if self._ends is None else {"ends": self._ends})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        self._moments.restore(state)
        self._ends = state.get("ends")

    def fit(self) -> Subspace:
        """The frame of every value in turn, with its coordinates as functions of the value.

        Raises:
            UserError: fewer rows than two.
        """
        found = self._moments.joint(1)
        assert self._ends is not None
        n_terms = 1 + 2 * len(self._candidates)
        frames: list[Tensor] = []
        coefficients: list[Tensor] = []
        sources: list[Tensor] = []
        for value, span in enumerate(self._ends.diff(dim=0)[0] + 1):
            terms = range(value * n_terms, (value + 1) * n_terms)
            kept = _independent(found, self._chosen(found, terms, float(span)))
            by_term = _least_squares(found, kept)
            frame, of_term = _orthonormalised(found, kept, by_term)
            frame = positive_peaks(frame)
            of_frame = torch.zeros(len(frame), 1 + n_terms, dtype=torch.float64)
            along = by_term @ frame.mT
            of_frame[:, [1 + term - terms.start for term in kept]] = along.mT
            of_frame[:, 0] = -found.mean_beside[kept] @ along
            frames.append(frame)
            coefficients.append(of_frame)
            sources.append((torch.tensor(of_term, dtype=torch.int64) - terms.start - 1) // 2)
        directions = torch.cat(frames)
        return Subspace(
            found.mean,
            directions,
            found.along(directions),
            found.total_variance,
            of_value=values_of_frames(frames),
            harmonics=Harmonics(self._periods, torch.cat(coefficients), torch.cat(sources)),
        )

    def _chosen(self, found: Joint, terms: range, span: float) -> list[int]:
        """The terms, among all, of a value that spans so many whole numbers: in their order."""
        line = [terms[0]] * self.line
        circles = [
            (terms[1 + 2 * i], terms[2 + 2 * i])
            for i, period in enumerate(self._candidates)
            # A sample of residues may miss the smallest or the largest.
            if period <= span or self.modulus is not None
        ]
        if self.modulus is not None:
            circles = _strongest(found, circles, self.circles, after=line)
        return [*line, *(term for circle in circles for term in circle)]


def _strongest(
    found: Joint, circles: Sequence[tuple[int, int]], n: int, *, after: Sequence[int]
) -> list[tuple[int, int]]:
    """The circles of which each explains most variance of the activations beyond those before it.

    Args:
        found: covariances of activations and terms.
        circles: cosine and sine of each.
        n: how many to choose, at most.
        after: terms that come before all of them.
    """
    sd = found.variance_beside.sqrt().where(found.varies, 1.0)
    beside, cross = found.beside / sd / sd[:, None], found.cross / sd
    chosen: list[tuple[int, int]] = []
    left = list(circles)
    while left and len(chosen) < n:
        before = [*after, *(term for circle in chosen for term in circle)]
        pairs = torch.tensor(left, dtype=torch.int64)
        taken = torch.linalg.pinv(beside[before][:, before], DEPENDENT, hermitian=True)
        by_before = beside[before][:, pairs.flatten()].unflatten(1, (-1, 2))
        own = beside[pairs[:, :, None], pairs[:, None]] - torch.einsum(
            "bci,bd,dcj->cij", by_before, taken, by_before
        )
        with_own = cross[:, pairs] - torch.einsum(
            "wb,bd,dci->wci", cross[:, before], taken, by_before
        )
        inverse = torch.linalg.pinv(own, DEPENDENT, hermitian=True)
        explained = torch.einsum("wci,cij,wcj->c", with_own, inverse, with_own)
        chosen.append(left.pop(int(explained.argmax())))
    return chosen


def _independent(found: Joint, terms: Sequence[int]) -> list[int]:
    """Those that vary, and do not follow from the ones before."""
    varies = found.varies & (found.variance_beside > DEPENDENT)
    kept: list[int] = []
    covariance, variance = found.beside, found.variance_beside
    for term in terms:
        if not varies[term]:
            continue
        own, others = covariance[kept][:, kept], covariance[kept, term]
        sd = variance[kept].sqrt()
        weights = torch.linalg.solve(own / sd / sd[:, None], others / sd)
        if variance[term] - (others / sd) @ weights > DEPENDENT * variance[term]:
            kept.append(term)
    return kept


def _least_squares(found: Joint, kept: Sequence[int]) -> Float64[Tensor, "kept d"]:
    """Coefficient vectors of the activations on some terms, in activation units per term."""
    terms = list(kept)
    sd = found.variance_beside[terms].sqrt()
    correlation = found.beside[terms][:, terms] / sd / sd[:, None]
    return torch.linalg.solve(correlation, (found.cross[:, terms] / sd).mT) / sd[:, None]


def _orthonormalised(
    found: Joint, kept: Sequence[int], by_term: Float64[Tensor, "kept d"]
) -> tuple[Float64[Tensor, "k d"], list[int]]:
    """The coefficient vectors in their order, each less what the ones before hold of it.

    Returns:
        The frame, and the term that each of its rows stands for.
    """
    sizes = found.variance_beside[list(kept)].sqrt()
    frame, of_term = by_term[:0], []
    for term, vector in zip(kept, by_term * sizes[:, None], strict=True):
        for _ in range(2):  # once more, for what rounding leaves
            vector = vector - frame.mT @ (frame @ vector)
        if vector.square().sum() > found.floor:
            frame = torch.cat([frame, vector[None] / vector.norm()])
            of_term.append(term)
    return frame, of_term
