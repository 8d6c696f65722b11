"""Models with edited weights on disk: whole or not at all, and never over something else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mech_arith.common.atomic import atomic
from mech_arith.common.errors import UserError
from mech_arith.models.editable import EditableModel

EDITED = "edited.json"
"""What was done to the weights, and the identity of the cell that did it."""


def save_edited(model: EditableModel, directory: Path, edited: Mapping[str, Any]) -> None:
    """Save a model with edited weights. What the same cell has saved before stays as it is.

    Args:
        model: what is saved.
        directory: a new or an empty one.
        edited: what was done to the weights: plain JSON data, with the cell's `identity`.

    Raises:
        UserError: something else is in the directory, it cannot be written, or the architecture has
            no place for a weight.
    """
    if is_saved(directory, identity=edited["identity"]):
        return
    try:
        with atomic(directory) as [new]:
            new.mkdir(parents=True)
            model.save(new, edited=dict(edited))
            text = json.dumps(edited, indent=2) + "\n"
            (new / EDITED).write_text(text, encoding="utf-8")
    except OSError as error:
        if (directory / EDITED).is_file() and is_saved(directory, identity=edited["identity"]):
            return  # by another process at work at the same cell
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"expected a directory for the edited model that can be written, got {directory} "
            f"({reason}); choose another with intervention.save_model"
        ) from error


def is_saved(directory: Path, *, identity: str) -> bool:
    """Whether a cell has saved its edited model in a directory.

    Raises:
        UserError: there is something else.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        content = json.loads((directory / EDITED).read_text(encoding="utf-8"))
        if content["identity"] == identity:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"expected a new or an empty directory for the edited model, got {directory}, in which "
        "there is something else; choose another with intervention.save_model"
    )
