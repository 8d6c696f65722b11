"""Decoders that were never trained, and how they are asked."""

from collections.abc import Sequence
from dataclasses import asdict

import torch

from mech_arith.common.digests import tensor_digest
from mech_arith.models.arithmetic.checkpoints import Card
from mech_arith.models.arithmetic.decoder import ArithmeticDecoder
from mech_arith.models.arithmetic.networks import DecoderShape
from mech_arith.models.arithmetic.tokens import ARITHMETIC
from mech_arith.problems.templates import build_template

SHAPE = DecoderShape(
    n_layers=3, d_model=32, n_heads=4, d_mlp=64, n_ctx=19, d_vocab=len(ARITHMETIC.tokens)
)
TEMPLATE = build_template("null", "a-(b-c)")
RANGES = dict.fromkeys("abc", (100, 999))
DIGITS = 3


class FirstToken:
    """Takes the first token that is written for the answer, whatever it is."""

    longer = None
    behind = ()

    def tokens(self, number: int) -> tuple[int, ...]:
        """A token is its own number."""
        return (number,)

    def read(self, tokens: Sequence[int]) -> tuple[int | None, bool]:
        """One is enough."""
        return tokens[0], True

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Never."""
        return False

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens' own numbers."""
        return " ".join(map(str, tokens))

    def longest(self, bound: int) -> int:
        """One."""
        return 1


def random_decoder(seed: int) -> ArithmeticDecoder:
    """A decoder that was never trained."""
    weights = SHAPE.network(seed=seed).state_dict()
    card = Card(
        name=f"random_{seed}",
        kind="decoder",
        templates=(TEMPLATE.expression.answer,),
        operand_min=1,
        operand_max=10**DIGITS - 1,
        facts={
            "shape": asdict(SHAPE),
            "answer": {"width": 4, "sign": "first", "digits": "units_first"}
            | {"negatives": "magnitude"},
            "prompt_length": 14,
            "tolerance": 0.0,
        },
        held_out={},
        training={},
        digest=tensor_digest(*weights.values()),
    )
    return ArithmeticDecoder(card, weights, torch.device("cpu"))
