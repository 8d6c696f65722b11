"""Mean and scatter of rows that come batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError


class Moments:
    """Running mean and scatter.

    While there are no more rows than dimensions it keeps the rows; beyond that, mean and scatter in
    O(d^2) memory.

    Source: Chan, Golub & LeVeque (1983), pairwise update of mean and scatter.
    """

    def __init__(self) -> None:
        self.count = 0
        """Rows that came."""
        self._rows: list[Tensor] = []
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
        self.count += len(rows)
        if self._scatter is None and self.count <= width:
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
        before = self.count - len(rows)
        gap = mean - self._mean
        self._mean = self._mean + gap * (len(rows) / self.count)
        self._scatter += scatter + torch.outer(gap, gap) * (before * len(rows) / self.count)

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        if self._scatter is None:
            return {"rows": torch.cat(self._rows)} if self._rows else {}
        assert self._mean is not None
        count = torch.tensor(self.count, dtype=torch.int64)
        return {"count": count, "mean": self._mean, "scatter": self._scatter}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state, as if its batches had come to this one."""
        if "rows" in state:
            self._rows, self.count = [state["rows"]], len(state["rows"])
        elif state:
            self.count = int(state["count"])
            self._mean, self._scatter = state["mean"], state["scatter"].clone()

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of all rows, float64."""
        if self._rows:
            return torch.cat(self._rows).mean(0)
        assert self._mean is not None
        return self._mean

    @property
    def centred_rows(self) -> Float[Tensor, "n d"] | None:
        """All rows less their mean, while they are kept; None once there is a scatter."""
        return torch.cat(self._rows) - self.mean if self._rows else None

    @property
    def scatter(self) -> Float[Tensor, "d d"]:
        """Sum of the outer products of centred rows, where rows are no longer kept."""
        assert self._scatter is not None
        return self._scatter

    @property
    def total_variance(self) -> float:
        """Over all dimensions."""
        rows = self.centred_rows
        squares = self.scatter.diagonal() if rows is None else rows.square().sum(0)
        return float(squares.sum()) / (self.count - 1)

    def covariance_along(self, directions: Float[Tensor, "k d"]) -> Float[Tensor, "k k"]:
        """Of the coordinates along some directions."""
        rows = self.centred_rows
        if rows is None:
            return directions @ self.scatter @ directions.mT / (self.count - 1)
        found = rows @ directions.mT
        return found.mT @ found / (self.count - 1)

    def require(self, n_components: int) -> None:
        """Raise a UserError where there are fewer rows than two, or than directions asked for."""
        least = max(2, n_components)
        if self.count < least:
            raise UserError(
                f"expected at least {least} problems to fit {n_components} components, got "
                f"{self.count}; raise problems.n or problems.fit_share, or lower "
                "tracing.n_components"
            )


NEGLIGIBLE = 1e-11
"""Variance below this share of the mean squared activation is float32 rounding, not a direction."""

CONSTANT = 1e-12
"""A value whose standard deviation is below this share of its size is constant but for rounding."""


@dataclass(frozen=True)
class Joint:
    """Covariances of activations, and of numbers that go with each of them."""

    count: int
    """Problems."""
    mean: Float64[Tensor, " d"]
    mean_beside: Float64[Tensor, " m"]
    cross: Float64[Tensor, "d m"]
    """Covariance of the activations with the numbers beside them."""
    variances: Float64[Tensor, " all"]
    """Of the activations, then of the numbers beside them."""
    rows: Float64[Tensor, "n all"] | None
    """Centred; kept where there are no more rows than columns."""
    scatter: Float64[Tensor, "all all"] | None
    """Sum of outer products of centred rows, where these are not kept."""

    @property
    def total_variance(self) -> float:
        """Of the activations, over all dimensions."""
        return float(self.variances[: len(self.mean)].sum())

    @property
    def variance_beside(self) -> Float64[Tensor, " m"]:
        """Of the numbers beside the activations."""
        return self.variances[len(self.mean) :]

    @property
    def varies(self) -> Bool[Tensor, " m"]:
        """Marks the numbers beside the activations that are not constant."""
        return self.variance_beside.sqrt() > CONSTANT * self.mean_beside.abs()

    @property
    def floor(self) -> float:
        """Variance below which there is only rounding."""
        return NEGLIGIBLE * (float(self.mean.square().sum()) + self.total_variance)

    @cached_property
    def beside(self) -> Float64[Tensor, "m m"]:
        """Covariance of the numbers beside the activations."""
        d = len(self.mean)
        if self.rows is None:
            assert self.scatter is not None
            return self.scatter[d:, d:] / (self.count - 1)
        return self.rows[:, d:].mT @ self.rows[:, d:] / (self.count - 1)

    @cached_property
    def _factor(self) -> Float64[Tensor, "any d"]:
        """Of the activations' covariance: X with X'X where rows are kept, otherwise itself."""
        d, n = len(self.mean), self.count - 1
        if self.rows is not None:
            return self.rows[:, :d] / n**0.5
        assert self.scatter is not None
        return self.scatter[:d, :d] / n

    def times(self, vectors: Float64[Tensor, "d ..."]) -> Float64[Tensor, "d ..."]:
        """The activations' covariance matrix times vectors."""
        if self.rows is None:
            return self._factor @ vectors
        return self._factor.mT @ (self._factor @ vectors)

    def along(self, directions: Float64[Tensor, "k d"]) -> Float64[Tensor, "k k"]:
        """Covariance of the coordinates along some directions."""
        return directions @ self.times(directions.mT)


class JointMoments:
    """Running moments of activations and of m numbers that go with each of them.

    O((d + m)^2) memory; see `Moments`.
    """

    def __init__(self) -> None:
        self._moments = Moments()
        self._n_beside = 0

    def update(self, activations: Float[Tensor, "n d"], beside: Float64[Tensor, "n m"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._n_beside = beside.shape[1]
        self._moments.update(torch.cat([activations.double(), beside], dim=1))

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        moments = self._moments.state()
        n_beside = torch.tensor(self._n_beside, dtype=torch.int64)
        return {**moments, "n_beside": n_beside} if moments else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up another's state, as if its batches had come to this one."""
        if state:
            self._n_beside = int(state["n_beside"])
            self._moments.restore(state)

    def joint(self, n_components: int) -> Joint:
        """What came.

        Raises:
            UserError: fewer rows than two, or than `n_components`.
        """
        moments = self._moments
        moments.require(n_components)
        d, n = len(moments.mean) - self._n_beside, moments.count - 1
        rows = moments.centred_rows
        if rows is None:
            scatter = moments.scatter
            cross, variances = scatter[:d, d:] / n, scatter.diagonal() / n
        else:
            scatter = None
            x = rows[:, :d] / n**0.5
            cross, variances = x.mT @ rows[:, d:] / n**0.5, rows.square().sum(0) / n
        means = moments.mean
        return Joint(moments.count, means[:d], means[d:], cross, variances, rows, scatter)


class KeepsMoments:
    """What fitters share whose moments are all that they take in."""

    _moments: Moments | JointMoments

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        return self._moments.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        self._moments.restore(state)
