"""Models that write their answer."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.models.arithmetic.blocks import plain
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.digits import Frame, PreNormModel
from mech_arith.models.arithmetic.networks import DecoderShape
from mech_arith.models.arithmetic.tokens import ARITHMETIC, PAD, AnswerFormat, blanks_before


class NativeDecoder(PreNormModel):
    """A causal network that writes its answer greedily, in a format that its card names."""

    shape: DecoderShape
    shapes = DecoderShape
    reader: Any

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        super().__init__(card, device)
        self.width_out = self.shape.d_vocab
        self.reader = self.answers_of(card)
        network = self.shape.network()
        network.load_state_dict(weights)
        self._adopt_native(network, self.shape.bridge_config())

    @staticmethod
    @abstractmethod
    def answers_of(card: Card) -> Any:
        """How it writes numbers."""

    def answer_labels(self, length: int) -> tuple[str, ...]:
        return tuple(self.reader.labels())

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        return plain(self.bridge.unembed)(plain(self.bridge.ln_final)(resid)).float()

    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        return read[:, -last:].float()


class ArithmeticDecoder(NativeDecoder):
    """Writes sign and digits after `=`."""

    vocabulary = ARITHMETIC
    reader: AnswerFormat

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        super().__init__(card, weights, device)
        self.prompt_length = int(card.facts["prompt_length"])

    @staticmethod
    def answers_of(card: Card) -> AnswerFormat:
        return AnswerFormat.named(**card.facts["answer"])

    def _frame(self, length: int) -> Frame:
        blanks = blanks_before(length, self.prompt_length, reader=self.name)
        return Frame((PAD,) * blanks, ("=",))
