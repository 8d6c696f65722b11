"""Coordinates of problems on frames that are fitted."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.common.checkpoint import Checkpoint, Piece
from mech_arith.common.streaming import Sums
from mech_arith.directions.base import Subspace
from mech_arith.engine.capture import capture
from mech_arith.engine.session import Session
from mech_arith.engine.sites import Site
from mech_arith.models.prompts import Prompts


def coordinates(
    session: Session,
    prompts: Prompts,
    subspaces: Mapping[Site, Subspace],
    *,
    piece: Piece | None = None,
) -> dict[Site, dict[str, Tensor]]:
    """Of every problem on the directions of every site, in one pass.

    What `piece` holds of the pass is not done again.

    Returns:
        Per site `coordinates` [n, k], and `total_variance` of the activations over all dimensions.
    """
    projections = {site: Projection(fitted, n=len(prompts)) for site, fitted in subspaces.items()}
    kept = piece or Checkpoint.nothing().piece("projecting", {})
    running = Sums({"projection": list(projections.values())}, kept)
    for layout, captured in capture(session, prompts, list(subspaces), skip=running.done):
        for site, activation in captured.items():
            projections[site].update(activation, layout.rows)
        running.advance(len(layout))
    return {
        site: {"coordinates": found.coordinates, "total_variance": found.total_variance()}
        for site, found in projections.items()
    }


class Projection:
    """Coordinates as they come in, and running sums from which the total variance follows."""

    def __init__(self, components: Subspace, *, n: int) -> None:
        self._components = components
        self.coordinates = torch.zeros(n, len(components.directions), dtype=torch.float64)
        self._n = 0
        self._sum: Tensor | float = 0.0
        self._squares = 0.0

    def update(self, activation: Float[Tensor, "m d"], rows: Int64[Tensor, " m"]) -> None:
        """Fold one batch in: the activations of the problems `rows`."""
        self.coordinates[rows] = self._components.project(activation)
        # From the fitted mean, which is near, so that no digits are lost.
        vectors = activation.double() - self._components.mean
        self._n += len(vectors)
        self._sum = self._sum + vectors.sum(0)
        self._squares += float(vectors.square().sum())

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in."""
        if not self._n:
            return {}
        return {
            "coordinates": self.coordinates,
            "n": torch.tensor(self._n, dtype=torch.int64),
            "sum": torch.as_tensor(self._sum),
            "squares": torch.tensor(self._squares, dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state."""
        if state:
            self.coordinates = state["coordinates"].clone()
            self._n, self._sum = int(state["n"]), state["sum"]
            self._squares = float(state["squares"])

    def total_variance(self) -> Float64[Tensor, ""]:
        """Variance summed over all dimensions."""
        mean = torch.as_tensor(self._sum) / self._n
        squares = self._squares - self._n * float(mean.square().sum())
        return torch.tensor(squares / max(1, self._n - 1), dtype=torch.float64)
