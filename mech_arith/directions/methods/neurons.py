"""Single neurons: for each value the coordinates that move the answer most when they are another's.

Directions are axes of the activation itself, at `tracing.point=mlp_post` one neuron each. They are
ranked by what an interchange of each alone would do to the answer, to first order: (source - base)
times the gradient of the wanted answer's log probability, or of a regressed answer's closeness, as
a mean over pairs of problems that differ in the value.

Source: attribution patching as in `engine.attribution`; Nikankin et al. (2024, arXiv 2410.21272),
"Arithmetic without algorithms", who rank neurons by their effect.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from mech_arith.directions.base import LEARNING, METHODS, Subspace, values_of_frames
from mech_arith.directions.from_pairs import FromPairs


@METHODS.register("neurons")
@dataclass
class NeuronsFitter(FromPairs):
    """Ranks the coordinates for each value by one backward pass over its pairs."""

    def fit(self) -> Subspace:
        """The axes of every value, the one that moves the answer most first.

        A value has none where it is not among `values`, where no problem has a source, or where
        sources are as their bases at the site.

        Raises:
            UserError: too few problems, or too little memory for a single pair.
        """
        assert self._task is not None
        self._moments.require(1)
        wanted = self._indices()
        frames = [
            self._axes(index) if index in wanted else self._none()
            for index in range(len(self._task.problems.hypothesis.values))
        ]
        directions = torch.cat(frames)
        return Subspace(
            self._moments.mean,
            directions,
            self._moments.covariance_along(directions),
            self._moments.total_variance,
            of_value=values_of_frames(frames),
        )

    def learning(self) -> Float64[Tensor, "points 7"]:
        """Nothing: no step is taken."""
        return torch.zeros(0, len(LEARNING), dtype=torch.float64)

    def _none(self) -> Float64[Tensor, "none d"]:
        return torch.zeros(0, len(self._moments.mean), dtype=torch.float64)

    def _axes(self, index: int) -> Float64[Tensor, "k d"]:
        """Of one value."""
        order = self._piece("neurons", index, {}).fetch("order", lambda: self._order(index))
        chosen = order["order"][: self.n_components]
        axes = torch.zeros(len(chosen), len(self._moments.mean), dtype=torch.float64)
        axes[torch.arange(len(chosen)), chosen] = 1.0
        return axes

    def _order(self, index: int) -> dict[str, Any]:
        """All coordinates, what an interchange of each does, descending."""
        pairs = self._pairs(index, holdout=0.0)
        if pairs is None:
            return {"order": torch.zeros(0, dtype=torch.int64)}
        every = torch.cat([pairs.trained, pairs.held_out])
        with self._in_memory():
            saved = pairs.first_order(every)
        return {"order": saved.argsort(descending=True, stable=True).cpu()}
