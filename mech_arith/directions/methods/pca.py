"""Principal components: the orthonormal directions of largest variance."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.directions.base import METHODS, Subspace, positive_peaks
from mech_arith.directions.moments import NEGLIGIBLE, KeepsMoments, Moments


@METHODS.register("pca")
@dataclass
class PCAFitter(KeepsMoments):
    """Accumulates what principal components need, batch by batch; see `Moments`.

    Without more rows than dimensions the components come from the rows' Gram matrix.
    """

    n_components: int
    _moments: Moments = field(init=False, default_factory=Moments)

    def update(
        self, activations: Float[Tensor, "n d"], values: Float[Tensor, "n v"] | None = None
    ) -> None:
        """Fold one batch in; what the values are does not matter.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._moments.update(activations)

    def fit(self) -> Subspace:
        """The components, variance descending: as many as were asked for, or fewer where the
        activations vary in fewer.

        Raises:
            UserError: fewer rows than two, or than components.
        """
        moments = self._moments
        moments.require(self.n_components)
        mean, centred = moments.mean, moments.centred_rows
        if centred is None:
            variance, vectors = torch.linalg.eigh(moments.scatter / (moments.count - 1))
            directions = vectors.mT
        else:
            variance, directions = _from_rows(centred)
        total = float(variance.sum())
        order = variance.argsort(descending=True)[: self.n_components]
        floor = NEGLIGIBLE * (float(mean.square().sum()) + total)
        order = order[variance[order] > floor]
        chosen = positive_peaks(directions[order])
        return Subspace(mean, chosen, variance[order].diag(), total)


def _from_rows(
    centred: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
    """Variances and unit directions from the Gram matrix of centred rows."""
    squared, vectors = torch.linalg.eigh(centred @ centred.mT)
    squared = squared.clamp(min=0)
    lengths = squared.sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    directions = (vectors / lengths).mT @ centred
    return squared / (len(centred) - 1), directions
