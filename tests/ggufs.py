"""GGUF files for tests: tiny random models, written as llama.cpp's converter writes real ones."""

import os
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.keeping import STILL_S
from tests.lms import CHAT_TEMPLATE, DIGITS, SPECIAL

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_GEMMA_ROPE = {
    "sliding_attention": _ROPE,
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
}

MODELS: dict[str, dict[str, Any]] = {
    "llama": _SHAPE | {"rope_parameters": _ROPE},
    "llama_tied": _SHAPE | {"rope_parameters": _ROPE, "tie_word_embeddings": True},
    "llama3": _SHAPE | {"rope_parameters": _LLAMA3, "head_dim": 32, "num_key_value_heads": 1},
    "qwen2": _SHAPE | {"rope_parameters": {**_ROPE, "rope_theta": 1000000.0}},
    "gemma3": _SHAPE
    | {
        "head_dim": 16,
        "num_key_value_heads": 1,
        "num_hidden_layers": 7,  # the sixth attends to all
        "sliding_window": 8,  # shorter than the tests' texts
        "query_pre_attn_scalar": 16,
        "rope_parameters": _GEMMA_ROPE,
        "tie_word_embeddings": True,
    },
}
"""Configurations as transformers has them. A name begins with the architecture in the file."""

_HF_TYPES = {"llama": "llama", "qwen2": "qwen2", "gemma3": "gemma3_text"}

_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_PAIRS = [(a, b) for a in DIGITS for b in DIGITS]

MERGES: dict[str, list[tuple[str, str]]] = {
    "apart": [("Ġ", "+"), ("Ġ", "="), ("-", "("), ("Ġ", "Ġ")],
    "threes": [*_PAIRS, *((a + b, c) for a, b in _PAIRS for c in DIGITS), ("Ġ", "=")],
    "runs": [
        *(("Ġ", digit) for digit in DIGITS),
        *(("Ġ" + a, b) for a, b in _PAIRS),
        *_PAIRS,
    ],
}
"""Of byte-level tokenizers, in the order of their priority."""

PRES = {"apart": "qwen2", "threes": "llama-bpe", "runs": "gpt-2"}
"""What `tokenizer.ggml.pre` says of each."""

PIECES = [*map(chr, range(33, 127)), "\n", "▁", "▁+", "▁=", "▁▁"]
"""Tokens of the SentencePiece tokenizer, `spm`, behind the special ones."""


def write_gguf(
    path: Path,
    model: str = "llama",
    *,
    tokenizer: str = "apart",
    pre: str | None = None,
    seed: int = 0,
    quantised: bool = False,
    settings: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
) -> PreTrainedModel:
    """Write a random model with a tokenizer.

    Args:
        path: of the file; its directory is made if absent.
        model: a key of `MODELS`.
        tokenizer: a key of `MERGES`, or `spm`.
        pre: `tokenizer.ggml.pre`, in place of the one in `PRES`; empty for none.
        seed: of the weights.
        quantised: matrices in Q8_0, else everything in float32.
        settings: more of them, or in place of others, by their keys; None leaves one out.
        tensors: more of them, by their names; None leaves one out.

    Returns:
        The model as transformers computes it; with `quantised` after the rounding.
    """
    architecture = model.split("_")[0].replace("llama3", "llama")
    words, types, scores = _vocabulary(tokenizer)
    reference = _random_model(model, architecture, len(words), seed)
    fields = _settings(reference.config, architecture) | _words(tokenizer, words, types, scores)
    if tokenizer != "spm":
        fields["tokenizer.ggml.pre"] = PRES[tokenizer] if pre is None else pre or None
    fields |= settings or {}
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, str(fields.pop("general.architecture", architecture)))
    for key, value in fields.items():
        if value is not None:
            _add(writer, key, value)
    weights = _weights(reference, architecture) | (tensors or {})
    for name, values in weights.items():
        if values is None:
            continue
        if quantised and values.ndim > 1:
            packed = gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
            _replace(reference, architecture, name, gguf.quants.dequantize(packed, 8))
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return reference.eval()


def _random_model(model: str, architecture: str, n_words: int, seed: int) -> PreTrainedModel:
    settings = {"tie_word_embeddings": False} | MODELS[model]
    config = AutoConfig.for_model(
        _HF_TYPES[architecture], vocab_size=n_words, dtype="float32", **settings
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config)
        for parameter in made.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            else:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def _settings(config: Any, architecture: str) -> dict[str, Any]:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    said = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope.get("full_attention", rope)["rope_theta"],
    }
    if architecture == "llama":
        said |= {"rope.dimension_count": width, "vocab_size": config.vocab_size}
    if width != config.hidden_size // config.num_attention_heads:
        said |= {"attention.key_length": width, "attention.value_length": width}
    if architecture == "gemma3":
        said["attention.sliding_window"] = config.sliding_window
    return {f"{architecture}.{key}": value for key, value in said.items()}


def _vocabulary(tokenizer: str) -> tuple[list[str], list[int], list[float]]:
    """Words, their types (1 normal, 3 control) and scores."""
    merged = [] if tokenizer == "spm" else [a + b for a, b in MERGES[tokenizer]]
    usual = PIECES if tokenizer == "spm" else [*_ALPHABET, *merged]
    words = [*SPECIAL, *usual]
    types = [3] * len(SPECIAL) + [1] * len(usual)
    return words, types, [-float(i) for i in range(len(words))]


def _words(
    tokenizer: str, words: list[str], types: list[int], scores: list[float]
) -> dict[str, Any]:
    is_spm = tokenizer == "spm"
    return {
        "tokenizer.ggml.model": "llama" if is_spm else "gpt2",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores if is_spm else None,
        "tokenizer.ggml.merges": None if is_spm else [" ".join(m) for m in MERGES[tokenizer]],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": is_spm,
        "tokenizer.ggml.add_space_prefix": False if is_spm else None,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _name_of(name: str, architecture: str, n_layers: int) -> str:
    kind = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    stem, _, suffix = name.rpartition(".")
    return f"{gguf.get_tensor_name_map(kind, n_layers).get_name(stem)}.{suffix}"


def _weights(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    """As the converter names, turns and shifts them."""
    config = model.config
    weights = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = _turned(values, heads)
        if architecture == "gemma3" and "norm" in name:
            values = values + 1
        weights[_name_of(name, architecture, config.num_hidden_layers)] = values
    if config.rope_parameters.get("rope_type") == "llama3":
        plain = config.rope_parameters["rope_theta"] ** -(
            torch.arange(0, config.head_dim, 2).float() / config.head_dim
        )
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        weights["rope_freqs.weight"] = (plain / scaled).numpy()
    return weights


def _turned(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp pairs neighbours where transformers pairs the halves of a head."""
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def _replace(model: PreTrainedModel, architecture: str, name: str, values: np.ndarray) -> None:
    """Put rounded weights back into a model; heads are turned back."""
    config = model.config
    for ours, parameter in model.named_parameters():
        if _name_of(ours, architecture, config.num_hidden_layers) != name:
            continue
        if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
            values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2)
        parameter.data = torch.from_numpy(values.reshape(parameter.shape).copy())


def long_ago(directory: Path) -> None:
    """Make a directory look as if nothing had been written in it for hours."""
    then = time.time() - STILL_S - 60
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (then, then))
