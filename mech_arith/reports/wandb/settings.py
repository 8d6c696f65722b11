"""Where and under which names a run is logged."""

import re
from dataclasses import dataclass
from pathlib import Path

from mech_arith.common.errors import UserError, unknown

MODES = ("online", "offline", "disabled")

SHORTEST_WAIT_S = 10.0
"""Writing a run takes a few seconds on a busy machine, before anything is sent."""


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where a run is logged, and under which names."""

    mode: str
    """'online', 'offline' or 'disabled' (which touches nothing)."""

    project: str

    directory: Path
    """Gets a folder `wandb` with one folder per run."""

    entity: str | None = None
    """User or team on the server; None is the account's default."""

    group: str | None = None
    """The sweep that the run belongs to."""

    job_type: str = "cell"

    sweep_id: str | None = None
    """The sweep of a W&B agent that the run belongs to."""

    name: str | None = None

    tags: tuple[str, ...] = ()

    run_id: str | None = None
    """Letters, digits, '-' and '_'. Whoever gives the same one logs the same numbers: the run is
    continued, on disk and on the server, and not made twice. None is a run of its own."""

    wait_s: float | int = 30.0
    """Seconds that W&B may take in all, from the start of the run to the end of `finish`; what is
    not sent by then stays on disk."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("W&B mode", self.mode, MODES)
        if not self.project:
            raise UserError("expected a W&B project, got an empty name; set wandb.project")
        if self.run_id is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.run_id):
            raise UserError(
                "expected a W&B run id of 1 to 64 letters, digits, '-' and '_', got "
                f"{self.run_id!r}; give another"
            )
        if not self.wait_s >= SHORTEST_WAIT_S:
            raise UserError(
                f"expected wandb.wait_s of {SHORTEST_WAIT_S:g} or more, got {self.wait_s}; raise it"
            )
