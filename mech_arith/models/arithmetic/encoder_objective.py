"""What the model that regresses its answer minimises."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mech_arith.common.errors import UserError
from mech_arith.models.arithmetic.networks import EncoderShape, Norm, encoder_output
from mech_arith.models.arithmetic.objectives import Objective, Operands, TrainSettings
from mech_arith.models.arithmetic.tokens import CLS, ENCODER, encode_expression, layout
from mech_arith.problems.expressions import Expression

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification

log = logging.getLogger(__name__)

TOLERANCES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Candidates for a regressing model's tolerance: the smallest with accuracy >= .95 is its own, on
every template."""


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
