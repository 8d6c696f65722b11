"""A direction method: directions drawn at random, to compare others with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mech_arith.directions.base import METHODS, Subspace, positive_peaks
from mech_arith.directions.moments import Moments


@METHODS.register("random_projection")
@dataclass
class RandomProjection:
    """It looks at activations for their mean and covariance alone, and not at the values."""

    n_components: int
    seed: int = 0  # tracing.options.seed
    _moments: Moments = field(init=False, default_factory=Moments)

    def update(self, activations: Tensor, values: Tensor) -> None:
        """Fold in one batch: activations [n, d], values [n, v]."""
        self._moments.update(activations.double())

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in: a killed run goes on from it."""
        return self._moments.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up such a state."""
        self._moments.restore(state)

    def fit(self) -> Subspace:
        """Orthonormal directions, with the covariance of the coordinates along them."""
        mean = self._moments.mean
        draw = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(mean), self.n_components, generator=draw, dtype=torch.float64)
        directions = positive_peaks(torch.linalg.qr(drawn).Q.mT.contiguous())
        rows = self._moments.centred_rows
        scatter = self._moments.scatter if rows is None else rows.mT @ rows
        scatter = scatter / (self._moments.count - 1)
        covariance = directions @ scatter @ directions.mT
        return Subspace(mean, directions, covariance, float(scatter.trace()))
