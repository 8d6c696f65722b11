"""Which components are edited, and what else is moved as far to compare them with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError, unknown
from mech_arith.directions.random import random_direction
from mech_arith.directions.tracing import Trace
from mech_arith.engine.sites import Site

TARGET, CONTROL, SPAN, VALUELESS = "target", "control", "span", "valueless"
OTHER, SHUFFLED = "other", "shuffled"
"""Arms. `CONTROL` are random directions of the whole space."""

DRAWN = (CONTROL, SPAN, VALUELESS)
"""Arms whose directions are a sample: others might have been drawn."""

INDEPENDENT = 1e-4
"""Of the largest singular value of the values' covariances with the coordinates: below this share
of it a combination of values adds no direction of its own."""


@dataclass(frozen=True)
class Controls:
    """How many directions beside the target's are tried; each moves every problem just as far."""

    random: int = 20
    """Drawn uniformly from all directions."""
    span: int = 20
    """Drawn uniformly from those within the span of the components."""
    valueless: int = 20
    """Drawn uniformly from those within that span that correlate with no value on the fit split."""
    other: bool = True
    """The components that are best for other values."""
    shuffled: bool = True
    """The directions that covary most with the target's values, shuffled over problems."""


@dataclass(frozen=True)
class Target:
    """A component to edit at one site."""

    component: int
    chosen_for: tuple[str, ...]
    """Values for which it is the best one; a listed component may be so for none."""
    target_value: str = ""
    """The value that its coordinate is to take; none for edits that go nowhere in particular."""

    @property
    def values(self) -> tuple[str, ...]:
        """What the edit is about."""
        return (self.target_value,) if self.target_value else self.chosen_for


@dataclass(frozen=True)
class Arm:
    """Directions that are tried alike."""

    name: str
    directions: Float[Tensor, "k width"]
    """Unit vectors, float32."""
    labels: tuple[str, ...]
    """What each direction is."""


def choose_targets(
    found: Trace,
    components: str | Sequence[int] = "best",
    values: Sequence[str] | None = None,
) -> list[Target]:
    """The components to edit at a site.

    Args:
        found: the site's trace.
        components: 'best' (per value, on the fit split), 'all', or a list.
        values: those for which 'best' chooses; all by default.

    Raises:
        UserError: a value or component that is not there.
    """
    n_components = len(found.subspace.directions)
    values = found.values if values is None else values
    for value in values:
        if value not in found.values:
            raise unknown("value", value, found.values)
    best = {value: found.best_component(value) for value in values}
    if components == "best":
        wanted = sorted({component for component in best.values() if component is not None})
    elif components == "all":
        wanted = list(range(n_components))
    else:
        wanted = [int(component) for component in components]
    for component in wanted:
        if not 0 <= component < n_components:
            raise UserError(
                f"expected components in 0..{n_components - 1} at layer {found.site.layer}, got "
                f"{component}; change intervention.components or tracing.n_components"
            )
    return [
        Target(component, tuple(v for v in values if best[v] == component)) for component in wanted
    ]


def arms(found: Trace, target: Target, controls: Controls, *, seed: int) -> list[Arm]:
    """The target's direction, and those that it is compared with; arms without any are left out."""
    fitted = found.subspace.directions
    generator = _generator(seed, found.site, target.component)
    width = fitted.shape[1]
    random = [random_direction(width, generator=generator) for _ in range(controls.random)]
    span = _within(fitted, controls.span, generator)
    valueless = _within(valueless_span(found), controls.valueless, generator)
    others = _others(found, target) if controls.other else {}
    shuffled = _shuffled(found, target) if controls.shuffled else {}
    every = [
        (TARGET, [fitted[target.component]], [f"component {target.component}"]),
        *(
            (name, drawn, [f"{label} {draw}" for draw in range(len(drawn))])
            for name, label, drawn in (
                (CONTROL, "random", random),
                (SPAN, SPAN, span),
                (VALUELESS, VALUELESS, valueless),
            )
        ),
        (OTHER, [fitted[k] for k in others], [f"component {k}: {v}" for k, v in others.items()]),
        (SHUFFLED, list(shuffled.values()), [f"shuffled {value}" for value in shuffled]),
    ]
    return [
        Arm(name, _unit(torch.stack(vectors)), tuple(labels))
        for name, vectors, labels in every
        if vectors
    ]


def _within(
    spanning: Float64[Tensor, "k width"], n: int, generator: torch.Generator
) -> list[Float64[Tensor, " width"]]:
    """Directions drawn uniformly from a span; none from that of a single direction."""
    if len(spanning) < 2:
        return []
    weights = torch.randn(n, len(spanning), generator=generator, dtype=torch.float64)
    return list(weights @ spanning)


def valueless_span(found: Trace) -> Float64[Tensor, "free width"]:
    """Orthonormal directions within the span of a site's components that carry no value.

    The coordinate along any combination of them correlates with no value on the fit split. `free`
    is the number of components less that of linearly independent values.
    """
    fitted = found.subspace.directions
    covariance = (found.r_fit * found.subspace.sd[:, None]).nan_to_num(0)
    vectors, sizes, _ = torch.linalg.svd(covariance, full_matrices=True)
    rank = int((sizes > INDEPENDENT * sizes.max()).sum()) if len(sizes) else 0
    return vectors[:, rank:].mT @ fitted


def _unit(vectors: Float[Tensor, "k width"]) -> Float[Tensor, "k width"]:
    vectors = vectors.double()
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def _others(found: Trace, target: Target) -> dict[int, str]:
    """Components that are best for values that the edit is not about -> those values."""
    carried: dict[int, list[str]] = {}
    for value in found.values:
        best = found.best_component(value)
        if best is not None and best != target.component and value not in target.values:
            carried.setdefault(best, []).append(value)
    return {component: ", ".join(values) for component, values in sorted(carried.items())}


def _shuffled(found: Trace, target: Target) -> dict[str, Tensor]:
    """Of each value that the edit is about, the direction fitted on it shuffled."""
    rows = {value: found.shuffled[found.values.index(value)] for value in target.values}
    return {value: row for value, row in rows.items() if torch.isfinite(row).all()}


def _generator(seed: int, site: Site, component: int) -> torch.Generator:
    """Independent for every seed, site and component."""
    # No text of a position holds a number beyond a byte.
    head = [] if site.head is None else [256 + site.head]
    mixed = np.random.SeedSequence([seed, site.layer, component, *head, *site.position.encode()])
    return torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint32)[0]))
