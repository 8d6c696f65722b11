"""GGUF files as ordinary directories of Hugging Face: converted once, kept in the store.

Reading a GGUF file takes a minute or more: its numbers are unpacked, its tokenizer is rebuilt. The
float32 safetensors that it is converted to load in seconds.
"""

import contextlib
import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.quantization_config import GgufConfig

from mech_arith.common.atomic import atomic
from mech_arith.common.digests import code_digest, json_digest
from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import file_digest, known_digest
from mech_arith.common.paths import store_dir
from mech_arith.models.language import gguf_config, gguf_digits, gguf_file
from mech_arith.models.language.gguf_config import ROPE_FACTORS, read_config
from mech_arith.models.language.gguf_digits import check_digits, mend
from mech_arith.models.language.gguf_file import GGUFFile, read_gguf
from mech_arith.models.language.hf_files import (
    CONFIG,
    one_line,
    quiet,
    weights_digest,
    weights_files,
)
from mech_arith.models.language.keeping import alone, writing

log = logging.getLogger(__name__)

RECORD = "converted.json"
"""In a converted model's directory: what it was made from, and the digest of its weights."""

LIBRARIES = ("transformers", "tokenizers", "gguf")
"""Their versions are part of where a converted model is kept."""

BYTES = 4
"""Of a number in float32."""

_UNSAVED = ("quantization_config", "_name_or_path", "_model_name_or_path")


def converted_model(path: Path) -> Path:
    """The directory of a GGUF file's model, converted now unless that was done before.

    It appears whole or not at all. Where two processes want it at once, one waits for the other and
    finds it done.

    Raises:
        UserError: the file cannot be read (see `read_gguf`, `read_config`, `check_digits`), or the
            store cannot be written.
    """
    file = read_gguf(path)
    digest = file_digest(path)
    target = converted_dir(digest)
    if not target.is_dir():
        with alone(target, f"converts {path}"):
            try:
                if not target.is_dir():
                    _keep(file, digest, target)
            except UserError:
                if not target.is_dir():  # else another process, which no lock held off, made it
                    raise
    return target


def converted_before(path: Path) -> Path | None:
    """The same directory, if there is one; nothing is converted, and a large file is not read.

    Raises:
        UserError: the file cannot be read.
    """
    digest = known_digest(read_gguf(path).path)
    target = None if digest is None else converted_dir(digest)
    return target if target is not None and target.is_dir() else None


def converted_dir(digest: str) -> Path:
    """Where the model of a GGUF file with this SHA-256 is kept.

    Like every address in the store it depends on the code that makes the entry, and on libraries.
    """
    code = code_digest([sys.modules[__name__], gguf_config, gguf_digits, gguf_file])
    versions = {name: version(name) for name in LIBRARIES}
    address = json_digest({"gguf": digest, "code": code, "versions": versions})
    return store_dir() / "models" / "gguf" / address


def recorded_digest(directory: Path) -> str | None:
    """The digest that the weights in a directory had when they were converted; None elsewhere."""
    path = directory / RECORD
    return json.loads(path.read_text(encoding="utf-8"))["weights"] if path.is_file() else None


def _keep(file: GGUFFile, digest: str, target: Path) -> None:
    needed = BYTES * sum(place.size for place in file.tensors.values())
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise UserError(
            f"expected {needed / 1e9:.1f} GB free in {target.parent} for {file.path.name} in "
            f"float32, found {free / 1e9:.1f}; free the disk, or set MECH_ARITH_STORE=DIR"
        )
    log.info(
        "converting %s, this once (minutes; %.1f GB into %s)",
        file.path,
        needed / 1e9,
        target.parent,
    )
    with writing(target.parent), atomic(target) as [new]:
        convert(file, new)
        record = {
            "file": file.path.name,
            "gguf": digest,
            "weights": weights_digest(new),
            "versions": {name: version(name) for name in LIBRARIES},
        }
        (new / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def convert(file: GGUFFile, directory: Path) -> None:
    """Write a GGUF file's model as an ordinary directory: config, float32 safetensors, tokenizer.

    What is cheap to check comes first: tokenizer, then configuration, then weights.

    Raises:
        UserError: transformers cannot read a part of it, or reads it otherwise than it is meant.
    """
    tokenizer = read_tokenizer(file)
    config = read_config(file)
    model = _plain(_read_model(file, config))
    with quiet():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    for path in weights_files(directory):  # safetensors lets their owner alone read them
        path.chmod((directory / CONFIG).stat().st_mode)


def read_tokenizer(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The tokenizer that transformers makes of a file, which splits digits as the file says.

    Raises:
        UserError: it cannot be read, or splits them otherwise.
    """
    path = file.path
    with quiet(), one_line(f"a tokenizer that transformers reads in {path}"):
        # Not AutoTokenizer: some architectures' classes rebuild it by rules of their own.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name)
    mend(tokenizer, file)
    check_digits(tokenizer, file)
    return tokenizer


def _read_model(file: GGUFFile, config: PreTrainedConfig) -> PreTrainedModel:
    """The weights, unpacked.

    Raises:
        UserError: weights are missing, or the file has some that the model has no place for.
    """
    (kind,) = config.architectures or []
    reader: Callable[..., Any] = getattr(transformers, kind).from_pretrained
    # The progress bar over the tensors heeds no setting of transformers.
    with (
        quiet(),
        contextlib.redirect_stderr(io.StringIO()),
        one_line(f"weights of {kind} in {file.path}"),
    ):
        model, report = reader(
            file.path.parent,
            gguf_file=file.path.name,
            config=config,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"expected all weights of {kind} in {file.path}, {len(missing)} are missing "
            f"({missing[0]}, ...); copy or download the file again"
        )
    _check_all_are_read(file, model, kind)
    return model


def _check_all_are_read(file: GGUFFile, model: PreTrainedModel, kind: str) -> None:
    """Count the numbers: transformers passes over tensors that it does not know."""
    apart = {ROPE_FACTORS}
    if model.config.tie_word_embeddings:
        apart.add("output.weight")  # the embeddings once more
    there = sum(place.size for name, place in file.tensors.items() if name not in apart)
    read = sum(parameter.numel() for parameter in model.parameters())
    if there != read:
        raise UserError(
            f"expected {read} numbers for {kind} in {file.path}, got {there}: transformers "
            f"{transformers.__version__} does not read all of them; take the Hugging Face "
            "directory that the file was made from, with model=hf_dir"
        )


def _plain(read: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that was never quantised: transformers saves no other."""
    settings = {k: v for k, v in read.config.to_dict().items() if k not in _UNSAVED}
    make: Any = type(read)
    with torch.device("meta"), quiet():
        model = make(type(read.config).from_dict(settings))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    return model
