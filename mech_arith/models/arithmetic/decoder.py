"""The model that writes its answer."""

import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.models.arithmetic.blocks import plain
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.digits import Frame, PreNormModel
from mech_arith.models.arithmetic.networks import DecoderShape
from mech_arith.models.arithmetic.tokens import ARITHMETIC, PAD, AnswerFormat, blanks_before


class ArithmeticDecoder(PreNormModel):
    """Writes sign and digits after `=`, greedily."""

    vocabulary = ARITHMETIC
    shape: DecoderShape
    shapes = DecoderShape

    def __init__(self, card: Card, weights: dict[str, Tensor], device: torch.device) -> None:
        super().__init__(card, device)
        self.width_out = self.shape.d_vocab
        self.prompt_length = int(card.facts["prompt_length"])
        self.reader = self.answer_format = AnswerFormat.named(**card.facts["answer"])
        network = self.shape.network()
        network.load_state_dict(weights)
        self._adopt_native(network, self.shape.bridge_config())

    def _frame(self, length: int) -> Frame:
        blanks = blanks_before(length, self.prompt_length, reader=self.name)
        return Frame((PAD,) * blanks, ("=",))

    def answer_labels(self, length: int) -> tuple[str, ...]:
        return tuple(self.answer_format.labels())

    def read_out(self, resid: Float[Tensor, "rows at d"]) -> Float[Tensor, "rows at out"]:
        return plain(self.bridge.unembed)(plain(self.bridge.ln_final)(resid)).float()

    def _of_bridge(self, read: Tensor, last: int) -> Float[Tensor, "rows last out"]:
        return read[:, -last:].float()
