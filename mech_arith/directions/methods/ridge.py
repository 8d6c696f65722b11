"""Ridge regression: the direction from which each value is read best by a line.

The linear probe of one value y minimises |y - X w|^2 + alpha |w|^2 over the problems of the fit
split. Its alpha is the one with the smallest error on problems that are left out, over folds of the
fit split. Each further direction of a value is the probe of what the directions before leave: of
activations from which these are projected out, with an alpha of its own.

Sources: Hoerl & Kennard (1970), "Ridge regression"; Ravfogel et al. (2020), "Null it out: guarding
protected attributes by iterative nullspace projection", for the further directions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions.base import METHODS, Subspace, positive_peaks, values_of_frames
from mech_arith.directions.moments import CONSTANT, NEGLIGIBLE, Moments


class Sums(NamedTuple):
    """Of n problems, activations and values side by side."""

    n: int
    mean: Float64[Tensor, " all"]
    scatter: Float64[Tensor, "all all"]
    """Of centred rows."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors (columns) of a scatter matrix of activations."""

    sizes: Float64[Tensor, " r"]
    vectors: Float64[Tensor, "r r"]

    @classmethod
    def of(cls, sums: Sums, width: int) -> "Spectrum":
        """Of the first `width` columns."""
        sizes, vectors = torch.linalg.eigh(sums.scatter[:width, :width])
        return cls(sizes.clamp(min=0), vectors)

    def probes(
        self,
        cross: Float64[Tensor, " r"],
        alphas: Float64[Tensor, " a"],
        before: Float64[Tensor, "j r"],
    ) -> Float64[Tensor, "r a"]:
        """Ridge weights for each alpha, orthogonal to the directions before.

        Projecting these out of the activations comes to the same: what a weight has along them
        would cost and bring nothing.
        """
        shrunk = 1 / (self.sizes[:, None] + alphas)
        free = shrunk * (self.vectors.mT @ cross)[:, None]
        if len(before):
            rotated = self.vectors.mT @ before.mT
            held = torch.einsum("rj,ra,rk->ajk", rotated, shrunk, rotated)
            excess = torch.einsum("rj,ra->aj", rotated, free)
            back = torch.linalg.solve(held, excess[..., None])[..., 0]
            free = free - shrunk * (rotated @ back.mT)
        return self.vectors @ free


@dataclass(frozen=True)
class Split:
    """One fold that is left out, and what is needed of the others."""

    left_out: Sums
    mean: Float64[Tensor, " all"]
    cross: Float64[Tensor, "r v"]
    """Scatter of activations with values."""
    spectrum: Spectrum


@dataclass(frozen=True)
class Decomposed:
    """The fit split, whole and with each fold left out."""

    whole: Sums
    width: int
    """Of the activations, which stand before the values."""
    spectrum: Spectrum
    splits: list[Split]

    @property
    def scatter(self) -> Float64[Tensor, "r r"]:
        """Of the activations."""
        return self.whole.scatter[: self.width, : self.width]

    @property
    def total_variance(self) -> float:
        """Of the activations, over all dimensions."""
        return float(self.scatter.diagonal().sum() / (self.whole.n - 1))


@METHODS.register("ridge")
@dataclass
class RidgeFitter:
    """Linear probes of every value, in O(folds (d + v)^2) memory, and twice that for the fit.

    Problems go to the folds in turn, as they come. The fit takes one eigendecomposition for each
    fold and one for all, whatever the values, penalties and ranks.
    """

    is_supervised: ClassVar[bool] = True
    is_per_value: ClassVar[bool] = True

    n_components: int
    penalties: tuple[float, ...] = tuple(10.0**power for power in range(-6, 5))
    """Alphas to choose from, in units of the mean over dimensions of the activations' sum of
    squares about the mean: 1 shrinks a direction of average variance by half."""
    folds: int = 5
    _moments: list[Moments] = field(init=False, default_factory=list)
    _n_values: int = field(init=False, default=0)
    _count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.penalties or not all(0 < one < math.inf for one in self.penalties):
            raise UserError(
                "expected finite tracing.options.penalties above 0, got "
                f"{list(self.penalties)}; change them"
            )
        if self.folds < 2:
            raise UserError(f"expected tracing.options.folds >= 2, got {self.folds}")
        self._moments = [Moments() for _ in range(self.folds)]

    def update(self, activations: Float[Tensor, "n d"], values: Float64[Tensor, "n v"]) -> None:
        """Fold one batch in.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._n_values = values.shape[1]
        rows = torch.cat([activations.double(), values], dim=1)
        fold_of = (self._count + torch.arange(len(rows))) % self.folds
        for fold, moments in enumerate(self._moments):
            mine = rows[fold_of == fold]
            if len(mine) or not len(rows):
                moments.update(mine)
        self._count += len(rows)

    def state(self) -> dict[str, Tensor]:
        """All that it has taken in, for `restore`."""
        if not self._count:
            return {}
        counts = {"count": self._count, "n_values": self._n_values}
        return {name: torch.tensor(count, dtype=torch.int64) for name, count in counts.items()} | {
            f"{fold} {name}": tensor
            for fold, moments in enumerate(self._moments)
            for name, tensor in moments.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another fitter, as if its batches had come to this one."""
        if not state:
            return
        self._count, self._n_values = int(state["count"]), int(state["n_values"])
        for fold, moments in enumerate(self._moments):
            start = f"{fold} "
            mine = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            moments.restore(mine)

    def fit(self) -> Subspace:
        """The probes of every value in turn, as many as were asked for or find something.

        Raises:
            UserError: fewer rows than two.
        """
        _require(self._count)
        folds, basis, mean = _folds(self._moments, self._n_values)
        data = _decomposed(folds, width=len(folds[0].mean) - self._n_values)
        unit = data.total_variance * (data.whole.n - 1) / len(mean)
        alphas = torch.tensor(self.penalties, dtype=torch.float64) * unit
        squares = float(mean.square().sum()) + data.total_variance
        found = [
            _probes(
                data, value, alphas, n_most=self.n_components, least=(NEGLIGIBLE * squares) ** 0.5
            )
            for value in range(self._n_values)
        ]
        inner = torch.cat(found)
        directions = inner if basis is None else inner @ basis
        signed = positive_peaks(directions)
        inner = inner * (signed * directions).sum(1, keepdim=True)
        return Subspace(
            mean,
            signed,
            inner @ data.scatter @ inner.mT / (data.whole.n - 1),
            data.total_variance,
            of_value=values_of_frames(found),
        )


def _require(count: int) -> None:
    if count < 2:
        raise UserError(
            f"expected at least 2 problems to fit a probe, got {count}; raise problems.n or "
            "problems.fit_share"
        )


def _decomposed(folds: Sequence[Sums], *, width: int) -> Decomposed:
    splits = []
    for left_out, fold in enumerate(folds):
        train = _merged([*folds[:left_out], *folds[left_out + 1 :]])
        cross = train.scatter[:width, width:].clone()
        splits.append(Split(fold, train.mean, cross, Spectrum.of(train, width)))
    whole = _merged(folds)
    return Decomposed(whole, width, Spectrum.of(whole, width), splits)


def _probes(
    data: Decomposed, value: int, alphas: Float64[Tensor, " a"], *, n_most: int, least: float
) -> Float64[Tensor, "k r"]:
    """The probes of one value, each of what the ones before leave.

    Args:
        data: the fit split.
        value: its index.
        alphas: to choose from.
        n_most: how many at most.
        least: covariance with a value of unit variance below which there is only rounding.
    """
    whole, column = data.whole, data.width + value
    cross = whole.scatter[: data.width, column]
    sd = float(whole.scatter[column, column] / (whole.n - 1)) ** 0.5
    probes = cross.new_zeros(0, data.width)
    if sd <= CONSTANT * float(whole.mean[column].abs()):
        return probes
    while len(probes) < min(n_most, data.width):
        left = cross - probes.mT @ (probes @ cross)
        if left.norm() <= least * (whole.n - 1) * sd:
            break
        alpha = _chosen(data.splits, column, alphas, probes)
        probe = data.spectrum.probes(cross, alpha[None], probes)[:, 0]
        probe = probe - probes.mT @ (probes @ probe)  # once more, for what rounding leaves
        probes = torch.cat([probes, probe[None] / probe.norm()])
    return probes


def _folds(
    moments: Sequence[Moments], n_values: int
) -> tuple[list[Sums], Float64[Tensor, "r d"] | None, Float64[Tensor, " d"]]:
    """The folds, an orthonormal basis of their activations, and the mean of these.

    Where there are no more problems than dimensions, activations are in coordinates of that basis;
    otherwise it is None.
    """
    filled = [one for one in moments if one.count]
    count = sum(one.count for one in filled)
    total = torch.stack([one.mean * (one.count / count) for one in filled]).sum(0)
    d = len(total) - n_values
    kept = [one.centred_rows for one in filled]
    rows = [of + one.mean - total for of, one in zip(kept, filled, strict=True) if of is not None]
    if count > d or len(rows) < len(filled):
        return [_sums(one) for one in filled], None, total[:d]
    _, sizes, basis = torch.linalg.svd(torch.cat(rows)[:, :d], full_matrices=False)
    basis = basis[sizes > 1e-12 * sizes[0]]
    inner = [torch.cat([of[:, :d] @ basis.mT, of[:, d:]], dim=1) for of in rows]
    values = [0.0] * len(basis) + total[d:].tolist()
    back = torch.tensor(values, dtype=torch.float64)
    return [_sums_of_rows(of + back) for of in inner], basis, total[:d]


def _sums(moments: Moments) -> Sums:
    rows = moments.centred_rows
    scatter = moments.scatter if rows is None else rows.mT @ rows
    return Sums(moments.count, moments.mean, scatter)


def _sums_of_rows(rows: Float64[Tensor, "n all"]) -> Sums:
    centred = rows - rows.mean(0)
    return Sums(len(rows), rows.mean(0), centred.mT @ centred)


def _merged(parts: Sequence[Sums]) -> Sums:
    """Of all problems of several parts."""
    n = sum(part.n for part in parts)
    mean = torch.stack([part.mean * (part.n / n) for part in parts]).sum(0)
    gaps = torch.stack([(part.mean - mean) * part.n**0.5 for part in parts])
    scatter = gaps.mT @ gaps
    for part in parts:
        scatter += part.scatter
    return Sums(n, mean, scatter)


def _chosen(
    splits: Sequence[Split],
    column: int,
    alphas: Float64[Tensor, " a"],
    before: Float64[Tensor, "j r"],
) -> Float64[Tensor, ""]:
    """The alpha of the smallest mean squared error of a value, over folds that are left out."""
    width = before.shape[1]
    errors = torch.zeros_like(alphas)
    for split in splits:
        weights = split.spectrum.probes(split.cross[:, column - width], alphas, before)
        test, gap = split.left_out, split.left_out.mean - split.mean
        scatter, cross = test.scatter[:width, :width], test.scatter[:width, column]
        within = (weights * (scatter @ weights)).sum(0) - 2 * cross @ weights
        shifted = gap[column] - gap[:width] @ weights
        errors += (test.scatter[column, column] + within) / test.n + shifted.square()
    return alphas[errors.argmin()]
