"""What W&B's environment variables say of a run, in W&B's own order: what the configuration sets
comes first, then the variable, then the default.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mech_arith.common.errors import UserError

DEFAULT_MODE = "offline"
DEFAULT_PROJECT = "mech_arith"

MODES = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
"""What WANDB_MODE may be -> the mode that it means."""

SWEEP = "WANDB_SWEEP_ID"
"""Set by `wandb agent`, beside WANDB_PROJECT and WANDB_ENTITY."""

OF_A_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_DIR", "WANDB_JOB_TYPE")
"""Variables that are not followed: they would merge the runs of a sweep, append to a run what it
holds already, or part it from its cell."""

HIDDEN = (*OF_A_RUN[:2], SWEEP, "WANDB_SWEEP_PARAM_PATH")
"""Variables that wandb must not see: it would follow them whatever it is told."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes, and what it is found by."""

    mode: str
    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]
    sweep_id: str | None
    """The sweep of a W&B agent that the run belongs to."""


def place(
    *,
    mode: str | None,
    project: str | None,
    entity: str | None,
    group: str | None,
    tags: tuple[str, ...],
    environment: Mapping[str, str],
) -> Place:
    """Where a run goes, by the configuration's entries (None or empty: not set) and the variables.

    Under a W&B agent its sweep's project and entity win, as for W&B itself.

    Raises:
        UserError: WANDB_MODE is none that is known, or there is no project.
    """
    said = environment.get("WANDB_MODE") or DEFAULT_MODE
    if mode is None and said not in MODES:
        raise UserError(
            f"expected WANDB_MODE to be one of {', '.join(MODES)}, got {said!r}; change it, or "
            "choose wandb=online, wandb=offline or wandb=disabled"
        )
    if project == "":
        raise UserError("expected a W&B project, got an empty name; set wandb.project")
    known = {name: environment.get(f"WANDB_{name}") or None for name in ("PROJECT", "ENTITY")}
    sweep_id = environment.get(SWEEP) or None
    if sweep_id is not None:
        project, entity = known["PROJECT"] or project, known["ENTITY"] or entity
    of_variable = [tag for tag in environment.get("WANDB_TAGS", "").split(",") if tag]
    return Place(
        mode=mode or MODES[said],
        project=project or known["PROJECT"] or DEFAULT_PROJECT,
        entity=entity or known["ENTITY"],
        group=group or environment.get("WANDB_RUN_GROUP") or None,
        tags=tags or tuple(of_variable),
        sweep_id=sweep_id,
    )


def not_followed(environment: Mapping[str, str]) -> str | None:
    """One line on the variables that have no effect; None where there are none.

    A W&B agent sets some of them by itself.
    """
    found = [name for name in OF_A_RUN if environment.get(name)]
    if not found or environment.get(SWEEP):
        return None
    verb = "is" if len(found) == 1 else "are"
    return (
        f"W&B: {', '.join(found)} {verb} not followed: a cell's run has an id, a name, a job type "
        "and a folder of its own"
    )


@contextlib.contextmanager
def without_runs() -> Iterator[None]:
    """The environment as wandb may see it."""
    hidden = {name: os.environ.pop(name) for name in HIDDEN if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
