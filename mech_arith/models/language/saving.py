"""Edited language models as directories that Hugging Face's own classes load."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mech_arith.common.errors import UserError
from mech_arith.models.language.hf_files import quiet

BIAS_FLAGS = ("attention_bias", "mlp_bias", "use_bias", "bias")
"""Fields of configurations that give matrices a bias."""


def save_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path
) -> None:
    """Write weights, configuration and tokenizer.

    A bias that the architecture has only if its configuration says so is written with that field
    set, and with zeros for the other biases that come with it.

    Raises:
        UserError: the architecture has no place for a bias that the model has.
    """
    names = [name for name, _ in model.named_parameters()]
    config = _config_with(model, names)
    with quiet():
        if config is not model.config:
            model = _of_config(model, config)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def check_place_for_bias(model: PreTrainedModel, module: nn.Module) -> None:
    """Raise a UserError where a saved model could not hold a bias of one of its matrices."""
    own = {name: part for name, part in model.named_modules() if part is module}
    names = [name for name, _ in model.named_parameters()]
    _config_with(model, [*names, *(f"{name}.bias" for name in own)])


def _config_with(model: PreTrainedModel, names: list[str]) -> PreTrainedConfig:
    """The configuration of a model that has weights of these names.

    Raises:
        UserError: there is none.
    """
    config = model.config
    missing = set(names) - _names(type(model), config)
    if not missing:
        return config
    for flag in BIAS_FLAGS:
        if getattr(config, flag, None) is False:
            richer = copy.deepcopy(config)
            setattr(richer, flag, True)
            if missing <= _names(type(model), richer):
                return richer
    raise UserError(
        f"expected an architecture with a place for {min(missing)}, got {type(model).__name__}; "
        "choose intervention=scale with intervention.centre=false, which needs no bias, or leave "
        "intervention.save_model out"
    )


def _names(kind: type[PreTrainedModel], config: PreTrainedConfig) -> set[str]:
    """Of the weights that a configuration asks for."""
    return {name for name, _ in _empty(kind, config).named_parameters()}


def _empty(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """A model without numbers in its weights."""
    make: Any = kind
    with torch.device("meta"), quiet():
        return make(config)


def _of_config(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """The same weights in a model of a richer configuration, zeros where it has more."""
    whole = _empty(type(model), config)
    weights: dict[str, Tensor] = {name: tensor.detach() for name, tensor in _all(model)}
    for name, tensor in whole.named_parameters():
        if name not in weights:
            weights[name] = torch.zeros(tensor.shape, dtype=model.dtype)
    whole.load_state_dict(weights, strict=False, assign=True)
    whole.generation_config = model.generation_config
    whole.tie_weights()
    return whole


def _all(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
