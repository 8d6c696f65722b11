"""What models are trained on: settings, problems, and what each kind has to say for itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mech_arith.common.errors import UserError
from mech_arith.problems.expressions import Expression, parse

Operands = dict[str, Int64[np.ndarray, " n"]]

HELD_OUT_ONE_IN = 101
"""One problem in so many is never trained on; all reported accuracies are on such problems."""

MOST_DRAWS = 50
"""Times that a batch of operands is drawn anew before the range is called too small."""


@dataclass
class TrainSettings:
    """What is trained, on what, and how."""

    model: str = "???"
    kind: str = "decoder"
    seed: int = 0
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    gradient_norm: float = 1.0
    weight_decay: float = 0.0
    templates: dict[str, float] = field(default_factory=dict)
    """Expression -> share of the batch."""
    operand_min: int = 1
    operand_max: int = 999
    sparse_share: float = 0.0
    """Share of operands with digits set to zero: short carries are learnt first."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Sizes; a decoder's `norm` ('pre' or 'none') and `activation` ('gelu' or 'relu'), the first of
    which are the defaults; an encoder's `norm`: 'post' (BERT's, the default) or 'pre'."""
    answer: dict[str, Any] = field(default_factory=dict)
    """Format of a written answer; of kind 'residues' the modulus alone."""
    prompt_length: int = 14
    train_share: float | None = None
    """Share of all problems that are trained on, in every step all of them: kind 'residues'."""
    scale: float = 1000.0
    pretrained: str | None = None
    """Directory of the pretrained BERT, or the name of an installed package that carries one."""
    device: str = "auto"
    """'auto' (CUDA where there is one), 'cpu' or 'cuda'."""
    threads: int = 1
    checkpoint_every: int = 500
    evaluate_every: int = 1000
    held_out_problems: int = 10_000
    directory: str = "checkpoints"


def held_out(operands: Mapping[str, Int64[np.ndarray, " n"]]) -> Bool[np.ndarray, " n"]:
    """Which problems are never trained on: a fixed function of the operands, whatever the seed."""
    mixed = np.zeros(len(next(iter(operands.values()))), dtype=np.int64)
    for name in sorted(operands):
        mixed = (mixed * 1_000_003 + operands[name] * 7919 + 17) % 2_147_483_647
    return mixed % HELD_OUT_ONE_IN == 0


def draw_operands(
    names: tuple[str, ...],
    n: int,
    *,
    low: int,
    high: int,
    rng: np.random.Generator,
    sparse_share: float = 0.0,
    want_held_out: bool = False,
) -> Operands:
    """`n` rows of operands, all of them held out or none."""
    chosen: list[Operands] = []
    count = 0
    for _ in range(MOST_DRAWS):
        rows = 2 * HELD_OUT_ONE_IN * n if want_held_out else n + n // 8 + 8
        drawn = {name: rng.integers(low, high + 1, size=rows) for name in names}
        if sparse_share:
            drawn = {name: _drop_digits(x, sparse_share, rng) for name, x in drawn.items()}
        keep = held_out(drawn) == want_held_out
        chosen.append({name: x[keep] for name, x in drawn.items()})
        count += int(keep.sum())
        if count >= n:
            return {name: np.concatenate([part[name] for part in chosen])[:n] for name in names}
    raise UserError(
        f"expected {n} problems of operands {', '.join(names)} in {low}..{high} that are "
        f"{'' if want_held_out else 'not '}held out, found {count} in {MOST_DRAWS} draws; widen "
        "operand_min and operand_max"
    )


def _drop_digits(
    numbers: Int64[np.ndarray, " n"], share: float, rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """In a share of the numbers, set a random subset of digits to zero."""
    width = len(str(int(numbers.max())))
    powers = 10 ** np.arange(width)
    digits = numbers[:, None] // powers % 10
    kept = rng.random(digits.shape) < rng.random((len(numbers), 1))
    sparse = rng.random(len(numbers)) < share
    return np.where(sparse, (digits * kept * powers).sum(1), numbers)


class Objective(ABC):
    """What differs between the kinds of model."""

    network: Any

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.expressions = {text: parse(text) for text in settings.templates}
        self.width = len(str(settings.operand_max))
        found = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(found if settings.device == "auto" else settings.device)

    @abstractmethod
    def encode(self, expression: Expression, operands: Operands) -> Int64[Tensor, "n pos"]:
        """Prompts as token ids."""

    @abstractmethod
    def loss(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The training loss of a batch."""

    @abstractmethod
    def evaluate(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> dict[str, float]:
        """Accuracy and the like on one template's held-out problems."""

    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""

    @abstractmethod
    def card_facts(self, report: dict[str, dict[str, float]]) -> dict[str, Any]:
        """What a loader needs to know of this model."""

    def batch(self, step: int) -> tuple[Int64[Tensor, "n pos"], Int64[Tensor, " n"]]:
        """The batch of one step: a function of the seed and the step alone."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, step])
        weights = np.array(list(settings.templates.values()), dtype=float)
        counts = rng.multinomial(settings.batch_size, weights / weights.sum())
        parts = [
            self.problems(
                text, int(count), rng=rng, sparse_share=settings.sparse_share, want_held_out=False
            )
            for text, count in zip(settings.templates, counts, strict=True)
            if count
        ]
        return torch.cat([p for p, _ in parts]), torch.cat([a for _, a in parts])

    def problems(
        self,
        text: str,
        n: int,
        *,
        rng: np.random.Generator,
        sparse_share: float = 0.0,
        want_held_out: bool,
        low: int | None = None,
    ) -> tuple[Int64[Tensor, "n pos"], Int64[Tensor, " n"]]:
        """`n` problems of one template as prompts and answers."""
        expression = self.expressions[text]
        operands = draw_operands(
            expression.operands,
            n,
            low=self.settings.operand_min if low is None else low,
            high=self.settings.operand_max,
            rng=rng,
            sparse_share=sparse_share,
            want_held_out=want_held_out,
        )
        answers = expression.hypothesis.evaluate(operands)[expression.answer]
        return self.encode(expression, operands), torch.from_numpy(answers)

    @torch.inference_mode()
    def report(self, n: int, *, low: int | None = None) -> dict[str, dict[str, float]]:
        """Held-out results of every template."""
        results = {}
        for index, text in enumerate(self.settings.templates):
            rng = np.random.default_rng([self.settings.seed, 2**31, index])
            prompts, answers = self.problems(text, n, rng=rng, want_held_out=True, low=low)
            results[text] = self.evaluate(prompts, answers)
        return results
