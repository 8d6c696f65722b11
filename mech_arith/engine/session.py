"""A model that is ready to be run, and where its work is kept: one thing to pass."""

from dataclasses import dataclass, field, replace

from mech_arith.common.checkpoint import Checkpoint
from mech_arith.common.store import Store
from mech_arith.engine.batching import Batching
from mech_arith.models.base import Model


def _no_store() -> Store:
    return Store(None)


@dataclass(frozen=True)
class Session:
    """One model at work."""

    model: Model
    batching: Batching = field(default_factory=Batching)
    """How many rows are run at a time."""
    store: Store = field(default_factory=_no_store)
    """What cells share; by default nothing is kept."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint.nothing)
    """What an earlier attempt at the same cell has done; by default nothing is kept."""

    def of(self, model: Model) -> "Session":
        """The same for another model."""
        return replace(self, model=model)
