"""The models trained here: decoders that write their answer and encoders that regress it."""

from pathlib import Path

import torch

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.paths import checkpoints_dir
from mech_arith.models.arithmetic.checkpoints import read_card, read_weights
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.models.arithmetic.encoder import ArithmeticEncoder, encoder_of
from mech_arith.models.arithmetic.residues import ResidueDecoder


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in checkpoints_dir().glob("*/card.json"))


def checkpoint_directory(name: str, directory: Path | None) -> Path:
    """Where a model's files are: those of a shipped one, by its name, if no directory is given.

    Raises:
        UserError: no such model.
    """
    if directory is not None:
        return directory
    if not (checkpoints_dir() / name).is_dir():
        raise unknown("model", name, shipped_models())
    return checkpoints_dir() / name


def load_arithmetic(
    name: str, *, directory: Path | None = None, device: str = "cpu"
) -> ArithmeticDecoder | ResidueDecoder | ArithmeticEncoder:
    """A shipped model by name, or one trained here by its directory.

    Raises:
        UserError: no such model, or its files are damaged.
    """
    directory = checkpoint_directory(name, directory)
    card = read_card(directory)
    kinds = {"decoder": ArithmeticDecoder, "residues": ResidueDecoder, "encoder": encoder_of}
    if card.kind not in kinds:
        raise unknown("kind of model", card.kind, kinds)
    weights = read_weights(directory, card)
    try:
        return kinds[card.kind](card, weights, torch.device(device))
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a card that fits its weights in {directory}, got {reason}; reinstall or "
            "train the model"
        ) from None
