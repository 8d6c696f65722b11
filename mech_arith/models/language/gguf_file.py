"""GGUF files: what one says of its model and its tokenizer, checked before a weight is read."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from mech_arith.common.errors import UserError

MAGIC = b"GGUF"
PACKAGES = ("gguf", "accelerate")
"""What transformers reads GGUF files with."""

REQUIRED = {
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
}
"""Settings for which transformers would take those of some model, if the file had none."""

_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
_BROKEN = (ValueError, KeyError, TypeError, OverflowError, MemoryError, struct.error)
"""What the reader raises over bytes that are no header."""
_NO_ARCHITECTURES = ("general", "tokenizer")
"""Groups of settings that stand among transformers' architectures."""


@dataclass(frozen=True)
class TensorPlace:
    """One tensor in a file."""

    size: int
    """How many numbers it has."""
    offset: int
    """Of its first byte in the file."""


@dataclass(frozen=True)
class GGUFFile:
    """The header of one file."""

    path: Path
    architecture: str
    """As llama.cpp calls it."""
    metadata: Mapping[str, Any]
    """Settings by their keys; of a list of texts its length alone."""
    tensors: Mapping[str, TensorPlace]
    """By their names."""

    def texts(self, key: str) -> list[str] | None:
        """A list of texts in full: the tokens, or the merges; None if the file has none."""
        from transformers.integrations.gguf.reader import read_gguf_metadata

        return read_gguf_metadata(str(self.path), _ARRAYS)[0].get(key)

    def floats(self, name: str) -> Tensor:
        """A tensor that the file has in float32, as norms and factors are."""
        place = self.tensors[name]
        read = np.fromfile(self.path, dtype="<f4", count=place.size, offset=place.offset)
        return torch.from_numpy(read.astype(np.float32))


def read_gguf(path: Path) -> GGUFFile:
    """Read the header of a file, and check that transformers can read the rest.

    Takes less than a second. A file that is as large and as old as before is not read again.

    Raises:
        UserError: there is no such file, it is no GGUF file, is truncated or one of several parts,
            or has an architecture or a tokenizer that transformers does not read.
    """
    check_packages()
    if not path.is_file():
        found = "a directory" if path.is_dir() else "none"
        raise UserError(f"expected a GGUF file at {path}, found {found}; set model.path=FILE.gguf")
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"expected a GGUF file that can be read at {path}, got {error.strerror or error}"
        ) from None


def check_packages() -> None:
    """Raise a UserError where a package is missing that reads GGUF files."""
    for name in PACKAGES:
        if find_spec(name) is None:
            raise UserError(
                f"expected the package {name}, which GGUF files are read with, found none; install "
                f"it with `pip install {name}`"
            )


@cache
def _read(path: Path, size: int, changed_ns: int) -> GGUFFile:
    with path.open("rb") as opened:
        begins = opened.read(len(MAGIC))
    if begins != MAGIC:
        raise UserError(
            f"expected a GGUF file at {path}, got one that begins with {begins!r} and not with "
            f"{MAGIC!r}; set model.path=FILE.gguf, or model=hf_dir for a Hugging Face directory"
        )
    file = _read_header(path, size)
    _check_architecture(file)
    _check_tokenizer(file)
    return file


def _read_header(path: Path, size: int) -> GGUFFile:
    try:
        metadata, tensors, end = _parse(path)
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"expected a whole GGUF header in {path}, got {said[:200]}; copy or download the file "
            "again"
        ) from None
    if end > size:
        raise UserError(
            f"expected {end} bytes in {path}, got {size}: the file is truncated; copy or download "
            "it again"
        )
    if metadata.get("split.count", 1) > 1:
        raise UserError(
            f"expected a whole model in {path}, got one of {metadata['split.count']} parts; join "
            "them with `llama-gguf-split --merge`"
        )
    return GGUFFile(path, metadata["general.architecture"], metadata, tensors)


def _parse(path: Path) -> tuple[dict[str, Any], dict[str, TensorPlace], int]:
    """Settings, tensors, and how many bytes the file has at least.

    The readers with a public name will not do: gguf's takes 20 seconds over a large vocabulary, and
    transformers' refuses types of numbers that it reads later (Q5_0). Hence parts of the latter.

    Raises:
        Whatever is in `_BROKEN`.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from transformers.integrations.gguf import reader

    blob = reader._mapped(str(path))
    metadata, count, at = reader._read_metadata(blob, str(path))
    table, at = reader._read_tensor_table(blob, count, at)
    alignment = metadata.get("general.alignment", 32)
    start = (at + alignment - 1) // alignment * alignment
    tensors, end = {}, start
    for name, shape, kind, offset in table:
        block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        tensors[name] = TensorPlace(prod(shape), start + offset)
        end = max(end, start + offset + prod(shape) // block * width)
    return metadata, tensors, end


def _check_architecture(file: GGUFFile) -> None:
    known = architectures()
    if _plain(file.architecture) not in {_plain(name) for name in known}:
        raise UserError(
            f"expected an architecture that transformers {transformers.__version__} reads in "
            f"{file.path}, got {file.architecture!r}; known are {', '.join(known)}"
        )
    for name in REQUIRED & (settings_read(file.architecture) or set()):
        if f"{file.architecture}.{name}" not in file.metadata:
            raise UserError(
                f"expected {file.architecture}.{name} in {file.path}, found none; copy or download "
                "the file again"
            )


def architectures() -> list[str]:
    """Those that transformers reads from GGUF files."""
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    known = {*GGUF_CONFIG_MAPPING, *GGUF_CONFIG_ARCHS} - set(_NO_ARCHITECTURES)
    return sorted(known)


def settings_read(architecture: str) -> set[str] | None:
    """The settings of an architecture that transformers reads; None where it has rules for it."""
    for name, settings in GGUF_CONFIG_MAPPING.items():
        if _plain(name) == _plain(architecture):
            return set(settings)
    return None


def _plain(name: str) -> str:
    """llama.cpp writes qwen2moe and gpt-oss, transformers qwen2_moe and gpt_oss."""
    return name.replace("-", "").replace("_", "")


def _check_tokenizer(file: GGUFFile) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_TYPES

    kind = file.metadata.get("tokenizer.ggml.model")
    if kind not in GGUF_TOKENIZER_TYPES:
        raise UserError(
            f"expected a tokenizer that transformers {transformers.__version__} reads in "
            f"{file.path} ({', '.join(GGUF_TOKENIZER_TYPES)}), got {kind!r}; take the Hugging Face "
            "directory that the file was made from, with model=hf_dir"
        )
    if "tokenizer.ggml.tokens" not in file.metadata:
        raise UserError(
            f"expected the tokenizer's tokens in {file.path}, found none; take a file that has them"
        )
