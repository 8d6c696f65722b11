"""Partial least squares: the orthonormal directions that covary most with the values.

The first is the unit vector along which activations X covary most with a combination of the values
Y. Each further one is the same of X and Y less what the directions before explain of both.

Sources: Wold, Sjostrom & Eriksson (2001), "PLS-regression: a basic tool of chemometrics"; Dayal &
MacGregor (1997), "Improved PLS algorithms", whose second algorithm needs only X'X and X'Y, and
deflates X'Y alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.directions.base import METHODS, Subspace, positive_peaks
from mech_arith.directions.moments import JointMoments, KeepsMoments


@METHODS.register("pls")
@dataclass
class PLSFitter(KeepsMoments):
    """PLS2 of the activations with all values that vary, each of unit variance.

    It keeps moments of activations and values side by side, in O((d + v)^2) memory.
    A supervised method: R on the fit split is optimistic, also that of a value that is not there.
    Read R on the report split.
    """

    is_supervised: ClassVar[bool] = True

    n_components: int
    _moments: JointMoments = field(init=False, default_factory=JointMoments)

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._moments.update(activations, values)

    def fit(self) -> Subspace:
        """The X-weights: as many as were asked for, or fewer where nothing is left that covaries.

        Raises:
            UserError: fewer rows than two, or than components.
        """
        found = self._moments.joint(self.n_components)
        varies, sd = found.varies, found.variance_beside.sqrt()
        directions = positive_peaks(
            _weights(
                found.cross[:, varies] / sd[varies],
                found.times,
                n_components=self.n_components,
                least=found.floor**0.5,
            )
        )
        return Subspace(found.mean, directions, found.along(directions), found.total_variance)


def _weights(
    cross: Float64[Tensor, "d v"],
    times: Callable[[Tensor], Tensor],
    *,
    n_components: int,
    least: float,
) -> Float64[Tensor, "k d"]:
    """Unit X-weights, orthogonal to each other.

    Args:
        cross: covariance of the activations with values of unit variance.
        times: the activations' covariance matrix times a vector.
        n_components: how many at most.
        least: covariance below which there is only rounding.
    """
    weights = cross.new_zeros(0, len(cross))
    rotations, loadings = weights, weights
    while len(weights) < n_components and cross.shape[1]:
        left, sizes, _ = torch.linalg.svd(cross, full_matrices=False)
        if sizes[0] <= least:
            break
        # Orthogonal to those before but for rounding, which would grow from one to the next.
        weight = left[:, 0] - weights.mT @ (weights @ left[:, 0])
        weight = weight / weight.norm()
        # The combination of activations whose score is uncorrelated with all scores before.
        rotation = weight
        for loading, earlier in zip(loadings, rotations, strict=True):
            rotation = rotation - (loading @ weight) * earlier
        scattered = times(rotation)
        loading = scattered / (rotation @ scattered)
        cross = cross - torch.outer(loading, rotation @ cross)
        weights = torch.cat([weights, weight[None]])
        rotations = torch.cat([rotations, rotation[None]])
        loadings = torch.cat([loadings, loading[None]])
    return weights
