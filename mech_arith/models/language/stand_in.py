"""A language model without its weights: config and tokenizer are read, two layers are made up."""

import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import known_digest
from mech_arith.models.kinds import ModelChoice
from mech_arith.models.language.finding import find_model
from mech_arith.models.language.hf_files import read_config_file, weights_digest, weights_files
from mech_arith.models.language.hub import fetched_settings
from mech_arith.models.language.loading import (
    DTYPES,
    LoadedModel,
    known_classes,
    load_tokenizer,
)
from mech_arith.models.language.pretrained import PretrainedModel, settings_digest
from mech_arith.models.language.prompting import Prompting
from mech_arith.models.stand_in import N_LAYERS, StandIn, count_weights


def language_stand_in(choice: ModelChoice, prompting: Prompting, *, device: str) -> StandIn:
    """What stands in for a pretrained language model.

    Raises:
        UserError: there is no such model, or it is none that can be run here.
    """
    asked = choice.dtype if choice.run_dtype == "auto" else choice.run_dtype
    directory = _directory(choice)
    made = _made(directory, choice.name, asked, device)
    loaded = replace(made.loaded, digest=_known(directory))
    model = PretrainedModel(loaded, prompting)
    model.settings_digest = settings_digest(made.whole, loaded.tokenizer, prompting)
    n_layers = made.whole.config.get_text_config().num_hidden_layers
    return StandIn(model, n_layers, made.n_weights, is_known=bool(loaded.digest))


class _Made:
    """What is the same however the model is asked."""

    def __init__(self, directory: Path, name: str, asked: str | None, device: str) -> None:
        config, kind = known_classes(directory, read_config_file(directory))
        dtype = DTYPES[asked] if asked else (config.dtype or torch.float32)
        with torch.device("meta"):
            self.whole: PreTrainedModel = kind(copy.deepcopy(config))
        self.n_weights = count_weights(self.whole)
        self.whole.config.dtype = dtype
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            few: Any = kind(_with_few_layers(config))
        for parameter in few.parameters():  # not buffers: rotary ones stay in float32
            parameter.data = parameter.data.to(dtype)
        few.to(torch.device(device)).eval().requires_grad_(False)
        self.loaded = LoadedModel(name, few, load_tokenizer(directory), digest="")


_made = lru_cache(maxsize=2)(_Made)
"""By what it is made of: cells that ask a model otherwise share it."""


def _directory(choice: ModelChoice) -> Path:
    """Where config and tokenizer are; of a repository of the hub these alone are downloaded."""
    path = None if choice.path is None else choice.path.expanduser()
    if path is None and choice.hub is not None:
        return fetched_settings(choice.hub, choice.revision)
    return find_model(choice.name, path, choice.hub, choice.revision)


def _with_few_layers(config: transformers.PreTrainedConfig) -> transformers.PreTrainedConfig:
    """The same with `N_LAYERS` layers; what is listed by layer is as long."""
    few = copy.deepcopy(config)
    text: Any = few.get_text_config()
    n_layers = text.num_hidden_layers
    for name, entry in list(vars(text).items()):
        if isinstance(entry, list) and len(entry) == n_layers:
            setattr(text, name, entry[:N_LAYERS])
    text.num_hidden_layers = min(N_LAYERS, n_layers)
    return few


def _known(directory: Path) -> str:
    """The digest of the weights, where it is kept already; '' elsewhere: they are not read."""
    try:
        files = weights_files(directory)
    except UserError:
        return ""
    return weights_digest(directory) if all(map(known_digest, files)) else ""
