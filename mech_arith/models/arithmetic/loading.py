"""The models trained here: decoders that write their answer and encoders that regress it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mech_arith.common.digests import json_digest
from mech_arith.common.errors import UserError, unknown
from mech_arith.common.paths import checkpoints_dir
from mech_arith.models.arithmetic.checkpoints import Card, read_card, read_weights
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.models.arithmetic.encoder import ArithmeticEncoder, encoder_of
from mech_arith.models.arithmetic.networks import DecoderShape, EncoderShape
from mech_arith.models.arithmetic.residues import ResidueDecoder
from mech_arith.models.stand_in import N_LAYERS, StandIn, count_weights

Trained = ArithmeticDecoder | ResidueDecoder | ArithmeticEncoder


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


def load_arithmetic(name: str, *, directory: Path | None = None, device: str = "cpu") -> Trained:
    """A shipped model by name, or one trained here by its directory.

    Raises:
        UserError: no such model, or its files are damaged.
    """
    directory = checkpoint_directory(name, directory)
    card = read_card(directory)
    kind, _ = _kind_and_shape(card)
    weights = read_weights(directory, card)
    try:
        return kind(card, weights, torch.device(device))
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a card that fits its weights in {directory}, got {reason}; reinstall or "
            "train the model"
        ) from None


def _kind_and_shape(card: Card) -> tuple[Callable[..., Trained], Any]:
    """What makes a model of the card's kind, and the class of its shape."""
    kinds = {
        "decoder": (ArithmeticDecoder, DecoderShape),
        "residues": (ResidueDecoder, DecoderShape),
        "encoder": (encoder_of, EncoderShape),
    }
    if card.kind not in kinds:
        raise unknown("kind of model", card.kind, kinds)
    return kinds[card.kind]


def arithmetic_stand_in(name: str, *, directory: Path | None, device: str) -> StandIn:
    """A model trained here without its weights: by its card alone.

    Raises:
        UserError: no such model.
    """
    card = read_card(checkpoint_directory(name, directory))
    kind, shape = _kind_and_shape(card)
    whole = card.facts["shape"]
    few = whole | {"n_layers": min(N_LAYERS, whole["n_layers"])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = shape(**few).network().state_dict()
        n_weights = count_weights(shape(**whole).network())
    facts = replace(card, facts=card.facts | {"shape": few})
    model = kind(facts, weights, torch.device(device))
    model.settings_digest = json_digest(card.facts)
    return StandIn(model, whole["n_layers"], n_weights, is_known=True)
