"""Language models for tests: tiny random ones of many architectures, and the real SmolLM2."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.packaged import PACKAGED, PackagedModel

PAD, UNKNOWN, BOS, EOS, TURN, TURN_END = SPECIAL = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
)
PRINTABLE = ["\n", *map(chr, range(32, 127)), "−", "×", "÷"]  # noqa: RUF001
DIGITS = "0123456789"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou count.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TOKENIZERS = ("digits", "numbers", "spaced", "bos", "chat")

_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
"""Grouped-query attention, and heads of 8 dimensions where nothing else is said."""
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rope_parameters": _ROPE | {"partial_rotary_factor": 0.5},
    },
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 16},
    "gemma": _LLAMA | {"head_dim": 16, "num_key_value_heads": 1},
    "gemma2": _LLAMA | {"head_dim": 16, "sliding_window": 8, "layer_types": _SLIDING},
    "gemma3_text": _LLAMA | {"head_dim": 16, "sliding_window": 8, "layer_types": _SLIDING},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "phi": _LLAMA
    | {"num_key_value_heads": 4, "rope_parameters": _ROPE | {"partial_rotary_factor": 0.5}},
    "mistral": _LLAMA | {"sliding_window": 8},
}
"""Model type -> its tiny configuration. Windows of 8 tokens are shorter than any prompt."""

ODD_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mixtral": _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmo2": _LLAMA,
    "granite": _LLAMA | {"residual_multiplier": 0.3, "logits_scaling": 2.0},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 512,
    },
    "gpt_oss": _LLAMA
    | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "phi3": _LLAMA
    | {
        "original_max_position_embeddings": 48,  # within the prompts of the tests
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [4.0, 8.0, 16.0, 32.0],
            "original_max_position_embeddings": 48,
        },
    },
}
"""Ones with experts, norms behind attention, scaled sums, attention of their own, sinks, and rotary
factors that change with the length."""


def tiny_lm(
    architecture: str, directory: Path, *, tokenizer: str = "digits", seed: int = 0
) -> Path:
    """Write a random checkpoint with its tokenizer.

    Args:
        architecture: a key of `ARCHITECTURES` or `ODD_ARCHITECTURES`.
        directory: where to; made if absent.
        tokenizer: one of `TOKENIZERS`.
        seed: of the weights.

    Returns:
        `directory`.
    """
    text = tiny_tokenizer(tokenizer)
    config = AutoConfig.for_model(
        architecture,
        **(ARCHITECTURES | ODD_ARCHITECTURES)[architecture],
        vocab_size=len(text),
        pad_token_id=text.pad_token_id,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # Wide enough for logits that differ clearly; biases and norms are not left at 0 and 1,
            # where a computation that forgets them would go unnoticed.
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            else:
                parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(directory)
        text.save_pretrained(directory)
    return directory


def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer built here, of one of the kinds in `TOKENIZERS`.

    - `digits`: every character is a token.
    - `numbers`: up to three digits are a token, as in Llama 3; every other character is one.
    - `spaced`: byte-level BPE as GPT-2's: the space before a number belongs to its token (`Ġ12`),
      two digits make a token, and so do `-(` and the space before an operator.
    - `bos`: `digits`, with a BOS before every text.
    - `chat`: `digits`, with a chat template.
    """
    backend = _byte_level() if kind == "spaced" else _by_words(kind)
    if kind == "bos":
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BOS,
        eos_token=TURN_END if kind == "chat" else EOS,
        additional_special_tokens=[TURN, TURN_END],
    )
    if kind == "chat":
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _by_words(kind: str) -> Tokenizer:
    """Tokens that a pattern cuts out of the text."""
    numbers = [f"{n:0{width}d}" for width in (2, 3) for n in range(10**width)]
    words = [*SPECIAL, *PRINTABLE, *(numbers if kind == "numbers" else [])]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    pattern = Regex(r"\d{1,3}|[\s\S]" if kind == "numbers" else r"[\s\S]")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _byte_level() -> Tokenizer:
    """GPT-2's way, with merges in the order of their priority."""
    space = "Ġ"
    merges = [
        *((space, digit) for digit in DIGITS),
        *((space + tens, units) for tens in DIGITS for units in DIGITS),
        *((tens, units) for tens in DIGITS for units in DIGITS),
        *((space, sign) for sign in "+-*/=("),
        ("-", "("),
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *(left + right for left, right in merges)]
    backend = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The directory of the real SmolLM2-135M-Instruct."""
    model = PACKAGED["smollm2_135m"]
    if not model.is_fetched():
        pytest.fail(f"the weights are not in the store; run `{model.command}`")
    return model.directory


@pytest.fixture(scope="session", params=["qwen2_5_coder_0_5b", "gemma3_270m"])
def larger_lm(request: pytest.FixtureRequest) -> PackagedModel:
    """A larger real model, where it was fetched: nothing fetches them for the tests."""
    model = PACKAGED[request.param]
    if not model.directory.is_dir():
        pytest.skip(f"{model.name} is not in the store; run `{model.command}`")
    return model
