"""Distributed alignment search: for each value and rank a subspace that is trained.

It is the subspace whose interchange with a counterfactual problem makes the model answer as if the
value were the other one. `rotation` says how it is trained.

Source: Geiger et al. (2023), "Finding alignments between interpretable causal variables and
distributed neural representations".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from types import ModuleType
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mech_arith import engine, models, problems
from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError, unknown
from mech_arith.directions import base, moments, readings, rotation
from mech_arith.directions.base import LEARNING, METHODS, FitTask, Subspace, positive_peaks
from mech_arith.directions.moments import KeepsMoments, Moments
from mech_arith.directions.pairs import Pairs, draw_pairs, open_pairs
from mech_arith.directions.rotation import Schedule, train_rotation
from mech_arith.engine.batching import is_out_of_memory
from mech_arith.engine.gradients import check_differentiable
from mech_arith.problems import ProblemSet


@METHODS.register("das")
@dataclass
class DASFitter(KeepsMoments):
    """Trains a frame for each value and each rank, on pairs of the fit split's problems.

    While batches come it keeps moments, in O(d^2) memory. When it trains it keeps, for the pairs of
    one value, what `engine.gradients.open_suffixes` says, and the sources' vectors: memory grows
    with `pairs`. A training that has ended is not done again after a kill.
    """

    is_supervised: ClassVar[bool] = True
    is_per_value: ClassVar[bool] = True
    is_per_rank: ClassVar[bool] = True
    is_trained: ClassVar[bool] = True
    uses: ClassVar[tuple[ModuleType, ...]] = (
        *(engine, models, problems),
        *(base, moments, readings, rotation),
    )

    n_components: int
    steps: int = 200
    batch: int = 300
    lr: float = 0.1
    seeds: int = 1
    holdout: float = 0.2
    patience: int = 5
    pairs: int = 300
    values: tuple[str, ...] | None = None
    _moments: Moments = field(init=False, default_factory=Moments)
    _task: FitTask | None = field(init=False, default=None)
    _learning: list[Float64[Tensor, "points 7"]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: one of them is out of its range.
        """
        for name in ("steps", "batch", "seeds", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"expected tracing.options.{name} >= 1, got {getattr(self, name)}")
        if self.pairs < 2:
            raise UserError(f"expected tracing.options.pairs >= 2, got {self.pairs}")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"expected tracing.options.lr above 0, got {self.lr}")
        if not 0 < self.holdout < 1:
            raise UserError(
                f"expected tracing.options.holdout above 0 and below 1, got {self.holdout}"
            )
        if self.values is not None and not self.values:
            raise UserError(
                "expected values to train for in tracing.options.values, got none; list some, or "
                "null for all"
            )

    def check(self, problems: ProblemSet, ranks: Sequence[int]) -> None:
        """Refuse values that the problems do not have.

        Raises:
            UserError: `values` names one.
        """
        for value in self.values or ():
            if value not in problems.values:
                raise unknown("value in tracing.options.values", value, problems.values)

    def start(self, task: FitTask) -> None:
        """Where it is to look.

        Raises:
            UserError: the model's blocks cannot be run one by one.
        """
        check_differentiable(task.session.model)
        self._task = task

    def update(
        self, activations: Float[Tensor, "n d"], values: Float[Tensor, "n v"] | None = None
    ) -> None:
        """Fold one batch in, for the mean and the covariance.

        Raises:
            ValueError: the batch is empty, of another width, or not finite.
        """
        self._moments.update(activations)

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

    def _indices(self) -> list[int]:
        """Of the values to train for, in the order of the hypothesis' values."""
        assert self._task is not None
        names = self._task.problems.hypothesis.values
        return [i for i, name in enumerate(names) if self.values is None or name in self.values]

    def frames(self, index: int) -> dict[int, Float64[Tensor, "k d"]]:
        """A value's best frame of each rank."""
        assert self._task is not None
        task = self._task
        made = cache(lambda: self._pairs(index))
        options = {name: getattr(self, name) for name in ("holdout", "pairs")}
        model, schedule = task.session.model, self._schedule
        key = {
            **model.fingerprint,
            **options,
            **asdict(schedule),
            "site": task.site.key(task.prompts),
            "prompts": task.prompts.digest(),
            "values": tensor_digest(task.values),
            "is_control": task.is_control,
        }
        piece = task.session.checkpoint.piece("training", {**key, "value": index})
        found = {}
        for rank in task.ranks or (1,):

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

    def _pairs(self, index: int) -> Pairs | None:
        """The pairs of a value; None where there is nothing to interchange."""
        assert self._task is not None
        drawn = draw_pairs(self._task, index, n=self.pairs)
        if drawn is None:
            return None
        with _in_memory(self._task, self.pairs):
            return open_pairs(self._task, drawn, holdout=self.holdout)

    def _trained(self, pairs: Pairs | None, rank: int, seed: int) -> dict[str, Tensor]:
        """One training; an empty frame where there is nothing to interchange."""
        assert self._task is not None
        if pairs is None:
            nothing = torch.zeros(0, dtype=torch.float64)
            return {"frame": nothing, "curve": nothing}
        with _in_memory(self._task, self.pairs):
            frame, curve = train_rotation(pairs, rank=rank, schedule=self._schedule, seed=seed)
        return {"frame": frame, "curve": curve}

    def _in_order(self, frame: Float64[Tensor, "k d"]) -> Float64[Tensor, "k d"]:
        """The same subspace by its principal axes, the variance descending."""
        _, axes = torch.linalg.eigh(self._moments.covariance_along(frame))
        turned = torch.linalg.qr(frame.mT @ axes.flip(1)).Q.mT
        return positive_peaks(turned)


@contextmanager
def _in_memory(task: FitTask, pairs: int) -> Iterator[None]:
    """Memory that does not hold a single pair ends as an error in one line."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"expected memory to train a rotation at layer {task.site.layer}{task.site.at} on "
            f"{pairs} pairs, a single one at a time, got none; lower tracing.options.pairs, or "
            "choose a later layer or fewer positions"
        ) from error
