"""The configuration of a model in a GGUF file: what transformers reads, completed and checked.

transformers passes over what it does not know. A model that is computed in another way than the
file says still answers, only worse, and nobody notices. Here that is an error.
"""

from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mech_arith.common.errors import UserError
from mech_arith.models.language.architectures import causal_class
from mech_arith.models.language.gguf_file import GGUFFile, settings_read
from mech_arith.models.language.hf_files import one_line, quiet

ROPE_FACTORS = "rope_freqs.weight"
"""By how much Llama 3 divides each of its rotary frequencies."""
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""As in Meta's Llama 3.1, 3.2 and 3.3; the factor, 8 or 32, is the largest in the file."""

_27B = {"gemma2": 46, "gemma3": 62}
"""Layers of the two models that scale queries by the width of a head as if there were no other."""

_ELSEWHERE = "take the Hugging Face directory that the file was made from, with model=hf_dir"


def read_config(file: GGUFFile) -> PreTrainedConfig:
    """The configuration, with the class of the model in `architectures`.

    Raises:
        UserError: transformers cannot read it or passes over a part of it, or it is of no causal
            language model that TransformerLens knows.
    """
    path = file.path
    with quiet(), one_line(f"a configuration of {file.architecture} in {path}"):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    config.architectures = [causal_class(config.to_dict(), path)]
    _check_settings(file, config)
    if f"{file.architecture}.attention.head_count_kv" not in file.metadata:
        config.num_key_value_heads = config.num_attention_heads  # llama.cpp's rule
    if hasattr(config, "query_pre_attn_scalar"):
        width = _width_of_heads(config)
        if _27B.get(file.architecture) == config.num_hidden_layers:
            width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width  # the file does not say it: llama.cpp's rule
    if ROPE_FACTORS in file.tensors:
        _scale_rope(file, config)
    return config


def _check_settings(file: GGUFFile, config: PreTrainedConfig) -> None:
    """Raise a UserError where the file has a setting that transformers passes over."""
    read = settings_read(file.architecture)
    if read is None:
        return
    implied = _implied(config)
    for key, value in file.metadata.items():
        architecture, _, name = key.partition(".")
        if architecture != file.architecture or name in read or implied.get(name) == value:
            continue
        raise UserError(
            f"expected settings that transformers {transformers.__version__} reads in {file.path}, "
            f"got {key}={value}; {_ELSEWHERE}"
        )


def _implied(config: PreTrainedConfig) -> dict[str, Any]:
    """What other settings, or the architecture, say already."""
    width = _width_of_heads(config)
    return {
        "attention.causal": True,
        "attention.head_count_kv": config.num_attention_heads,  # where each head has its own
        "attention.key_length": width,
        "attention.value_length": width,
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "expert_count": 0,
        "expert_used_count": 0,
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
        "rope.dimension_count": width,
        "rope.scaling.factor": 1.0,
        "rope.scaling.type": "none",
        "use_parallel_residual": getattr(config, "use_parallel_residual", None),
        "vocab_size": config.vocab_size,
    }


def _width_of_heads(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _scale_rope(file: GGUFFile, config: PreTrainedConfig) -> None:
    """Read Llama 3's factors, which transformers passes over.

    Raises:
        UserError: they are others.
    """
    factors = file.floats(ROPE_FACTORS)
    settings = dict(config.rope_parameters or {})
    config.rope_parameters = settings | LLAMA3_ROPE | {"factor": float(factors.max())}
    width, base = _width_of_heads(config), settings["rope_theta"]
    plain = base ** -(torch.arange(0, width, 2).float() / width)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if scaled.shape != factors.shape or not torch.allclose(scaled * factors, plain, rtol=1e-4):
        raise UserError(
            f"expected the rotary factors of Llama 3.1 to 3.3 in {file.path}, got others; "
            f"{_ELSEWHERE}"
        )
