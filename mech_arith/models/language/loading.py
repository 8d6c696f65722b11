"""Pretrained language models from a local directory, the store, or Hugging Face's cache.

Nothing here runs code that comes with a model, and nothing is unpickled: classes are those of the
installed transformers, weights are safetensors.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mech_arith.common.errors import UserError, unknown
from mech_arith.models.language import packaged
from mech_arith.models.language.architectures import causal_class
from mech_arith.models.language.finding import find_model
from mech_arith.models.language.gguf_conversion import recorded_digest
from mech_arith.models.language.hf_files import (
    TOKENIZER,
    check_directory,
    one_line,
    quiet,
    weights_digest,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, ready to run."""

    name: str
    model: PreTrainedModel
    """In evaluation mode, without gradients, on its device or devices."""
    tokenizer: PreTrainedTokenizerBase
    """A fast one, which tells where in the text its tokens stand."""
    digest: str
    """SHA-256 over the names and bytes of the weights' files."""


def load_pretrained(
    name: str,
    *,
    path: Path | None,
    hub: str | None,
    revision: str | None,
    dtype: str | None,
    device: str | None,
    device_map: str | None,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        name: what the model is called in results; one of `packaged.PACKAGED` is found by it.
        path: a local directory; it wins over `hub`.
        hub: a repository on Hugging Face's hub, downloaded into its cache where it is not there.
        revision: commit, tag or branch in that repository.
        dtype: a key of `DTYPES`; None for the one that the weights are in.
        device: 'cpu' or 'cuda', the latter with an index if wanted; None with a `device_map`.
        device_map: how accelerate spreads a model that is larger than one GPU, one of
            `DEVICE_MAPS`; None to put it on `device`.

    Raises:
        UserError: the model is not there, is damaged, is not a causal language model that
            TransformerLens knows, or cannot be had on that device.
    """
    _check_placement(dtype, device, device_map)
    directory = find_model(name, path, hub, revision)
    config, model_class = known_classes(directory, check_directory(directory))
    digest = weights_digest(directory)
    _check_digest(directory, digest)
    tokenizer = load_tokenizer(directory)
    model = _read_weights(
        directory,
        model_class,
        config=config,
        # "auto" is the one that the weights are in.
        dtype="auto" if dtype is None else DTYPES[dtype],
        device_map=device_map,
    )
    if device is not None:
        model.to(torch.device(device))  # pyright: ignore[reportArgumentType]
    return LoadedModel(name, model.eval().requires_grad_(False), tokenizer, digest)


def _check_digest(directory: Path, digest: str) -> None:
    """Raise a UserError where weights that were converted here are no longer what they were."""
    model = packaged.model_in(directory)
    if model is not None:
        expected, remedy = model.weights_digest, f"run `{model.command}`"
    else:
        expected = recorded_digest(directory)
        remedy = f"remove {directory}, so that the file is converted again"
    if expected not in (None, digest):
        raise UserError(
            f"expected weights with digest {expected[:16]}... in {directory}, got "
            f"{digest[:16]}...; {remedy}"
        )


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's directory.

    Raises:
        UserError: it cannot be read, or is a slow one.
    """
    # AutoTokenizer takes the class that it knows for the architecture, and some of these (Qwen2)
    # rebuild the tokenizer by rules of their own: the file of the directory is what counts.
    is_saved_whole = (directory / TOKENIZER).is_file()
    reader = PreTrainedTokenizerFast if is_saved_whole else AutoTokenizer
    with quiet(), one_line(f"a tokenizer in {directory}"):
        tokenizer = reader.from_pretrained(directory, local_files_only=True)
    if not tokenizer.is_fast:
        raise UserError(
            f"expected a fast tokenizer ({TOKENIZER}) in {directory}, got the slow "
            f"{type(tokenizer).__name__}, which does not tell where its tokens stand; convert it"
        )
    return tokenizer


def _check_placement(dtype: str | None, device: str | None, device_map: str | None) -> None:
    """Before anything is read."""
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if device_map is None:
        _check_device(device)
        return
    if device is not None:
        raise UserError(
            f"expected either a device or model.device_map, got device={device} and "
            f"model.device_map={device_map}; leave device at auto"
        )
    if device_map not in DEVICE_MAPS:
        raise unknown("model.device_map", device_map, DEVICE_MAPS)
    if importlib.util.find_spec("accelerate") is None:
        raise UserError(
            f"expected the package accelerate for model.device_map={device_map}, found none; "
            "install it with `pip install accelerate`"
        )


def _check_device(device: str | None) -> None:
    kind, _, index = (device or "none").partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise unknown("device", device, ("cpu", "cuda", "cuda:0", "cuda:1", "..."))
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= found:
            raise UserError(
                f"expected a GPU for device={device}, found {found}; choose device=cpu, or a "
                "build of torch and a driver with CUDA"
            )


def known_classes(
    directory: Path, config: dict[str, Any]
) -> tuple[transformers.PreTrainedConfig, type[PreTrainedModel]]:
    """The configuration and the class of a model, both of the installed transformers."""
    usual = causal_class(config, directory)
    if "quantization_config" in config:
        raise UserError(
            f"expected weights in {', '.join(DTYPES)} in {directory}, got quantised ones; choose "
            "the model that they were made from"
        )
    with quiet(), one_line(f"a configuration of {usual} in {directory}"):
        known = CONFIG_MAPPING[config["model_type"]].from_pretrained(
            directory, local_files_only=True
        )
    if not hasattr(known.get_text_config(), "num_attention_heads"):
        raise UserError(
            f"expected a Transformer with attention heads in {directory}, got {usual}, which has "
            "none; choose a model such as Llama, GPT-2, Qwen or Gemma"
        )
    return known, getattr(transformers, usual)


def _read_weights(
    directory: Path, model_class: type[PreTrainedModel], **options: Any
) -> PreTrainedModel:
    with quiet(), one_line(f"weights of {model_class.__name__} in {directory}"):
        read: Any = model_class.from_pretrained(
            directory,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        model, report = read
        # Where weights are missing transformers makes up random ones.
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise UserError(
                f"expected all weights of {model_class.__name__} in {directory}, {len(missing)} "
                f"are missing ({missing[0]}, ...); copy or download the model again"
            )
    return model
