"""What methods share that learn from pairs of problems, with gradients through the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from mech_arith import engine, models, problems
from mech_arith.common.checkpoint import Piece
from mech_arith.common.digests import tensor_digest
from mech_arith.common.errors import UserError, unknown
from mech_arith.directions import base, moments, pairs, readings
from mech_arith.directions.base import FitTask
from mech_arith.directions.moments import KeepsMoments, Moments
from mech_arith.directions.pairs import Pairs, draw_pairs, open_pairs
from mech_arith.engine.batching import is_out_of_memory
from mech_arith.engine.gradients import check_differentiable
from mech_arith.problems import ProblemSet

USES: tuple[ModuleType, ...] = (engine, models, problems, base, moments, pairs, readings)
"""Code that has a part in what such a method finds."""


@dataclass
class FromPairs(KeepsMoments):
    """Learns for each value from pairs of the fit split's problems that differ in it.

    While batches come it keeps moments, in O(d^2) memory. When it learns it keeps, for the pairs of
    one value, what `engine.gradients.open_suffixes` says, and the sources' vectors: memory grows
    with `pairs`.
    """

    is_supervised: ClassVar[bool] = True
    is_per_value: ClassVar[bool] = True
    is_trained: ClassVar[bool] = True
    uses: ClassVar[tuple[ModuleType, ...]] = USES

    n_components: int
    pairs: int = 300
    values: tuple[str, ...] | None = None
    _moments: Moments = field(init=False, default_factory=Moments)
    _task: FitTask | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: one of them is out of its range.
        """
        if self.pairs < 2:
            raise UserError(f"expected tracing.options.pairs >= 2, got {self.pairs}")
        if self.values is not None and not self.values:
            raise UserError(
                "expected values to learn for in tracing.options.values, got none; list some, or "
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

    def _indices(self) -> list[int]:
        """Of the values to learn for, in the order of the hypothesis' values."""
        assert self._task is not None
        names = self._task.problems.hypothesis.values
        return [i for i, name in enumerate(names) if self.values is None or name in self.values]

    def _piece(self, stage: str, index: int, options: Mapping[str, Any]) -> Piece:
        """Of the checkpoint: where what was learnt for a value is kept."""
        assert self._task is not None
        task = self._task
        key = {
            **task.session.model.fingerprint,
            **options,
            "pairs": self.pairs,
            "site": task.site.key(task.prompts),
            "prompts": task.prompts.digest(),
            "values": tensor_digest(task.values),
            "is_control": task.is_control,
        }
        return task.session.checkpoint.piece(stage, {**key, "value": index})

    def _pairs(self, index: int, *, holdout: float) -> Pairs | None:
        """The pairs of a value; None where there is nothing to interchange."""
        assert self._task is not None
        drawn = draw_pairs(self._task, index, n=self.pairs)
        if drawn is None:
            return None
        with self._in_memory():
            return open_pairs(self._task, drawn, holdout=holdout)

    @contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Memory that does not hold a single pair ends as an error in one line."""
        assert self._task is not None
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            site = self._task.site
            raise UserError(
                f"expected memory for gradients at layer {site.layer}{site.at} of {self.pairs} "
                "pairs, a single one at a time, got none; lower tracing.options.pairs, or choose "
                "a later layer or fewer positions"
            ) from error
