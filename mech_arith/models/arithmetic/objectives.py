"""What the two kinds of model are trained on, and what they minimise."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.networks import (
    DecoderShape,
    EncoderShape,
    Norm,
    decoder_logits,
    encoder_output,
)
from mech_arith.models.arithmetic.tokens import (
    ARITHMETIC,
    CLS,
    ENCODER,
    PAD,
    AnswerFormat,
    blanks_before,
    encode_expression,
    layout,
)
from mech_arith.problems.expressions import Expression, parse

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification

log = logging.getLogger(__name__)

Operands = dict[str, Int64[np.ndarray, " n"]]

HELD_OUT_ONE_IN = 101
"""One problem in so many is never trained on; all reported accuracies are on such problems."""

MOST_DRAWS = 50
"""Times that a batch of operands is drawn anew before the range is called too small."""

TOLERANCES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Candidates for a regressing model's tolerance: the smallest with accuracy >= .95 is its own, on
every template."""


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
    templates: dict[str, float] = field(default_factory=dict)
    """Expression -> share of the batch."""
    operand_min: int = 1
    operand_max: int = 999
    sparse_share: float = 0.0
    """Share of operands with digits set to zero: short carries are learnt first."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Sizes; an encoder's `norm` too: 'post' (BERT's, the default) or 'pre'."""
    answer: dict[str, Any] = field(default_factory=dict)
    prompt_length: int = 14
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
    """What differs between the two kinds of model."""

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


class DecoderObjective(Objective):
    """Writes the answer token by token, after a prompt padded on the left to one length."""

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        self.answer_format = AnswerFormat.named(**settings.answer)
        self.shape = DecoderShape(
            **settings.shape,
            n_ctx=settings.prompt_length + self.answer_format.length,
            d_vocab=len(ARITHMETIC.tokens),
        )
        self.network = self.shape.network(seed=settings.seed).to(self.device)

    def encode(self, expression: Expression, operands: Operands) -> Int64[Tensor, "n pos"]:
        tokens = encode_expression(expression, operands, vocabulary=ARITHMETIC, width=self.width)
        blanks = blanks_before(
            tokens.shape[1], self.settings.prompt_length, reader=self.settings.model
        )
        n = len(tokens)
        return torch.cat(
            [
                torch.full((n, blanks), ARITHMETIC.id(PAD)),
                tokens,
                torch.full((n, 1), ARITHMETIC.id("=")),
            ],
            dim=1,
        )

    def _answer_logits(
        self, prompts: Int64[Tensor, "n pos"], written: Int64[Tensor, "n length"]
    ) -> Float[Tensor, "n length vocab"]:
        tokens = torch.cat([prompts, written[:, :-1]], dim=1).to(self.device)
        logits = decoder_logits(self.network, tokens, n_heads=self.shape.n_heads)
        return logits[:, prompts.shape[1] - 1 :]

    def loss(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        written = self.answer_format.encode(answers)
        logits = self._answer_logits(prompts, written)
        return cross_entropy(logits.flatten(0, 1), written.flatten().to(self.device))

    def evaluate(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> dict[str, float]:
        """Exact accuracy. Greedy writing is exact just where every next token is right."""
        written = self.answer_format.encode(answers)
        right = torch.cat(
            [
                self._answer_logits(p, w).argmax(-1).cpu() == w
                for p, w in zip(prompts.split(2000), written.split(2000), strict=True)
            ]
        ).double()
        tokens = zip(self.answer_format.labels(), right.mean(0).tolist(), strict=True)
        return {"accuracy": right.prod(1).mean().item(), **dict(tokens)}

    def parameters(self) -> list[nn.Parameter]:
        return list(self.network.parameters())

    def card_facts(self, report: dict[str, dict[str, float]]) -> dict[str, Any]:
        return {
            "shape": asdict(self.shape),
            "answer": asdict(self.answer_format),
            "prompt_length": self.settings.prompt_length,
            "tolerance": 0.0,
        }


class EncoderObjective(Objective):
    """Regresses the answer from the pooled first position of a BERT, pretrained or new."""

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        lengths = {len(layout(e, self.width).text) for e in self.expressions.values()}
        if len(lengths) > 1:
            raise UserError(
                f"expected templates of one length for an encoder, got {sorted(lengths)} "
                f"characters for {list(settings.templates)}; train on those of one length"
            )
        self.shape = EncoderShape(**settings.shape, d_vocab=len(ENCODER.tokens))
        if settings.pretrained is not None and self.shape.norm != Norm.POST:
            raise UserError(
                f"expected shape.norm=post for a pretrained BERT, got {self.shape.norm}; set "
                "pretrained=null to train from random weights"
            )
        torch.manual_seed(settings.seed)
        self.network = self.shape.network()
        self.network.to(device=self.device)
        if settings.pretrained is not None:
            load_pretrained_bert(self.network, settings.pretrained)
            self.network.bert.embeddings.word_embeddings.weight.requires_grad_(False)

    def encode(self, expression: Expression, operands: Operands) -> Int64[Tensor, "n pos"]:
        tokens = encode_expression(expression, operands, vocabulary=ENCODER, width=self.width)
        return torch.cat([torch.full((len(tokens), 1), ENCODER.id(CLS)), tokens], dim=1)

    def _predict(self, prompts: Int64[Tensor, "n pos"]) -> Float[Tensor, " n"]:
        """Answers in units of the scale."""
        return encoder_output(self.network, prompts.to(self.device), self.shape)

    def loss(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        return mse_loss(
            self._predict(prompts), answers.float().to(self.device) / self.settings.scale
        )

    def evaluate(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> dict[str, float]:
        predicted = torch.cat([self._predict(p) for p in prompts.split(1000)]).cpu().double()
        error = predicted * self.settings.scale - answers
        variance = (answers.double() - answers.double().mean()).square().mean()
        return {
            "r2": 1 - (error.square().mean() / variance).item(),
            "median_abs_error": error.abs().median().item(),
            "mean_abs_error": error.abs().mean().item(),
            **{f"within_{t:g}": (error.abs() <= t).double().mean().item() for t in TOLERANCES},
        }

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]

    def card_facts(self, report: dict[str, dict[str, float]]) -> dict[str, Any]:
        share = {t: min(row[f"within_{t:g}"] for row in report.values()) for t in TOLERANCES}
        tolerance = next((t for t in TOLERANCES if share[t] >= 0.95), TOLERANCES[-1])
        if share[tolerance] < 0.95:
            log.warning(
                "expected answers within %g of the right ones in .95 of the problems of every "
                "template, got %.3f; train for longer",
                tolerance,
                share[tolerance],
            )
        return {
            "shape": asdict(self.shape),
            "scale": self.settings.scale,
            "tolerance": tolerance,
            "tolerance_accuracy": share[tolerance],
        }


def load_pretrained_bert(network: "BertForSequenceClassification", source: str) -> None:
    """Fill the BERT of `network` from a pretrained one, with the token rows in use alone.

    Raises:
        UserError: neither a directory nor an installed package that carries a model.
    """
    from importlib.util import find_spec

    from transformers import BertModel

    directory = Path(source)
    if not directory.is_dir():
        spec = find_spec(source)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"expected a directory or an installed package with a pretrained BERT, got "
                f"{source!r}; run `make train-encoder`, which installs it"
            )
        directory = Path(spec.submodule_search_locations[0]) / "model"
    pretrained = BertModel.from_pretrained(directory, add_pooling_layer=True)
    vocabulary = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    rows = torch.tensor([vocabulary.index(token) for token in ENCODER.tokens])
    weights = pretrained.state_dict()
    words, positions = (f"embeddings.{name}_embeddings.weight" for name in ("word", "position"))
    weights[words] = weights[words][rows]
    weights[positions] = weights[positions][: network.bert.config.max_position_embeddings]
    own = network.bert.state_dict()
    network.bert.load_state_dict({name: weights[name] for name in own if name in weights})


OBJECTIVES: dict[str, type[Objective]] = {"decoder": DecoderObjective, "encoder": EncoderObjective}
