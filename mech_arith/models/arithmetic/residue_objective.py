"""What the model of modular arithmetic minimises, on all of its training problems at once."""

from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.decoder_objective import DecoderObjective
from mech_arith.models.arithmetic.objectives import Objective, Operands, TrainSettings
from mech_arith.models.arithmetic.residues import Residues
from mech_arith.problems.expressions import Expression

MOST_PROBLEMS = 100_000
"""Of one step."""


class ResidueObjective(DecoderObjective):
    """Writes a residue. A step is made on a fixed share of all problems; the rest are held out."""

    answer_format: Residues

    def __init__(self, settings: TrainSettings) -> None:
        Objective.__init__(self, settings)
        (self.text,) = self._checked()
        self.answer_format = Residues(**settings.answer)
        self.expression = self.expressions[self.text]
        numbers = range(settings.operand_min, settings.operand_max + 1)
        every = np.array(list(product(numbers, repeat=len(self.expression.operands))))
        # All problems are at hand: a draw of them, and not a hash, has no pattern to be learnt.
        order = np.random.default_rng(0).permutation(len(every))
        assert settings.train_share is not None
        n_trained = round(settings.train_share * len(every))
        self._trained, self._held_out = every[order[:n_trained]], every[order[n_trained:]]
        self._build(len(self.expression.operands) + 1, d_vocab=self.answer_format.d_vocab)
        self._batch = self._asked(self._trained)

    def _checked(self) -> list[str]:
        """The one expression.

        Raises:
            UserError: settings that do not go together.
        """
        settings, texts = self.settings, list(self.expressions)
        share, modulus = settings.train_share, settings.answer.get("modulus")
        if list(settings.answer) != ["modulus"] or not isinstance(modulus, int) or modulus < 2:
            raise UserError(
                "expected answer.modulus as a whole number of 2 or more for kind=residues, and "
                f"nothing beside it, got answer={dict(settings.answer)}; see conf/train/"
            )
        if len(texts) != 1:
            raise UserError(
                f"expected one template for kind=residues, got {', '.join(texts)}; its prompts "
                "hold the operands alone, so train one model for each"
            )
        if share is None or not 0 < share < 1:
            raise UserError(
                f"expected train_share above 0 and below 1 for kind=residues, got {share}; set "
                "for example train_share=0.5"
            )
        if settings.operand_max >= modulus:
            raise UserError(
                f"expected operand_max below answer.modulus={modulus}, got "
                f"{settings.operand_max}; lower it"
            )
        tree = self.expressions[texts[0]].tree
        if tree.symbol != "%" or tree.arguments[1].name != str(modulus):
            raise UserError(
                f"expected a template modulo {modulus}, as answer.modulus says, got {texts[0]}; "
                "change one of them"
            )
        n = (settings.operand_max - settings.operand_min + 1) ** len(
            self.expressions[texts[0]].operands
        )
        if n > MOST_PROBLEMS:
            raise UserError(
                f"expected at most {MOST_PROBLEMS} problems for kind=residues, which trains on "
                f"all at once, got {n}; lower operand_max"
            )
        return texts

    def encode(self, expression: Expression, operands: Operands) -> Int64[Tensor, "n pos"]:
        return self.answer_format.prompts(expression.operands, operands)

    def _asked(
        self, numbers: Int64[np.ndarray, "n operands"]
    ) -> tuple[Int64[Tensor, "n pos"], Int64[Tensor, " n"]]:
        operands = dict(zip(self.expression.operands, numbers.T, strict=True))
        answers = self.expression.hypothesis.evaluate(operands)[self.expression.answer]
        return self.encode(self.expression, operands), torch.from_numpy(answers)

    def loss(
        self, prompts: Int64[Tensor, "n pos"], answers: Int64[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """In float64: the loss of what is known by heart is below what float32 tells from 0."""
        written = self.answer_format.encode(answers).to(self.device)
        logits = self._answer_logits(prompts, written)
        return cross_entropy(logits.flatten(0, 1).double(), written.flatten())

    def batch(self, step: int) -> tuple[Int64[Tensor, "n pos"], Int64[Tensor, " n"]]:
        return self._batch

    @torch.inference_mode()
    def report(self, n: int, *, low: int | None = None) -> dict[str, dict[str, float]]:
        """Results on all problems that are held out, or on those whose operands are not small."""
        held_out = self._held_out
        if low is not None:
            held_out = held_out[(held_out >= low).all(axis=1)]
        return {self.text: self.evaluate(*self._asked(held_out))}

    def card_facts(self, report: dict[str, dict[str, float]]) -> dict[str, Any]:
        return {
            "shape": asdict(self.shape),
            "answer": asdict(self.answer_format),
            "tolerance": 0.0,
            "problems": {"trained": len(self._trained), "held_out": len(self._held_out)},
        }
