"""Which subspaces are edited, and what else is moved as far to compare them with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError, unknown
from mech_arith.directions.random import random_frame
from mech_arith.directions.tracing import Trace
from mech_arith.engine.sites import Site
from mech_arith.interventions import FIRST_DRAWS

TARGET, CONTROL, SPAN, VALUELESS = "target", "control", "span", "valueless"
OTHER, SHUFFLED = "other", "shuffled"
"""Arms. `CONTROL` are random subspaces of the whole space."""

DRAWN = (CONTROL, SPAN, VALUELESS)
"""Arms whose subspaces are a sample: others might have been drawn."""

FURTHER = 2**31
"""In the seeds of further draws; beyond any other number there."""

INDEPENDENT = 1e-4
"""Of the largest singular value of the values' covariances with the coordinates: below this share
of it a combination of values adds no direction of its own."""


@dataclass(frozen=True)
class Controls:
    """How many subspaces of the target's rank are tried beside it; each moves every problem just as
    far.
    """

    random: int = 20
    """Drawn uniformly from the whole space."""
    span: int = 20
    """Drawn uniformly from those within the span of the components."""
    valueless: int = 20
    """Drawn uniformly from those within that span that correlate with no value on the fit split."""
    other: bool = True
    """The subspaces of other values."""
    shuffled: bool = True
    """Those that the method finds for the target's values, shuffled over problems."""
    stop_after: int | None = None
    """Draws of a kind that cost as much as the target at which no more are made. Of that kind
    `random`, `span` and `valueless` are then the most. None for as many as these say."""

    @property
    def first(self) -> "Controls":
        """Those that are drawn in any case, and that means are over."""
        if self.stop_after is None:
            return self
        random, span, valueless = (
            min(n, FIRST_DRAWS) for n in (self.random, self.span, self.valueless)
        )
        return replace(self, random=random, span=span, valueless=valueless, stop_after=None)

    @property
    def most(self) -> dict[str, int]:
        """By arm the most that are drawn, of arms of which more than the first may be."""
        if self.stop_after is None:
            return {}
        every = {CONTROL: self.random, SPAN: self.span, VALUELESS: self.valueless}
        return {arm: n for arm, n in every.items() if n > FIRST_DRAWS}


def draw_bounds(controls: Controls) -> tuple[int, int]:
    """The fewest and the most directions that are drawn beside one target, of all kinds."""
    fewest, most = (some.random + some.span + some.valueless for some in (controls.first, controls))
    return fewest, most


@dataclass(frozen=True)
class Target:
    """A subspace to edit at one site."""

    components: tuple[int, ...]
    """Its directions, among all that were found at the site."""
    chosen_for: tuple[str, ...]
    """Values whose subspace it is; a listed component may be that of none."""
    target_value: str = ""
    """The value that its coordinates are to take; none for edits that go nowhere in particular."""

    @property
    def component(self) -> int:
        """Its first direction."""
        return self.components[0]

    @property
    def rank(self) -> int:
        """How many directions it has."""
        return len(self.components)

    @property
    def label(self) -> str:
        """Its directions in words, behind the kind of subspace: '3', or '0, rank 4'."""
        return str(self.component) + ("" if self.rank == 1 else f", rank {self.rank}")

    @property
    def values(self) -> tuple[str, ...]:
        """What the edit is about."""
        return (self.target_value,) if self.target_value else self.chosen_for


@dataclass(frozen=True)
class Arm:
    """Subspaces that are tried alike."""

    name: str
    frames: Float[Tensor, "m k width"]
    """Orthonormal directions of each, float32."""
    labels: tuple[str, ...]
    """What each subspace is."""


def choose_targets(
    found: Trace,
    components: str | Sequence[int] = "best",
    values: Sequence[str] | None = None,
    ranks: Sequence[int] = (),
) -> list[Target]:
    """The subspaces to edit at a site.

    Args:
        found: the site's trace.
        components: 'best' (per value, on the fit split), 'all', or a list.
        values: those for which subspaces are chosen; all by default.
        ranks: of the subspaces of each value. By default components are edited one at a time.

    Raises:
        UserError: a value or component that is not there.
    """
    values = found.values if values is None else values
    for value in values:
        if value not in found.values:
            raise unknown("value", value, found.values)
    framed = {(rank, value): found.frame(value, rank) for rank in ranks or (1,) for value in values}
    wanted = dict.fromkeys(frame for frame in framed.values() if frame)
    if ranks or components == "best":
        wanted = sorted(wanted, key=lambda frame: (len(frame), frame))
    else:
        wanted = [(component,) for component in _listed(found, components)]
    return [
        Target(frame, tuple(value for (_, value), own in framed.items() if own == frame))
        for frame in wanted
    ]


def _listed(found: Trace, components: str | Sequence[int]) -> list[int]:
    """All components of a site, or those of a list."""
    n_components = len(found.subspace.directions)
    if components == "all":
        return list(range(n_components))
    wanted = [int(component) for component in components]
    for component in wanted:
        if not 0 <= component < n_components:
            raise UserError(
                f"expected components in 0..{n_components - 1} at layer {found.site.layer}, got "
                f"{component}; change intervention.components or tracing.n_components"
            )
    return wanted


def frame_of(found: Trace, target: Target) -> Float[Tensor, "k width"]:
    """The target's orthonormal directions."""
    return found.subspace.directions[list(target.components)]


def arms(found: Trace, target: Target, controls: Controls, *, seed: int) -> list[Arm]:
    """The target's subspace, and those that it is compared with; arms without any are left out.

    Where draws stop early, the first of them.
    """
    fitted, controls = found.subspace.directions, controls.first
    generator = _generator(seed, found.site, target)
    random = [
        random_frame(target.rank, fitted.shape[1], generator=generator)
        for _ in range(controls.random)
    ]
    span = _within(found.subspace.span, target.rank, controls.span, generator)
    valueless = _within(valueless_span(found), target.rank, controls.valueless, generator)
    others = _others(found, target) if controls.other else {}
    shuffled = _shuffled(found, target) if controls.shuffled else {}
    every = [
        (TARGET, [frame_of(found, target)], [f"component {target.label}"]),
        *(
            (name, drawn, [f"{label} {draw}" for draw in range(len(drawn))])
            for name, label, drawn in (
                (CONTROL, "random", random),
                (SPAN, SPAN, span),
                (VALUELESS, VALUELESS, valueless),
            )
        ),
        (
            OTHER,
            [fitted[list(frame)] for frame in others],
            [f"component {frame[0]}: {values}" for frame, values in others.items()],
        ),
        (SHUFFLED, list(shuffled.values()), [f"shuffled {value}" for value in shuffled]),
    ]
    return [
        Arm(name, orthonormal(torch.stack(frames)), tuple(labels))
        for name, frames, labels in every
        if frames
    ]


def further(
    found: Trace, target: Target, arm: str, *, seed: int
) -> Iterator[Float64[Tensor, "k width"]]:
    """Without end, the subspaces of a drawn arm that come behind the first of `arms`.

    How many are taken in all changes none of them. Random ones of the whole space are those that
    `arms` draws where it is asked for more.
    """
    if arm == CONTROL:
        generator, width = _generator(seed, found.site, target), found.subspace.directions.shape[1]
        every = (random_frame(target.rank, width, generator=generator) for _ in count())
        return islice(every, FIRST_DRAWS, None)
    generator = _generator(seed, found.site, target, arm)
    spanning = found.subspace.span if arm == SPAN else valueless_span(found)
    return (_within(spanning, target.rank, 1, generator)[0] for _ in count())


def _within(
    spanning: Float64[Tensor, "free width"], rank: int, n: int, generator: torch.Generator
) -> list[Float64[Tensor, "rank width"]]:
    """Subspaces drawn uniformly from those within a span; none where it holds no other one."""
    if len(spanning) <= rank:
        return []
    weights = torch.randn(n, rank * len(spanning), generator=generator, dtype=torch.float64)
    return list(weights.view(n, rank, len(spanning)) @ spanning)


def valueless_span(found: Trace) -> Float64[Tensor, "free width"]:
    """Directions within the span of a site's components that carry no value.

    The coordinate along any combination of them correlates with no value on the fit split. `free`
    is the number of components less that of linearly independent values.
    """
    fitted = found.subspace.directions
    covariance = (found.r_fit * found.subspace.sd[:, None]).nan_to_num(0)
    vectors, sizes, _ = torch.linalg.svd(covariance, full_matrices=True)
    rank = int((sizes > INDEPENDENT * sizes.max()).sum()) if len(sizes) else 0
    return vectors[:, rank:].mT @ fitted


def orthonormal(frames: Float[Tensor, "m k width"]) -> Float[Tensor, "m k width"]:
    """Orthonormal directions that span the same subspaces, nested as those given are."""
    frames = frames.double()
    if frames.shape[1] == 1:
        return (frames / frames.norm(dim=2, keepdim=True)).float()
    q, r = torch.linalg.qr(frames.mT)
    signs = r.diagonal(dim1=1, dim2=2).sign()
    return (q * signs[:, None]).mT.float()


def _others(found: Trace, target: Target) -> dict[tuple[int, ...], str]:
    """Subspaces of the target's rank of values that the edit is not about -> those values."""
    carried: dict[tuple[int, ...], list[str]] = {}
    for value in found.values:
        frame = found.frame(value, target.rank)
        if frame and frame != target.components and value not in target.values:
            carried.setdefault(frame, []).append(value)
    return {frame: ", ".join(values) for frame, values in sorted(carried.items())}


def _shuffled(found: Trace, target: Target) -> dict[str, Tensor]:
    """Of each value that the edit is about, the subspace fitted on it shuffled.

    Of rank 1 the direction along which activations covary most with the shuffled value; of more,
    and of a method that has a frame of its own for each rank, what it finds for its control task.
    """
    own = [found.subspace.has_own(found.values.index(value), 1) for value in target.values]
    if target.rank == 1 and not any(own):
        rows = {value: found.shuffled[None, found.values.index(value)] for value in target.values}
        return {value: row for value, row in rows.items() if torch.isfinite(row).all()}
    if found.control is None:
        return {}
    frames = {
        value: found.control.subspace.frame(found.values.index(value), target.rank)
        for value in target.values
    }
    directions = found.control.subspace.directions
    return {value: directions[list(frame)] for value, frame in frames.items() if frame}


def _generator(seed: int, site: Site, target: Target, arm: str = "") -> torch.Generator:
    """Independent for every seed, site and subspace; and for further draws of an arm."""
    # No text of a position holds a number beyond a byte.
    head = [] if site.head is None else [256 + site.head]
    ranks = [] if target.rank == 1 else [len(site.position), *target.components]
    of_arm = [FURTHER, *arm.encode()] if arm else []
    mixed = np.random.SeedSequence(
        [seed, site.layer, target.component, *head, *site.position.encode(), *ranks, *of_arm]
    )
    return torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint32)[0]))
