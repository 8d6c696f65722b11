"""Whether tools compute the same logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from workloads import Workload

TOLERANCE = 1e-3
"""Between logits of the same edit, in float32."""


@dataclass
class Compared:
    """What one tool's logits were like beside the engine's."""

    logits: int = 0
    largest_difference: float = 0.0
    rows: int = 0
    same_top: int = 0

    @property
    def same_top_token(self) -> float:
        """Share of edits whose largest logit is the same token's."""
        return self.same_top / self.rows


class Agreement:
    """The engine's logits of all edits, and how others compare with them.

    Holds edits x vocabulary floats: 1.4 GB for the 6,912 edits of workload D.
    """

    def __init__(self, workload: Workload) -> None:
        vocabulary = len(workload.unembedding)
        self.logits = [
            torch.full((len(edits), workload.n, vocabulary), torch.nan) for edits in workload.sites
        ]

    def fill(
        self,
        site: int,
        edit: Int64[Tensor, " rows"],
        problem: Int64[Tensor, " rows"],
        logits: Float[Tensor, "rows vocab"],
    ) -> None:
        """Keep some of the engine's."""
        self.logits[site][edit, problem] = logits

    def check_filled(self) -> None:
        """Raise a RuntimeError unless the engine ran every edit."""
        missing = sum(int(kept[..., 0].isnan().sum()) for kept in self.logits)
        if missing:
            raise RuntimeError(f"expected logits of every edit, got none or NaN for {missing}")

    def compare(
        self, compared: Compared, site: int, edit: int, logits: Float[Tensor, "n vocab"]
    ) -> None:
        """Add one tool's logits of all problems under one edit to what is known of it."""
        kept = self.logits[site][edit]
        difference = float((logits - kept).abs().nan_to_num(nan=torch.inf).max())
        compared.largest_difference = max(compared.largest_difference, difference)
        compared.logits += logits.numel()
        compared.rows += len(logits)
        compared.same_top += int((logits.argmax(-1) == kept.argmax(-1)).sum())
