"""What an unfinished cell has done so far, so that a kill costs seconds and not hours.

Long loops go through their work in units (the edits of one layer on one batch of problems, say) and
fetch each from a piece of work, which has it already or lets it be computed. Pieces lie in the
cell's own directory until the cell is whole; their addresses hold the cell's identity, so that what
another config or other code has left is never taken up.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mech_arith.common.store import Store

KEEP_EVERY_S = 1.0
"""Work that is not yet on disk is put there after so many seconds. A unit that takes longer is put
there at once: a kill costs what was computed since, or the unit in work."""

STATE_EVERY_S = 20.0
"""The same for running sums: they are larger, and only the last ones count."""


class Checkpoint:
    """Work of one cell, in pieces."""

    def __init__(self, store: Store, *, cell: str, every_s: float = KEEP_EVERY_S) -> None:
        """Nothing is touched before the first piece is kept.

        Args:
            store: in the cell's own directory; `Store(None)` keeps nothing.
            cell: its identity.
            every_s: see `KEEP_EVERY_S`.
        """
        self._store = store
        self._cell = cell
        self._every_s = every_s
        self._changed: dict[int, Piece] = {}
        self._kept_at = time.monotonic()
        self.found = 0
        """Units that were there already, so far."""

    @classmethod
    def nothing(cls) -> "Checkpoint":
        """For work that is too short to be kept."""
        return cls(Store(None), cell="")

    def piece(self, stage: str, key: Mapping[str, Any]) -> "Piece":
        """A piece of work, by all that tells it from the cell's others (plain JSON data)."""
        return Piece(self, stage, {"cell": self._cell, **key})

    def keep(self) -> None:
        """Put on disk whatever is not yet there."""
        for piece in self._changed.values():
            self._store.put(piece.stage, piece.key, piece.tensors)
        self._changed.clear()
        self._kept_at = time.monotonic()

    def _read(self, piece: "Piece") -> dict[str, Tensor]:
        return self._store.get(piece.stage, piece.key) or {}

    def _grown(self, piece: "Piece") -> None:
        self._changed[id(piece)] = piece
        if time.monotonic() - self._kept_at >= self._every_s:
            self.keep()


class Piece:
    """Units of work under their names. Made by `Checkpoint.piece`."""

    def __init__(self, checkpoint: Checkpoint, stage: str, key: dict[str, Any]) -> None:
        self._checkpoint = checkpoint
        self.stage = stage
        self.key = key
        self.tensors = checkpoint._read(self)
        """Of all units that are done, by `unit/name`."""
        self._state_at = time.monotonic()

    def has(self, unit: str) -> bool:
        """Whether a unit is done."""
        return any(name.startswith(f"{unit}/") for name in self.tensors)

    def fetch(self, unit: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The unit's tensors, computed if they are not there."""
        if self.has(unit):
            self._checkpoint.found += 1
            return self._of(unit)
        made = dict(make())
        self.tensors |= {f"{unit}/{name}": tensor for name, tensor in made.items()}
        self._checkpoint._grown(self)
        return made

    def state(self) -> dict[str, Tensor]:
        """Running sums as they were last kept; empty at the beginning."""
        found = self._of("state")
        self._checkpoint.found += bool(found)
        return found

    def keep_state(self, make: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep running sums, if they have not been for a while."""
        if time.monotonic() - self._state_at < STATE_EVERY_S:
            return
        self.tensors = {f"state/{name}": tensor for name, tensor in make().items()}
        self._checkpoint._grown(self)
        self._checkpoint.keep()
        self._state_at = time.monotonic()

    def _of(self, unit: str) -> dict[str, Tensor]:
        start = f"{unit}/"
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }
