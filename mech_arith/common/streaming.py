"""Running sums over problems that go by batch after batch, which a kill does not lose.

Each can say all that it has taken in (`state`), and another can take that up (`restore`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mech_arith.common.checkpoint import Piece


@runtime_checkable
class Summing(Protocol):
    """Takes batches in, and can be stopped and taken up in between."""

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class Sums:
    """Running sums of all sites, kept now and then while problems go by."""

    def __init__(self, sums: Mapping[str, Sequence[Summing]], piece: Piece) -> None:
        self._sums = {
            f"{kind} {i}": one for kind, some in sums.items() for i, one in enumerate(some)
        }
        self._piece = piece
        known = piece.state()
        self.done = int(known.get("done", 0))
        """Problems that went by."""
        for name, one in self._sums.items() if known else ():
            start = f"{name}/"
            of_one = {k.removeprefix(start): v for k, v in known.items() if k.startswith(start)}
            one.restore(of_one)

    def advance(self, n: int) -> None:
        """Count `n` problems more."""
        self.done += n
        self._piece.keep_state(self._state)

    def _state(self) -> dict[str, Tensor]:
        state = {f"{k}/{v}": t for k, one in self._sums.items() for v, t in one.state().items()}
        return {**state, "done": torch.tensor(self.done)}
