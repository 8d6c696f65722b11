"""What an edit does where other tokens were written before it than those of the right answer.

An edit is planned on the right answer: how far it moves each problem at `answer.t` is known from a
pass behind the right answer's tokens. A model that writes freely may have written others when it
gets there. Then its activation at that position is another one by some difference D, and the rule
of the edit, new coordinate = p c + q, holds for the coordinate at hand. So beside what was planned
it adds (p - 1) times the part of D that lies along its directions: with p = 0 (an interchange, all
the way) D is taken back there, with p = 1 (a shift) it is left.

A direction over several positions has a part at each. What is taken back at a position lies in the
span of the directions' parts there, so that the coordinate over all positions is p c + q as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LEAST_PART = 1e-12
"""Share of a direction's squared length below which it has no part at a position."""


@dataclass(frozen=True)
class Rule:
    """How much rows take back of what other tokens make of their activations."""

    share: Float[Tensor, " rows"]
    """1 - p."""
    frames: Float[Tensor, "f r k d"] | None
    """Frames of r directions over k positions; None where the whole activation is one's own."""
    frame_of: Int64[Tensor, " rows"]
    """Which of the frames a row is edited along."""

    def of(self, rows: Int64[Tensor, " some"]) -> "Rule":
        """The rule of some of the rows."""
        return replace(self, share=self.share[rows], frame_of=self.frame_of[rows])

    def joined(self, others: Sequence["Rule"]) -> "Rule":
        """These rows, and those of others behind them; the frames are the same."""
        every = [self, *others]
        share = torch.cat([one.share for one in every])
        return replace(self, share=share, frame_of=torch.cat([one.frame_of for one in every]))

    def taken_back(self, other: Float[Tensor, "rows d"], column: int) -> Float[Tensor, "rows d"]:
        """What is taken back of a difference from the right answer's activation.

        Args:
            other: the difference.
            column: which of the k positions it is at.
        """
        device = other.device
        wide, share = other.float(), self.share.to(device)
        if self.frames is not None:
            frames, frame_of = self.frames[:, :, column].to(device), self.frame_of.to(device)
            inverse = torch.linalg.pinv(
                frames.double() @ frames.double().mT, atol=LEAST_PART, rtol=0.0, hermitian=True
            )
            own = frames[frame_of]
            along = torch.einsum("nd,nrd->nr", wide, own)
            along = torch.einsum("nr,nrs->ns", along, inverse.float()[frame_of])
            wide = torch.einsum("ns,nsd->nd", along, own)
        return (share[:, None] * wide).to(other.dtype)
