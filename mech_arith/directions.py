"""Directions of activation space, fitted in one pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.errors import UserError

NEGLIGIBLE = 1e-11
"""Variance below this share of the mean squared activation is float32 rounding, not a direction."""


@dataclass(frozen=True)
class PrincipalComponents:
    """Orthonormal directions of largest variance at one site."""

    mean: Float[Tensor, " d"]
    """Mean activation, in the activation's units, float64."""

    directions: Float[Tensor, "k d"]
    """Unit rows, variance descending; the largest entry of each is positive."""

    variance: Float[Tensor, " k"]
    """Variance along each direction over the fit split, in squared activation units."""

    total_variance: float
    """Variance over all directions, in squared activation units."""

    @property
    def sd(self) -> Float[Tensor, " k"]:
        """Standard deviation of each coordinate over the fit split."""
        return self.variance.sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Its parts, by name."""
        total = torch.tensor(self.total_variance, dtype=torch.float64)
        parts = {"mean": self.mean, "directions": self.directions, "variance": self.variance}
        return parts | {"total_variance": total}

    @classmethod
    def of_tensors(cls, parts: Mapping[str, Tensor]) -> "PrincipalComponents":
        """The components that have these parts."""
        return cls(
            parts["mean"],
            parts["directions"],
            parts["variance"],
            float(parts["total_variance"]),
        )

    def project(self, activation: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Coordinates of `activation`; zero at the mean."""
        return (activation.double() - self.mean) @ self.directions.mT


class PCAFitter:
    """Accumulates what principal components need, batch by batch.

    While there are no more rows than dimensions it keeps the rows (and finds the components from
    their Gram matrix); beyond that, mean and scatter in O(d^2) memory.

    Source: Chan, Golub & LeVeque (1983), pairwise update of mean and scatter.
    """

    method: ClassVar[str] = "pca"
    """Its name in configs and in the keys of the store."""

    def __init__(self, n_components: int) -> None:
        if n_components < 1:
            raise UserError(f"expected tracing.n_components >= 1, got {n_components}")
        self.n_components = n_components
        self._rows: list[Tensor] = []
        self._count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def update(self, activation: Float[Tensor, "n d"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        if len(activation) == 0:
            raise ValueError("expected at least one row of activations, got an empty batch")
        if not torch.isfinite(activation).all():
            raise ValueError("expected finite activations, got NaN or infinity")
        rows = activation.double()
        width = rows.shape[1]
        known = self._rows[0] if self._rows else self._mean
        if known is not None and known.shape[-1] != width:
            raise ValueError(f"expected activations of width {known.shape[-1]}, got {width}")
        self._count += len(rows)
        if self._scatter is None and self._count <= width:
            self._rows.append(rows)
            return
        if self._rows:
            rows = torch.cat([*self._rows, rows])
            self._rows = []
        self._fold(rows)

    def _fold(self, rows: Float[Tensor, "n d"]) -> None:
        mean = rows.mean(0)
        centred = rows - mean
        scatter = centred.mT @ centred
        if self._mean is None or self._scatter is None:
            self._mean, self._scatter = mean, scatter
            return
        before = self._count - len(rows)
        gap = mean - self._mean
        self._mean = self._mean + gap * (len(rows) / self._count)
        self._scatter += scatter + torch.outer(gap, gap) * (before * len(rows) / self._count)

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        if self._scatter is None:
            return {"rows": torch.cat(self._rows)} if self._rows else {}
        assert self._mean is not None
        count = torch.tensor(self._count)
        return {"count": count, "mean": self._mean, "scatter": self._scatter}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        if "rows" in state:
            self._rows, self._count = [state["rows"]], len(state["rows"])
        elif state:
            self._count = int(state["count"])
            self._mean, self._scatter = state["mean"], state["scatter"].clone()

    def fit(self) -> PrincipalComponents:
        """The components: as many as were asked for, or fewer where the activations vary in fewer.

        Raises:
            UserError: fewer rows than two, or than components.
        """
        if self._count < max(2, self.n_components):
            raise UserError(
                f"expected at least {max(2, self.n_components)} problems to fit "
                f"{self.n_components} components, got {self._count}; raise problems.n or "
                "problems.fit_share, or lower tracing.n_components"
            )
        if self._rows:
            mean, variance, directions, total = _from_rows(torch.cat(self._rows))
        else:
            assert self._mean is not None
            assert self._scatter is not None
            mean = self._mean
            variance, vectors = torch.linalg.eigh(self._scatter / (self._count - 1))
            directions, total = vectors.mT, float(variance.sum())
        order = variance.argsort(descending=True)[: self.n_components]
        floor = NEGLIGIBLE * (float(mean.square().sum()) + total)
        order = order[variance[order] > floor]
        chosen = directions[order]
        largest = chosen.gather(1, chosen.abs().argmax(1, keepdim=True))
        return PrincipalComponents(mean, chosen * largest.sign(), variance[order], total)


def _from_rows(
    rows: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " n"], Float[Tensor, "n d"], float]:
    """Mean, variances, unit directions and total variance from the Gram matrix of centred rows."""
    mean = rows.mean(0)
    centred = rows - mean
    squared, vectors = torch.linalg.eigh(centred @ centred.mT)
    squared = squared.clamp(min=0)
    lengths = squared.sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    directions = (vectors / lengths).mT @ centred
    variance = squared / (len(rows) - 1)
    return mean, variance, directions, float(variance.sum())


def random_direction(width: int, *, generator: torch.Generator) -> Float[Tensor, " width"]:
    """A unit vector drawn uniformly from the sphere: the control for a fitted direction."""
    vector = torch.randn(width, generator=generator, dtype=torch.float64)
    return vector / vector.norm()
