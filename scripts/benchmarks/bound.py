"""How fast a sweep could be at best: its multiply-adds at the machine's own rate for each matrix.

What an edit at some positions of one layer cannot avoid: at these positions all matrices of the
layers above, their attention to the keys so far, and the unembedding at the last position. In the
last layer the other positions need keys and values alone.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear
from workloads import SiteEdits, SiteInterchanges, Workload

Shape = tuple[int, int]
"""Width of a matrix' output and of its input."""
Clock = Callable[[], float]
"""Seconds; only their differences count."""
KEYS_VALUES = ("k_proj", "v_proj", "attn.k", "attn.v")
QUERIES = ("q_proj", "attn.q")


@dataclass(frozen=True)
class Work:
    """Multiply-adds of some edits."""

    matrices: Counter[Shape]
    """By the matrix' shape."""
    attention: int
    """Scores and weighted values."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.matrices.total() + self.attention

    def seconds(self, rates: dict[Shape, float]) -> float:
        """How long they take at these rates; attention at the fastest of them."""
        each = sum(amount / rates[shape] for shape, amount in self.matrices.items())
        return each + self.attention / max(rates.values())


def work_of_edit(workload: Workload, edits: SiteEdits | SiteInterchanges) -> Work:
    """The multiply-adds of one edit of one problem at a site."""
    return work_of_pass(
        list(workload.blocks),
        workload.unembedding,
        edits.layer,
        first=edits.first,
        end=workload.tokens.shape[1],
        read=1,
    )


def work_of_pass(
    blocks: Sequence[nn.Module],
    head: Float[Tensor, "vocab d"],
    layer: int,
    *,
    first: int,
    end: int,
    read: int,
) -> Work:
    """The multiply-adds of the positions from `first` to `end`, behind an edit of one layer's end.

    Args:
        blocks: of the model.
        head: its unembedding.
        layer: that is edited; those above it are run.
        first: the first position that is edited, from the beginning of the prompt.
        end: one behind the last position.
        read: how many of the last positions are read out.
    """
    matrices: Counter[Shape] = Counter()
    attention = 0
    for index, block in enumerate(blocks[layer + 1 :], layer + 1):
        is_last = index == len(blocks) - 1
        for name, weight in _matrices(block):
            everywhere = not is_last or name.endswith(KEYS_VALUES)
            matrices[_shape(weight)] += weight.numel() * (end - first if everywhere else read)
            if name.endswith(QUERIES):
                queries = range(end - read if is_last else first, end)
                attention += 2 * weight.shape[0] * sum(query + 1 for query in queries)
    matrices[_shape(head)] += read * head.numel()
    return Work(matrices, attention)


class Rates:
    """Multiply-adds per second of each matrix of a model, with its own weights in turn."""

    def __init__(
        self, blocks: Iterable[nn.Module], head: Float[Tensor, "vocab d"], *, rows: int, read: int
    ) -> None:
        """Nothing is measured yet.

        Args:
            blocks: of the model.
            head: its unembedding.
            rows: how many positions go through a block at a time.
            read: how many of them are read out.
        """
        self.weights: dict[Shape, list[Tensor]] = {}
        for block in blocks:
            for _, weight in _matrices(block):
                self.weights.setdefault(_shape(weight), []).append(weight)
        self.head, self.rows, self.read = head, rows, read

    @torch.inference_mode()
    def measure(self, *, seconds: float, clock: Clock = time.perf_counter) -> dict[Shape, float]:
        """The rates now, after about so many seconds of the clock."""
        share = seconds / (len(self.weights) + 1)
        rates = {
            shape: _rate(weights, rows=self.rows, seconds=share, clock=clock)
            for shape, weights in self.weights.items()
        }
        of_head = _rate([self.head], rows=self.read, seconds=share, clock=clock)
        return {**rates, _shape(self.head): of_head}


def rates_of(workload: Workload, stacked: Callable[[Workload, int], int]) -> Rates:
    """The rates at which the engine could run a workload's edits, stacked as it stacks them."""
    rows = max(stacked(workload, site) for site in range(len(workload.sites)))
    positions = max(edits.positions for edits in workload.sites)
    return Rates(workload.blocks, workload.unembedding, rows=rows * positions, read=rows)


def bound_seconds(workload: Workload, rates: dict[Shape, float]) -> float:
    """How long all edits take at these rates."""
    return sum(
        len(edits) * workload.n * work_of_edit(workload, edits).seconds(rates)
        for edits in workload.sites
    )


def _rate(
    weights: list[Float[Tensor, "out in"]], *, rows: int, seconds: float, clock: Clock
) -> float:
    """Multiply-adds per second of `rows` inputs times each matrix in turn."""
    inputs = torch.randn(rows, weights[0].shape[1])
    linear(inputs, weights[0])
    start, done = clock(), 0
    while True:
        for weight in weights:
            linear(inputs, weight)
            done += rows * weight.numel()
            elapsed = clock() - start
            if elapsed >= seconds:
                return done / elapsed


def _matrices(block: nn.Module) -> list[tuple[str, Float[Tensor, "out in"]]]:
    return [
        (name, module.weight)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]


def _shape(weight: Float[Tensor, "out in"]) -> Shape:
    return weight.shape[0], weight.shape[1]
