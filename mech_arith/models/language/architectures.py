"""Which of transformers' models are causal language models that the engine can run."""

from collections.abc import Mapping
from typing import Any

import transformers
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.utilities.architectures import classify_architecture
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mech_arith.common.errors import UserError

_BIDIRECTIONAL = {"BertLMHeadModel"}
"""Among transformers' causal language models, but attending both ways unless told otherwise."""


def causal_class(config: Mapping[str, Any], place: object) -> str:
    """The name of the class in transformers that a configuration asks for.

    Args:
        config: as in config.json.
        place: where it is from, for errors.

    Raises:
        UserError: it is no causal language model that TransformerLens knows, or asks for code of
            its own.
    """
    model_type = config.get("model_type")
    remote = "it asks for code of its own (auto_map), which is never run" * ("auto_map" in config)
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"expected a model type that transformers {transformers.__version__} knows in "
            f"{place}, got {model_type!r}; {remote or 'choose another model'}"
        )
    usual = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(model_type))
    architecture = (config.get("architectures") or [usual])[0]
    if (
        usual is None
        or architecture != usual
        or architecture in _BIDIRECTIONAL
        or classify_architecture(usual) != "causal_lm"
    ):
        raise UserError(
            f"expected a causal language model in {place}, got {architecture or model_type}; "
            + (remote or "choose a model that continues text, such as GPT-2 or Llama")
        )
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UserError(
            f"expected an architecture that TransformerLens knows in {place}, got "
            f"{architecture}; choose a model such as Llama, GPT-2, GPT-NeoX, Qwen, Gemma or Phi"
        )
    return usual
