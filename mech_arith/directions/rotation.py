"""A rotation that is trained: the subspace whose interchange makes the model answer as wanted.

Problems come in pairs: a base, and a source in which one value alone is another one. What the base
has within a subspace of the site is replaced by what its source has there, and the layers above are
run. The subspace is turned until the model is as likely as can be to give the answer of the base
problem with its value replaced by the source's.

Source: Geiger et al. (2023), "Finding alignments between interpretable causal variables and
distributed neural representations" (distributed alignment search).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mech_arith.common.progress import progress
from mech_arith.directions.pairs import ALIKE, Pairs

EVALUATED_EVERY = 10
"""Steps from one look at the held-out pairs to the next."""

GAIN, LEAST_GAIN = 0.01, 1e-6
"""By which share of what is left of it the held-out loss has to fall, and by how much at least, for
training to go on."""

BETAS = (0.9, 0.9)
"""Of Adam. A frame that is nearly right has a gradient far below that of a random one: the mean of
its squares must not remember those for long."""

RELAXED_STEPS = 40
"""Towards the start of the first training."""

ASIDE = 0.1
"""How far the first training starts from there, where it may be stuck."""

CURVE = ("step", "loss", "held_out_loss")
"""What is kept of each look at the held-out pairs."""


@dataclass(frozen=True)
class Schedule:
    """How a rotation is trained."""

    steps: int
    batch: int
    """Pairs of each step."""
    lr: float
    """About how far a direction turns in the first step, in radians; it falls to 0 by the last."""
    patience: int
    """Looks at the held-out pairs without a gain, after which training ends."""


class Rotation:
    """A frame that turns, within the span of what sources and bases are apart.

    It is the orthonormal factor of a matrix that Adam moves: whatever the matrix becomes, its
    columns span a subspace of the rank. Trainings start from random frames; the first one from the
    directions in which, to first order, an interchange lowers the loss most, where that is better.

    Beyond that span there is nothing to interchange. A direction that leans out of it would push
    activations to where they never are, which may answer as wanted without the value being held
    there. Source: Makelov et al. (2023), "Is this the subspace you are looking for?".
    """

    def __init__(self, pairs: Pairs, *, rank: int, lr: float, seed: int) -> None:
        """Nothing is turned yet.

        Args:
            pairs: to train on.
            rank: of the frame.
            lr: of the first step, see `Schedule`.
            seed: number of the training.
        """
        mixed = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint32)
        self.random = torch.Generator().manual_seed(int(mixed[0]))
        self._pairs, self._lr = pairs, lr
        self._exact_basis = _basis(pairs, rank, self.random)
        self._basis = self._exact_basis.to(pairs.sources)
        # Entries of size 1: then `lr` is about the angle of a step, whatever the width.
        start = torch.randn(self._basis.shape[1], rank, generator=self.random)
        if seed == 0:
            informed = ASIDE * start + _relaxed(pairs, self._basis, rank)
            start = min(
                start, informed, key=lambda x: pairs.loss(pairs.trained, self._turned(x)[0])
            )
        self._matrix = start.to(self._basis).requires_grad_()
        self._optimizer = torch.optim.Adam([self._matrix], lr=lr, betas=BETAS)

    def _turned(self, matrix: Float[Tensor, "r k"]) -> tuple[Float[Tensor, "width k"], Tensor]:
        """A matrix's frame, and the same within the basis, through which gradients flow."""
        within = torch.linalg.qr(matrix.to(self._basis)).Q
        return self._basis @ within.detach(), within

    @property
    def frame(self) -> Float[Tensor, "width k"]:
        """Orthonormal columns."""
        return self._turned(self._matrix.detach())[0]

    def exact(self) -> Float64[Tensor, "k width"]:
        """The same as rows, in double precision, on the CPU."""
        within = torch.linalg.qr(self._matrix.detach().double().cpu()).Q
        return (self._exact_basis @ within).mT.contiguous()

    def step(self, some: Int64[Tensor, " few"], *, share: float = 1.0) -> float:
        """Turn towards a smaller loss of some pairs, by a share of `lr`; the loss before."""
        frame, within = self._turned(self._matrix)
        loss, gradient = self._pairs.loss_and_gradient(some, frame)
        (self._matrix.grad,) = torch.autograd.grad(within, self._matrix, self._basis.mT @ gradient)
        self._optimizer.param_groups[0]["lr"] = share * self._lr
        self._optimizer.step()
        return loss


def train_rotation(
    pairs: Pairs, *, rank: int, schedule: Schedule, seed: int
) -> tuple[Float64[Tensor, "k width"], Float64[Tensor, "points 3"]]:
    """Turn a random frame until the held-out loss falls no more.

    Returns:
        The frame with the smallest held-out loss; and the curve, see `CURVE`: the loss is the mean
        over the steps since the look before.
    """
    rotation = Rotation(pairs, rank=rank, lr=schedule.lr, seed=seed)
    batches = _batches(pairs.trained, schedule.batch, rotation.random)
    best, lowest, mark, waited = rotation.exact(), float("inf"), float("inf"), 0
    bound = pairs.bound(pairs.held_out)  # found once: it is of no frame
    curve: list[tuple[float, float, float]] = []
    losses: list[float] = []
    bar = progress(range(schedule.steps + 1), description="training", unit="steps")
    for step in bar:
        if step % EVALUATED_EVERY == 0 or step == schedule.steps:
            held_out = pairs.loss(pairs.held_out, rotation.frame)
            if held_out < lowest:
                best, lowest = rotation.exact(), held_out
            if not curve or mark - held_out > max(GAIN * _left(mark, bound), LEAST_GAIN):
                mark, waited = held_out, 0
            else:
                waited += 1
            curve.append((step, float(np.mean(losses)) if losses else float("nan"), held_out))
            losses = []
            if waited >= schedule.patience:
                break
        if step < schedule.steps:
            losses.append(rotation.step(next(batches), share=1 - step / schedule.steps))
    return best, torch.tensor(curve, dtype=torch.float64)


def _left(loss: float, bound: float) -> float:
    """What may be left to gain: down to the loss of the whole activation's interchange, or to 0
    where it is lower than that already.

    Tokens that no edit at the site reaches add a loss that stays, and may be far above the rest.
    """
    return loss - bound if bound < loss else loss


def _basis(pairs: Pairs, rank: int, random: torch.Generator) -> Float64[Tensor, "width r"]:
    """Orthonormal columns that span what sources and bases are apart in training, and as many more
    of any kind as a frame of the rank needs.
    """
    apart = pairs.apart[pairs.trained].double().cpu()
    _, sizes, rows = torch.linalg.svd(apart, full_matrices=False)
    columns = rows[sizes > ALIKE * sizes[0]].mT
    more = torch.randn(pairs.width, max(0, rank - columns.shape[1]), generator=random)
    return torch.linalg.qr(torch.cat([columns, more.double()], dim=1)).Q


def _relaxed(pairs: Pairs, basis: Float[Tensor, "width r"], rank: int) -> Float[Tensor, "r k"]:
    """Columns, with entries of size 1, that an interchange needs if it may be of many directions.

    Between two subspaces lie frames that mix a direction of one with a direction of the other: what
    one of them says of the source is written along the other. Where a loud coordinate says nothing,
    training does not get past that. Between their *projections* P lie their weighted means, which
    mix nothing. So the loss is lowered over these: symmetric matrices with eigenvalues from 0 to 1
    and trace k. From each P the way goes towards the subspace in which, to first order, an
    interchange lowers the loss most: that of the eigenvectors of the gradient by P whose
    eigenvalues are most below 0. Each P stands for the subspace of its k largest eigenvectors, of
    which the best is taken.

    Source: Frank & Wolfe (1956), an algorithm for quadratic programming; Overton & Womersley (1992)
    for the set of matrices.
    """
    found, tried = basis.new_zeros(basis.shape[1], basis.shape[1]), []
    for step in range(RELAXED_STEPS):
        gradient = pairs.relaxed_gradient(pairs.trained, basis, found)
        lowest = torch.linalg.eigh(gradient + gradient.mT)[1][:, :rank]
        found += 2 / (step + 2) * (lowest @ lowest.mT - found)
        tried.append(torch.linalg.eigh(found)[1][:, -rank:])
    best = min(tried, key=lambda within: pairs.loss(pairs.trained, basis @ within))
    return best.cpu() * len(found) ** 0.5


def _batches(
    rows: Int64[Tensor, " n"], size: int, random: torch.Generator
) -> Iterator[Int64[Tensor, " few"]]:
    """All rows in a random order, some at a time, again and again in other orders."""
    while True:
        order = rows[torch.randperm(len(rows), generator=random)]
        whole = len(order) - len(order) % size if len(order) >= size else len(order)
        yield from order[:whole].split(size)
