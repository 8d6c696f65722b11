"""Train the shipped models from scratch or from pretrained weights.

Every batch is a function of the seed and the step alone, and the optimiser's state is saved with
the weights, so a killed training goes on from its last checkpoint with the same result.
"""

import logging
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.progress import progress
from mech_arith.models.arithmetic.checkpoints import (
    Card,
    describe_machine,
    read_training_state,
    write_checkpoint,
    write_training_state,
)
from mech_arith.models.arithmetic.decoder_objective import DecoderObjective
from mech_arith.models.arithmetic.encoder_objective import EncoderObjective
from mech_arith.models.arithmetic.objectives import Objective, TrainSettings
from mech_arith.models.arithmetic.residue_objective import ResidueObjective

log = logging.getLogger(__name__)

OBJECTIVES: dict[str, type[Objective]] = {
    "decoder": DecoderObjective,
    "encoder": EncoderObjective,
    "residues": ResidueObjective,
}


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * warm * (0.01 + 0.99 * cosine)


def train(settings: TrainSettings) -> Path:
    """Train to the last step, resuming from the directory's checkpoint, and write the model.

    Returns:
        The directory with `model.safetensors`, `card.json` and `CARD.md`.
    """
    _check(settings)
    torch.set_num_threads(settings.threads)
    directory = Path(settings.directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        objective = OBJECTIVES[settings.kind](settings)
    except TypeError as error:
        raise UserError(
            f"expected the shape and the answer format of a {settings.kind}, got {error}; see "
            "conf/train/"
        ) from None
    optimizer = torch.optim.AdamW(
        objective.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )
    state = directory / "training.safetensors"
    first, seconds = read_training_state(state, objective.network, optimizer, asdict(settings))
    if first:
        log.info("resuming at step %d of %d", first, settings.steps)
    started = time.monotonic() - seconds
    with progress(settings.steps - first, description=settings.model, unit="steps") as bar:
        for step in range(first, settings.steps):
            loss = take_step(objective, optimizer, step)
            done = step + 1
            if done % settings.evaluate_every == 0 or done == settings.steps:
                _log_report(objective, done, loss, time.monotonic() - started)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                write_training_state(
                    state,
                    objective.network,
                    optimizer,
                    asdict(settings),
                    step=done,
                    seconds=time.monotonic() - started,
                )
            bar.advance(note=f"loss {loss:.5f}")
    return finish(objective, directory, seconds=time.monotonic() - started)


def _check(settings: TrainSettings) -> None:
    """Raise a UserError for settings that cannot be trained with."""
    if settings.kind not in OBJECTIVES:
        raise unknown("kind", settings.kind, OBJECTIVES)
    if settings.device not in ("auto", "cpu", "cuda"):
        raise unknown("device", settings.device, ("auto", "cpu", "cuda"))
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, found none; use device=cpu or device=auto")
    counts = {
        name: getattr(settings, name)
        for name in ("steps", "batch_size", "threads", "checkpoint_every", "evaluate_every")
    }
    if min(counts.values()) < 1:
        raise UserError(f"expected at least 1 of each, got {counts}; raise what is below")
    if settings.seed < 0 or not 0 <= settings.operand_min < settings.operand_max:
        raise UserError(
            "expected seed >= 0 and 0 <= operand_min < operand_max, got "
            f"{settings.seed}, {settings.operand_min}, {settings.operand_max}"
        )
    if not 0 <= settings.weight_decay < math.inf:
        raise UserError(f"expected weight_decay >= 0, got {settings.weight_decay}; change it")
    if settings.train_share is not None and settings.kind != "residues":
        raise UserError(
            f"expected train_share for kind=residues alone, got kind={settings.kind}; leave it out"
        )
    if not settings.templates or min(settings.templates.values()) <= 0:
        raise UserError(
            f"expected templates with positive shares, got {dict(settings.templates)}; choose "
            "+train=arith_decoder or +train=arith_encoder"
        )


def take_step(objective: Objective, optimizer: torch.optim.Optimizer, step: int) -> float:
    """One step of the optimiser; the batch's loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(objective.settings, step)
    loss = objective.loss(*objective.batch(step))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(objective.parameters(), objective.settings.gradient_norm)
    optimizer.step()
    return loss.item()


def _log_report(objective: Objective, done: int, loss: float, seconds: float) -> None:
    """Accuracy, or R^2, on held-out problems of every template."""
    report = objective.report(min(1000, objective.settings.held_out_problems))
    headline = " ".join(f"{text} {next(iter(row.values())):.4f}" for text, row in report.items())
    log.info(
        "step %d/%d %.0fs loss %.5f %s", done, objective.settings.steps, seconds, loss, headline
    )


def finish(objective: Objective, directory: Path, *, seconds: float) -> Path:
    """Round the weights as they ship, measure them so, and write weights and card."""
    settings = objective.settings
    dtype = torch.float16 if settings.kind == "encoder" else torch.float32
    for parameter in objective.network.parameters():
        parameter.data = parameter.data.to(
            dtype
        ).float()  # what will be shipped is what is measured
    report = objective.report(settings.held_out_problems)
    low = 10 ** (len(str(settings.operand_max)) - 1)
    longest = objective.report(settings.held_out_problems, low=low)
    card = Card(
        name=settings.model,
        kind=settings.kind,
        templates=tuple(settings.templates),
        operand_min=settings.operand_min,
        operand_max=settings.operand_max,
        facts=objective.card_facts(longest),
        held_out={"operands_all": report, f"operands_{low}_to_max": longest},
        training=asdict(settings)
        | {"seconds": round(seconds), **describe_machine(objective.device)},
    )
    write_checkpoint(directory, objective.network.state_dict(), card, dtype=dtype)
    log.info("wrote %s", directory)
    return directory
