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

RUNG, DERIVED = 1.5, 0.5
"""Sizes of coordinates: each operand's is so many times that of the next, and that of a value which
follows from them is half the first's. Alike in size they would share components."""

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
        return Tally(self.read - other.read, self.whole - other.whole, self.resumed - other.resumed)


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
        self._answer = names.index(problems.hypothesis.answer)
        self.d_model = max(LEAST_WIDTH, 2 * (n_components + len(names)))
        self.digest = f"rehearsed {names}"
        every = {name: problems.values[name] for name in names}
        self._scale = {
            name: (float(numbers.mean()), float(numbers.std()) or 1.0)
            for name, numbers in every.items()
        }
        random = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(self.d_model, self.d_model, generator=random)).Q
        operands = problems.template.expression.operands
        sizes = [RUNG ** -operands.index(n) if n in operands else DERIVED for n in names]
        self._sizes = torch.tensor(sizes)
        self._directions = basis[: len(names)]
        self._vectors = torch.empty(0, self.d_model)
        """By token: of every problem that was encoded."""
        self._counts: Counter[str] = Counter()
        self._at = 0, False
        """The layer that comes next, and whether the pass began at the first one."""

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
        vectors = (values * self._sizes) @ self._directions
        noise = torch.sin(vectors * 1e4) * NOISE
        start = len(self._vectors)
        self._vectors = torch.cat([self._vectors, vectors + noise])
        tokens = torch.arange(start, len(self._vectors))[:, None]
        spans: dict[str, tuple[int, ...]] = {}
        spans |= dict.fromkeys(problems.template.expression.operands, (0,))
        return Prompts.uniform(tokens, ("problem",), spans)

    def embed(
        self, tokens: Int64[Tensor, "rows new"], *, start: int = 0
    ) -> Float[Tensor, "rows new d"]:
        self._at = 0, True
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
        rows, from_start = len(resid_pre), self._at == (layer, True)
        if layer == 0:
            self._counts["started"] += rows
        elif self._at[0] != layer:
            self._counts["resumed"] += rows
        if layer == self.n_layers - 1 and from_start:
            self._counts["whole"] += rows
        self._at = layer + 1, from_start
        nothing = resid_pre.new_zeros(rows, 1, resid_pre.shape[1], 1)
        return tap("resid_post", resid_pre[:, at]), KeysValues(nothing, nothing)

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        middle, sd = list(self._scale.values())[self._answer]
        read = resid @ self._directions[self._answer] / self._sizes[self._answer]
        return (read * sd + middle)[..., None]
