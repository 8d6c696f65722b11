"""The table of tested architectures in docs/your-model.md: each is built tiny, with random weights.

    python scripts/tested_models.py          # two minutes; prints the table
    python scripts/tested_models.py --tokenizers [DIR ...]   # seconds; how tokenizers split numbers

Each is made from its class of configuration in transformers, saved, loaded as a user's model is,
and held against whole passes of transformers' own code. A row says what the loader refuses.
How numbers are split is no matter of the architecture: `--tokenizers` says it of the tokenizers in
directories, by default of the models that scripts/fetch_models.py has fetched.
"""

import argparse
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from mech_arith.common.errors import UserError
from mech_arith.engine.guard import check_fast_path
from mech_arith.engine.sites import Site
from mech_arith.models.kinds import POINTS, ModelChoice, find_loader
from mech_arith.models.language.hf_files import quiet
from mech_arith.models.language.loading import load_tokenizer
from mech_arith.models.language.number_tokens import BORDER, SHOWN, number_pieces, number_rule
from mech_arith.models.language.packaged import PACKAGED
from mech_arith.models.language.pretrained import PretrainedModel
from mech_arith.problems import draw_splits
from mech_arith.problems.templates import build_template

ARCHITECTURES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neo", "gptj", "gpt_neox"),
    *("opt", "bloom", "falcon", "stablelm", "olmo", "olmo2", "olmoe", "granite", "cohere"),
    *("starcoder2", "mpt", "gpt_bigcode", "smollm3", "mamba", "rwkv"),
)
"""Model types of transformers."""

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "sliding_window": 8,
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 48,
}
"""What is made small, under whatever name a configuration has it."""

OWN: dict[str, dict[str, Any]] = {"gpt_neo": {"attention_types": [[["global", "local"], 1]]}}
"""What an architecture needs besides."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Every character is a token."""
    signs = ["<pad>", "<unk>", "\n", *map(chr, range(32, 127))]
    backend = Tokenizer(WordLevel({sign: n for n, sign in enumerate(signs)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def build(model_type: str, directory: Path) -> Any:
    """Save a tiny model of a type; its configuration."""
    words = tokenizer()
    usual = AutoConfig.for_model(model_type)
    small = {
        name: size
        for name, size in SIZES.items()
        if hasattr(usual, name) and not isinstance(getattr(type(usual), name, None), property)
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = AutoConfig.for_model(
        model_type, vocab_size=len(words), **small, **ids, **OWN.get(model_type, {})
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    words.save_pretrained(directory)
    return config


def row(model_type: str) -> list[str]:
    """What is to be said of an architecture."""
    problems, _, shots = draw_splits(
        build_template("sum_of_two", "a+b", "{expression}"),
        n=20,
        n_shots=2,
        ranges={"a": (0, 9), "b": (0, 9)},
        fit_share=0.5,
        seed=0,
    )
    try:
        with tempfile.TemporaryDirectory() as scratch, quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = build(model_type, Path(scratch))
            loader = find_loader("hf")
            choice = ModelChoice("hf", "hf", Path(scratch), style="comma", shots=2)
            model: PretrainedModel = loader.load(choice, device="cpu", shots=shots)
            prompts = model.encode(problems)
            sites = [Site(layer, "resid_post", "last") for layer in range(model.n_layers)]
            difference = check_fast_path(model, prompts, sites, bound=18)
    except UserError as error:
        said = " ".join(str(error).split()).partition("; ")[0]
        said = re.sub(r" in /[^ ,]+", "", said)
        return [f"`{model_type}`", f"refused: {said}", *[""] * 4]
    text = config.get_text_config()
    groups = getattr(text, "num_key_value_heads", None) or model.n_heads
    if getattr(text, "multi_query", False):
        groups = 1
    missing = [point for point in POINTS if point not in model.points]
    layers = getattr(text, "layer_types", None) or []
    slides = any(kind == "sliding_attention" for kind in layers) or (
        not layers and bool(getattr(text, "sliding_window", None))
    )
    return [
        f"`{model_type}`",
        "full passes" if difference is None else "resumed",
        "" if difference is None else f"{difference:.0e}",
        "no" if groups == model.n_heads else f"{model.n_heads} to {groups}",
        "yes" if slides else "no",
        ", ".join(f"`{point}`" for point in missing) or "none",
    ]


def tokenizer_row(name: str, directory: Path) -> list[str]:
    """What is to be said of a tokenizer."""
    found = load_tokenizer(directory)
    split = [f"`{BORDER.join(pieces)}`" for pieces in number_pieces(SHOWN, found)]
    has = "yes" if found.chat_template else "no"
    # A border between two tokens is not one between two cells.
    return [f"`{name}`", has, number_rule(found), ", ".join(split).replace("|", "\\|")]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HEAD = ["type", "passes", "off by", "grouped queries", "sliding window", "lacks points"]
TOKENIZER_HEAD = ["tokenizer of", "chat template", "numbers", "for example"]


def fetched() -> dict[str, Path]:
    """Directories of the models that are here, by name."""
    every = {name: model.directory for name, model in PACKAGED.items()}
    return {name: directory for name, directory in every.items() if directory.is_dir()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*", default=ARCHITECTURES, help="model types")
    parser.add_argument(
        "--tokenizers", nargs="*", type=Path, help="directories; by default of fetched models"
    )
    asked = parser.parse_args()
    if asked.tokenizers is None:
        print(table(HEAD, [row(model_type) for model_type in asked.types]))
        return
    named = {path.name: path for path in asked.tokenizers} or fetched()
    print(table(TOKENIZER_HEAD, [tokenizer_row(*one) for one in named.items()]))


if __name__ == "__main__":
    main()
