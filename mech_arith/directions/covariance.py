"""Running covariances of activations with values."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


class Cross:
    """Running sums from which correlations of any direction with the values follow."""

    def __init__(self, values: Float64[Tensor, "n v"]) -> None:
        self._values = values - values.mean(0)
        self._origin: Tensor | None = None
        self._sum: Tensor | float = 0.0

    def update(self, activation: Float[Tensor, "m d"], rows: Int64[Tensor, " m"]) -> None:
        """Fold one batch in: the activations of the problems `rows`."""
        activation = activation.double()
        if self._origin is None:  # near the mean, so that no digits are lost
            self._origin = activation.mean(0)
        self._sum = self._sum + (activation - self._origin).mT @ self._values[rows]

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in."""
        return (
            {}
            if self._origin is None
            else {"origin": self._origin, "sum": torch.as_tensor(self._sum)}
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state."""
        if state:
            self._origin, self._sum = state["origin"], state["sum"]

    def directions(self) -> Float64[Tensor, "v d"]:
        """For each value the unit vector along which activations covary most with it.

        NaN where nothing covaries, as with a value that is constant.
        """
        covariance = torch.as_tensor(self._sum).mT
        lengths = covariance.norm(dim=1, keepdim=True)
        return torch.where(lengths > 0, covariance / lengths, torch.nan)

    def correlation(
        self, directions: Float[Tensor, "k d"], variance: Float[Tensor, " k"]
    ) -> Float64[Tensor, "k v"]:
        """Pearson's R along each direction; NaN where a value is constant."""
        covariance = directions @ torch.as_tensor(self._sum)
        lengths = (variance * (len(self._values) - 1)).sqrt()
        norms = torch.outer(lengths, self._values.norm(dim=0))
        return torch.where(norms > 0, covariance / norms, torch.nan).clamp(-1, 1)
