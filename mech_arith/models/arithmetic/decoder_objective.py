"""What the model that writes its answer minimises."""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.networks import DecoderShape, decoder_logits
from mech_arith.models.arithmetic.objectives import Objective, Operands, TrainSettings
from mech_arith.models.arithmetic.residues import Residues
from mech_arith.models.arithmetic.tokens import (
    ARITHMETIC,
    PAD,
    AnswerFormat,
    blanks_before,
    encode_expression,
)
from mech_arith.problems.expressions import Expression


class DecoderObjective(Objective):
    """Writes the answer token by token, after a prompt padded on the left to one length."""

    answer_format: AnswerFormat | Residues

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        self.answer_format = AnswerFormat.named(**settings.answer)
        self._build(settings.prompt_length, d_vocab=len(ARITHMETIC.tokens))

    def _build(self, prompt_length: int, *, d_vocab: int) -> None:
        settings = self.settings
        n_ctx = prompt_length + self.answer_format.length
        d_model, n_heads = (settings.shape.get(name, 0) for name in ("d_model", "n_heads"))
        if n_heads and d_model % n_heads:
            raise UserError(
                f"expected shape.d_model as a multiple of shape.n_heads, got {d_model} and "
                f"{n_heads}; change one of them"
            )
        self.shape = DecoderShape(**settings.shape, n_ctx=n_ctx, d_vocab=d_vocab)
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
