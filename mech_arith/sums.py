"""Running sums over problems that go by batch after batch, which a kill does not lose.

Each can say all that it has taken in (`state`), and another can take that up (`restore`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.directions import PrincipalComponents
from mech_arith.unfinished import Piece


@runtime_checkable
class Summing(Protocol):
    """Takes batches in, and can be stopped and taken up in between."""

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class Sums:
    """Running sums of all sites, kept now and then while problems go by."""

    def __init__(self, sums: Mapping[str, Sequence[Summing]], piece: Piece) -> None:
        self._sums = {
            f"{kind} {i}": one for kind, some in sums.items() for i, one in enumerate(some)
        }
        self._piece = piece
        known = piece.state()
        self.done = int(known.get("done", 0))
        """Problems that went by."""
        for name, one in self._sums.items() if known else ():
            start = f"{name}/"
            of_one = {k.removeprefix(start): v for k, v in known.items() if k.startswith(start)}
            one.restore(of_one)

    def advance(self, n: int) -> None:
        """Count `n` problems more."""
        self.done += n
        self._piece.keep_state(self._state)

    def _state(self) -> dict[str, Tensor]:
        state = {f"{k}/{v}": t for k, one in self._sums.items() for v, t in one.state().items()}
        return {**state, "done": torch.tensor(self.done)}


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


class Projection:
    """Coordinates as they come in, and running sums from which the total variance follows."""

    def __init__(self, components: PrincipalComponents, *, n: int) -> None:
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
            "n": torch.tensor(self._n),
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
