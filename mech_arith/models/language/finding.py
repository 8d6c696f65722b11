"""Where a model's files lie, found without importing transformers.

That takes seconds, and without a network the hub alone may take some.
"""

from pathlib import Path

from mech_arith.common.errors import UserError
from mech_arith.models.language import packaged
from mech_arith.models.language.hub import fetched


def find_model(name: str, path: Path | None, hub: str | None, revision: str | None) -> Path:
    """The model's directory, wherever it is.

    Raises:
        UserError: it is not there.
    """
    if path is not None:
        return path.expanduser()
    if hub is not None:
        return fetched(hub, revision)
    if name not in packaged.PACKAGED:
        raise UserError(
            f"expected model.path=DIR (a Hugging Face directory) for model={name}, got none"
        )
    model = packaged.PACKAGED[name]
    if not model.directory.is_dir():
        raise UserError(f"expected {name} in {model.directory}, found none; run `{model.command}`")
    return model.directory
