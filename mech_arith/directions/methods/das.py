"""Distributed alignment search: for each value and rank a subspace that is trained.

It is the subspace whose interchange with a counterfactual problem makes the model answer as if the
value were the other one. `rotation` says how it is trained.

Source: Geiger et al. (2023), "Finding alignments between interpretable causal variables and
distributed neural representations".
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from types import ModuleType
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.directions import rotation
from mech_arith.directions.base import LEARNING, METHODS, Subspace, positive_peaks
from mech_arith.directions.from_pairs import USES, FromPairs
from mech_arith.directions.pairs import Pairs
from mech_arith.directions.rotation import Schedule, train_rotation


@METHODS.register("das")
@dataclass
class DASFitter(FromPairs):
    """Trains a frame for each value and each rank, on pairs of the fit split's problems.

    A training that has ended is not done again after a kill.
    """

    is_per_rank: ClassVar[bool] = True
    uses: ClassVar[tuple[ModuleType, ...]] = (*USES, rotation)

    steps: int = 200
    batch: int = 300
    lr: float = 0.1
    seeds: int = 1
    holdout: float = 0.2
    patience: int = 5
    _learning: list[Float64[Tensor, "points 7"]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: one of them is out of its range.
        """
        super().__post_init__()
        for name in ("steps", "batch", "seeds", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"expected tracing.options.{name} >= 1, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"expected tracing.options.lr above 0, got {self.lr}")
        if not 0 < self.holdout < 1:
            raise UserError(
                f"expected tracing.options.holdout above 0 and below 1, got {self.holdout}"
            )

    def fit(self) -> Subspace:
        """The trained frames of every value and rank, values one after another.

        A value has none where it is not among `values`, where no problem has a source, or where
        sources are as their bases at the site.

        Raises:
            UserError: too few problems, losses that are not finite, or too little memory for a
                single pair.
        """
        assert self._task is not None
        self._moments.require(self.n_components)
        frames, of_value, of_rank = [], [], []
        for index in self._indices():
            for rank, frame in self.frames(index).items():
                frames.append(self._in_order(frame))
                of_value += [index] * rank
                of_rank += [rank] * rank
        width = len(self._moments.mean)
        directions = torch.cat([torch.zeros(0, width, dtype=torch.float64), *frames])
        return Subspace(
            self._moments.mean,
            directions,
            self._moments.covariance_along(directions),
            self._moments.total_variance,
            torch.tensor(of_value, dtype=torch.int64),
            torch.tensor(of_rank, dtype=torch.int64),
        )

    def learning(self) -> Float64[Tensor, "points 7"]:
        """Every look at the held-out pairs of every training, by `LEARNING`."""
        return torch.cat([torch.zeros(0, len(LEARNING), dtype=torch.float64), *self._learning])

    def frames(self, index: int) -> dict[int, Float64[Tensor, "k d"]]:
        """A value's best frame of each rank."""
        assert self._task is not None
        made = cache(lambda: self._pairs(index, holdout=self.holdout))
        key = {"holdout": self.holdout, **asdict(self._schedule)}
        piece = self._piece("training", index, key)
        found = {}
        for rank in self._task.ranks or (1,):

            def train(seed: int, rank: int = rank) -> Callable[[], dict[str, Tensor]]:
                return lambda: self._trained(made(), rank, seed)

            tried = [piece.fetch(f"{rank}, {seed}", train(seed)) for seed in range(self.seeds)]
            if not len(tried[0]["frame"]):
                continue
            losses = torch.stack([one["curve"][:, 2].min() for one in tried])
            best = int(losses.argmin())
            found[rank] = tried[best]["frame"]
            for seed, one in enumerate(tried):
                curve = one["curve"]
                of_training = torch.tensor([index, rank, seed], dtype=torch.float64)
                kept = torch.zeros(len(curve), 1, dtype=torch.float64)
                kept[curve[:, 2].argmin()] = seed == best
                self._learning.append(
                    torch.cat([of_training.expand(len(curve), -1), curve, kept], dim=1)
                )
        return found

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.steps, self.batch, self.lr, self.patience)

    def _trained(self, pairs: Pairs | None, rank: int, seed: int) -> dict[str, Tensor]:
        """One training; an empty frame where there is nothing to interchange."""
        assert self._task is not None
        if pairs is None:
            nothing = torch.zeros(0, dtype=torch.float64)
            return {"frame": nothing, "curve": nothing}
        with self._in_memory():
            frame, curve = train_rotation(pairs, rank=rank, schedule=self._schedule, seed=seed)
        return {"frame": frame, "curve": curve}

    def _in_order(self, frame: Float64[Tensor, "k d"]) -> Float64[Tensor, "k d"]:
        """The same subspace by its principal axes, the variance descending."""
        _, axes = torch.linalg.eigh(self._moments.covariance_along(frame))
        turned = torch.linalg.qr(frame.mT @ axes.flip(1)).Q.mT
        return positive_peaks(turned)
