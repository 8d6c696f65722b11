"""Partial least squares: the orthonormal directions that covary most with the values.

The first is the unit vector along which activations X covary most with a combination of the values
Y. Each further one is the same of X and Y less what the directions before explain of both.

Sources: Wold, Sjostrom & Eriksson (2001), "PLS-regression: a basic tool of chemometrics"; Dayal &
MacGregor (1997), "Improved PLS algorithms", whose second algorithm needs only X'X and X'Y, and
deflates X'Y alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.directions.base import METHODS, NEGLIGIBLE, Subspace, positive_peaks
from mech_arith.directions.moments import Moments

CONSTANT = 1e-12
"""A value whose standard deviation is below this share of its size is constant but for rounding."""


@METHODS.register("pls")
@dataclass
class PLSFitter:
    """PLS2 of the activations with all values that vary, each of unit variance.

    It keeps moments of activations and values side by side, in O((d + v)^2) memory; see `Moments`.
    A supervised method: R on the fit split is optimistic, also that of a value that is not there.
    Read R on the report split.
    """

    is_supervised: ClassVar[bool] = True

    n_components: int
    _moments: Moments = field(init=False, default_factory=Moments)
    _n_values: int = field(init=False, default=0)

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._n_values = values.shape[1]
        self._moments.update(torch.cat([activations.double(), values], dim=1))

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        moments = self._moments.state()
        n_values = torch.tensor(self._n_values, dtype=torch.int64)
        return {**moments, "n_values": n_values} if moments else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        if state:
            self._n_values = int(state["n_values"])
            self._moments.restore(state)

    def fit(self) -> Subspace:
        """The X-weights: as many as were asked for, or fewer where nothing is left that covaries.

        Raises:
            UserError: fewer rows than two, or than components.
        """
        moments = self._moments
        moments.require(self.n_components)
        d, n = len(moments.mean) - self._n_values, moments.count - 1
        rows = moments.centred_rows
        if rows is None:
            scatter = moments.scatter[:d, :d] / n
            cross, squares = moments.scatter[:d, d:] / n, moments.scatter.diagonal() / n
            times: Callable[[Tensor], Tensor] = scatter.matmul
        else:
            x = rows[:, :d] / n**0.5
            cross, squares = x.mT @ rows[:, d:] / n**0.5, rows.square().sum(0) / n

            def through_rows(vectors: Tensor) -> Tensor:
                return x.mT @ (x @ vectors)

            times = through_rows

        mean, total = moments.mean[:d], float(squares[:d].sum())
        sd = squares[d:].sqrt()
        varies = sd > CONSTANT * moments.mean[d:].abs()
        least = (NEGLIGIBLE * (float(mean.square().sum()) + total)) ** 0.5
        found = _weights(
            cross[:, varies] / sd[varies], times, n_components=self.n_components, least=least
        )
        directions = positive_peaks(found)
        covariance = directions @ times(directions.mT)
        return Subspace(mean, directions, covariance, total)


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
