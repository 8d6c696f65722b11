"""Directories of Hugging Face models: what must stand in them, and how to read them quietly."""

import hashlib
import json
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import file_digest, verify_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
_TOKENIZER_PARTS = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""What a fast tokenizer is built from where there is no `tokenizer.json`."""
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
_REFUSED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")


def check_directory(directory: Path) -> dict[str, Any]:
    """Check that a directory holds a model in files that are safe and whole.

    Returns:
        Its config.json.

    Raises:
        UserError: something is missing, cannot be read, or is in an unsafe format.
    """
    config = read_config_file(directory)
    for path in weights_files(directory):
        _check_whole(path)
    return config


def read_config_file(directory: Path) -> dict[str, Any]:
    """The config.json of a model's directory that has a tokenizer too; weights are not looked for.

    Raises:
        UserError: one of them is missing, or cannot be read.
    """
    if not directory.is_dir():
        raise UserError(
            f"expected a model's directory at {directory}, found "
            f"{'a file' if directory.exists() else 'none'}; set model.path=DIR"
            + ", or model=gguf for this file"
            * (directory.suffix == ".gguf")
        )
    config = _read_json(directory / CONFIG)
    names = {path.name for path in directory.iterdir()}
    if not names & {TOKENIZER, *_TOKENIZER_PARTS}:
        raise UserError(
            f"expected a tokenizer ({TOKENIZER}) in {directory}, found none; save it there with "
            "the model (tokenizer.save_pretrained)"
        )
    return config


def weights_files(directory: Path) -> list[Path]:
    """The files that hold a model's weights, in order of name.

    They are those that transformers reads: others may lie beside them, in another format.

    Raises:
        UserError: there are none, or some of those that the index names are missing.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        index = _read_json(directory / INDEX)
        files = [directory / name for name in sorted(set(index.get("weight_map", {}).values()))]
        missing = [path.name for path in files if not path.is_file()]
        if missing or not files:
            raise UserError(
                f"expected the weights that {INDEX} names in {directory}, {', '.join(missing)} "
                "missing; copy or download the model again"
            )
        return files
    unsafe = sorted(path.name for pattern in _REFUSED for path in directory.glob(pattern))
    came = f"only {', '.join(unsafe)}, which are not read" if unsafe else "no weights"
    gguf = next((name for name in unsafe if name.endswith(".gguf")), None)
    remedy = "save the model as safetensors (model.save_pretrained does)"
    if gguf is not None:
        remedy = f"set model=gguf model.path={directory / gguf}"
    raise UserError(f"expected {WEIGHTS} in {directory}, found {came}; {remedy}")


def model_files(directory: Path) -> tuple[Path, ...]:
    """The weights, and the small files beside them: config, tokenizer, chat template.

    Raises:
        UserError: something is missing, cannot be read, or is in an unsafe format.
    """
    check_directory(directory)
    small = (path for pattern in _SMALL for path in directory.glob(pattern))
    return tuple(sorted({*weights_files(directory), *small}))


def weights_digest(directory: Path, *, anew: bool = False) -> str:
    """SHA-256 over the names and bytes of the weights' files.

    Reads in pieces: memory does not grow with the model.

    Args:
        directory: the model's.
        anew: read them whatever is known of them.

    Raises:
        UserError: there are no weights, or not all; or, read anew, they are others than is known.
    """
    digest_of = verify_file if anew else file_digest
    digest = hashlib.sha256()
    for path in weights_files(directory):
        digest.update(f"{path.name} {digest_of(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings that transformers writes while it loads."""
    # Imported here: it takes seconds, and a model that is not there is refused without it.
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def one_line(expected: str) -> Iterator[None]:
    """Whatever a library says about a user's files, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers and tokenizers raise many kinds, bare ones too
        said = f"{type(error).__name__}: {shortened(error)}"
        raise UserError(f"expected {expected}, got {said}") from None


def shortened(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters."""
    return textwrap.shorten(str(error), 200, placeholder=" ...")


def _check_whole(path: Path) -> None:
    """Opening compares the header with the file's length."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"expected whole safetensors at {path}, got {error}; copy or download the model again"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected a Hugging Face model with {path.name} in {path.parent}, got {error}; "
            "choose another directory, or copy the model again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content
