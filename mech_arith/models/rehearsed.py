"""A model for rehearsals: it takes no time, and counts the rows that go through it.

Real code runs on it as on any other model. What that code asks for, how many rows of which passes,
hardly depends on the network; so a few problems on this one tell what many would cost on another.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mech_arith.models.attention import NOTHING, KeysValues, Past
from mech_arith.models.base import EVERY, Model, Tap, untouched
from mech_arith.models.prompts import Prompts
from mech_arith.problems import ProblemSet

NOISE = 0.3
"""Of every coordinate, in standard deviations of a value: no direction is without variance."""

LEAST_WIDTH = 24


@dataclass(frozen=True)
class Tally:
    """Rows by the kind of their pass."""

    read: int = 0
    """Passes from the beginning that end before the last layer: activations are read."""
    whole: int = 0
    """Passes from the beginning to an answer."""
    resumed: int = 0
    """Passes that start at an edit."""

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(
            self.read - other.read, self.whole - other.whole, self.resumed - other.resumed
        )


class RehearsedModel(Model):
    """Holds all values of a problem, each along a direction of its own, at its one position.

    Its blocks change nothing. It regresses the right answer.
    """

    name = "rehearsed"
    n_heads = 1
    width_out = 1
    tolerance = 0.5
    device = torch.device("cpu")
    points = ("resid_pre", "resid_post")

    def __init__(self, problems: ProblemSet, *, n_layers: int, n_components: int) -> None:
        """Nothing is counted yet.

        Args:
            problems: by whose values others are scaled.
            n_layers: one more than it has sites.
            n_components: directions that are asked for at a site.
        """
        self.n_layers = n_layers
        names = problems.hypothesis.values
        self.d_model = max(LEAST_WIDTH, 2 * (n_components + len(names)))
        self.digest = f"rehearsed {names}"
        self._scale = {
            name: (float(numbers.mean()), float(numbers.std()) or 1.0)
            for name, numbers in problems.values.items()
        }
        random = torch.Generator().manual_seed(0)
        self._directions = torch.linalg.qr(
            torch.randn(self.d_model, self.d_model, generator=random)
        ).Q[: len(names)]
        self._vectors = torch.empty(0, self.d_model)
        """By token: of every problem that was encoded."""
        self._counts: Counter[str] = Counter()
        self._layer = -1
        """The last that was run."""

    @property
    def tally(self) -> Tally:
        """All rows so far."""
        started, whole = self._counts["started"], self._counts["whole"]
        return Tally(started - whole, whole, self._counts["resumed"])

    def encode(self, problems: ProblemSet, *, digits: int = 0) -> Prompts:
        """Each problem as one token of its own."""
        scaled = [
            (problems.values[name] - middle) / sd for name, (middle, sd) in self._scale.items()
        ]
        values = torch.from_numpy(np.stack(scaled, axis=1)).float()
        # Random, and the same for the same problem.
        noise = torch.sin(values @ self._directions * 1e4) * NOISE
        start = len(self._vectors)
        self._vectors = torch.cat([self._vectors, values @ self._directions + noise])
        tokens = torch.arange(start, len(self._vectors))[:, None]
        spans = dict.fromkeys(problems.template.expression.operands, (0,))
        return Prompts.uniform(tokens, ("problem",), spans)

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        self._layer = -1
        return self._vectors[tokens]

    def run_block(
        self,
        layer: int,
        resid_pre: Float[Tensor, "rows new d"],
        *,
        start: int = 0,
        past: Past = NOTHING,
        tap: Tap = untouched,
        at: slice = EVERY,
    ) -> tuple[Float[Tensor, "rows at d"], KeysValues]:
        rows = len(resid_pre)
        if layer == 0:
            self._counts["started"] += rows
            self._from_start = True
        elif layer != self._layer + 1 or not self._from_start:
            self._counts["resumed"] += rows if layer != self._layer + 1 else 0
            self._from_start = False
        if layer == self.n_layers - 1 and self._from_start:
            self._counts["whole"] += rows
        self._layer = layer
        nothing = resid_pre.new_zeros(rows, 1, resid_pre.shape[1], 1)
        return tap("resid_post", resid_pre[:, at]), KeysValues(nothing, nothing)

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        middle, sd = self._scale[list(self._scale)[-1]]
        return (resid @ self._directions[-1] * sd + middle)[..., None]
